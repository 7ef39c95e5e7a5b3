"""The policy: a text-to-video model, how it is sampled, how it learns, and whether it got better.

    prompts -> Sampler (families/ over diffusers) -> latents, prompt embeddings, frames
    latents + embeddings + curated examples or pairs -> train() -> LoRA adapter bytes + curve
    evaluation rows before and after -> gate.decide() -> verdict

What comes in: a model folder in diffusers layout, prompts and seeds; later the *stored* latents and
    embeddings with
their weights or pairs (training loads neither the VAE nor the text encoder). What goes out: frames and
latents, an adapter that plain diffusers loads, a verdict in words. Called by tasks/; knows data/ and nothing
else of the house.

Which file to open first:
    objectives.py        the losses, beside their equations (docs/objectives.md derives them)
    terms.py             a loss put together from them, and what is logged of it
    run.py, trainer.py   one optimisation step, and the loop around it
    blocks.py            how blocks run in training, what they keep; memory_plan.py: how much that may be
    team.py, together.py  several processes, a GPU each
    reference.py         the reference's errors as stored numbers; calibration.py: beta from them
    probe.py, diagnosis.py  what training did, measured at fixed noise, and what ails it in words
    families/base.py     what a model family has to provide
    sampling.py          prompts and seeds to latents and frames
    residence.py         which parts of a pipeline are on the GPU; quantise.py: weights held in fewer bits
    lora.py              adapters: attach, switch off, save, merge
    gate.py              paired bootstrap, guards, verdict
    policy.py            ids of base models and policies (imports no torch)
    settings.py          every setting of the above, with its meaning (imports no torch)
    mini/                how the shipped miniature was made
"""

__all__ = ["families", "gate", "sampling", "training"]
