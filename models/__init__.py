"""The policy: a text-to-video model, how it is sampled, how it learns, and whether it got better.

    prompts -> Sampler (families/ over diffusers) -> latents, prompt embeddings, frames
    latents + embeddings + curated examples or pairs -> train() -> LoRA adapter bytes + curve
    evaluation rows before and after -> gate.decide() -> verdict

What comes in: a model folder in diffusers layout, prompts and seeds; later the *stored* latents and
embeddings with their weights or pairs (training loads neither the VAE nor the text encoder). What goes out:
frames and latents, an adapter that plain diffusers loads, a verdict in words. Called by tasks/; knows data/
and nothing else of the house.

Open first: families/base.py (what a family provides), sampling/sampler.py, training/trainer.py and step.py
(the loop and one step of it), training/objectives/ (docs/objectives.md derives them), gate/verdict.py.
"""

__all__ = ["families", "gate", "sampling", "training"]
