"""Training: the objectives, the trainer around them, references, and training on several GPUs."""
