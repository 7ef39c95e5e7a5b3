"""Sampling: prompts and seeds to latents and frames, and what of a pipeline lies on the device meanwhile."""
