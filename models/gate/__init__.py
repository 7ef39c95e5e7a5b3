"""The gate: paired statistics over clips, and the verdict on a candidate."""
