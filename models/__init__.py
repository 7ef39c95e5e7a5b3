"""The policy: a text-to-video model, how it is sampled, how it learns, and whether it got better.

    prompts -> Sampler (families/ over diffusers) -> latents, prompt embeddings, frames
    latents + embeddings + curated examples or pairs -> train() -> LoRA adapter bytes + curve
    evaluation rows before and after -> gate.decide() -> verdict

What comes in: a model folder in diffusers layout, prompts and seeds; later the *stored* latents and
embeddings with their weights or pairs (training loads neither the VAE nor the text encoder). What goes out:
frames and latents, an adapter that plain diffusers loads, a verdict in words. Called by tasks/; knows data/
and nothing else of the house.

Which file to open first:
    families/base.py        what a model family has to provide
    sampling/sampler.py     prompts and seeds to latents and frames; offload.py: what lies on the GPU when
    training/objectives/    the losses, a file each, beside their equations (docs/objectives.md derives them)
    training/loss.py        a loss put together with its terms; equations.py: what they are made of
    training/step.py, trainer.py  one optimisation step, and the loop around it
    training/settings.py    every setting of training (imports no torch)
    training/blocks.py      how blocks run in training, what they keep; memory_plan.py: how much that may be
    training/distributed.py, launch_ddp.py  several processes, a GPU each
    training/reference.py   the reference's errors as stored numbers; beta.py: beta from them
    training/probe.py, diagnosis.py  what training did, measured at fixed noise, and what ails it in words
    compile.py              torch.compile of a network's blocks, and the choice of the attention kernel
    lora.py                 adapters: attach, switch off, save, merge
    gate/                   paired bootstrap, guards, verdict
    policy.py               ids of base models and policies (imports no torch)
"""

__all__ = ["families", "gate", "sampling", "training"]
