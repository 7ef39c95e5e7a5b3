"""Side-by-side measurements of ours against the plain way; `results/` holds what they printed."""
