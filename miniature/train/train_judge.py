"""Trains the miniature's judge.

    python -m miniature.train.train_judge --device cuda --seconds 170 --out DIR


A Qwen2-VL made small (`miniature.train.judge_model`) answers the world's rubric about rendered clips and,
with
`--samples`, about clips that the base model generated; the oracle labels both. The loss is the cross-entropy
of the answer over the whole vocabulary, plus, on clips that are right, that of the caption itself: to say
what is to be seen teaches to see it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from miniature.train.judge_corpus import HELD_OUT, KINDS, JudgeClips, joined, rendered, samples
from miniature.train.judge_forward import JudgeForward
from miniature.train.judge_model import JudgeShape, build_judge, save_judge
from miniature.train.judge_questions import SHORT, WRONG, bank, rubric, vocabulary_texts
from miniature.train.measure_judge import MEANING, measure_judge
from miniature.train.reward_corpus import augment
from miniature.train.training import Options, Trained, autocast, cosine, finish, fit, parse
from miniature.world.corpus import processes

MODULE: Final = "miniature.train.train_judge"
TEMPERED: Final = 0.75  # share of clips in a batch that are blurred, brightened, noisy as generated ones are
ASKED_WRONG: Final = 2  # of the questions prepared for a clip, so many are put in a step
ASKED_SHORT: Final = 2
# Loss of: own caption, wrong captions, short questions, the caption's own words.
WEIGHTS: Final = (1.0, 0.5, 0.5, 1.0)


def judge_batches(
    forward: JudgeForward,
    processor: Any,
    clips: JudgeClips,
    from_samples: int,
    share: float,
    options: Options,
) -> Callable[[], torch.Tensor]:
    """The loss of a random batch, each time it is called.

    Args:
        forward: the model.
        processor: its processor.
        clips: rendered clips first, the last `from_samples` of them generated.
        from_samples: how many are generated.
        share: share of generated clips in a batch; 0 without any.
        options: batch size, seed, device.
    """
    device = options.device
    asked = bank(clips, processor.tokenizer, forward.tail, options.seed, device)
    random = torch.Generator(device).manual_seed(options.seed)
    sampled = round(options.batch * share) if from_samples else 0
    border, own = len(clips) - from_samples, len(KINDS)
    token = torch.tensor([forward.no, forward.yes], device=device)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, device=device, generator=random)

    def loss_of_batch() -> torch.Tensor:
        rows = torch.cat(
            [integers(border, options.batch - sampled), border + integers(max(1, from_samples), sampled)]
        )
        frames = clips.frames[rows].permute(0, 1, 4, 2, 3).float() / 255
        tempered = torch.rand(len(rows), device=device, generator=random) < TEMPERED
        frames = torch.where(tempered[:, None, None, None, None], augment(frames, random), frames)
        chosen = torch.cat(
            [
                torch.arange(own, device=device).expand(len(rows), -1),
                own + integers(WRONG, len(rows), ASKED_WRONG),
                own + WRONG + integers(SHORT, len(rows), ASKED_SHORT),
            ],
            dim=1,
        )
        at = rows[:, None]
        ids, labels = asked.ids[at, chosen].long(), asked.labels[at, chosen]
        with autocast(device):
            hidden = forward(frames, ids)
            place = asked.answer_at[at, chosen].long()[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
            answer = forward.model.lm_head(hidden.gather(2, place)[:, :, 0]).float()
            said = forward.model.lm_head(hidden[:, own - 1, :-1]).float()
        known = labels.isfinite()
        target = token[labels.nan_to_num().long()]
        error = functional.cross_entropy(answer.flatten(0, 1), target.flatten(), reduction="none")
        error = error.view_as(labels) * known
        groups = [slice(0, own), slice(own, own + ASKED_WRONG), slice(own + ASKED_WRONG, None)]
        loss = sum(
            weight * error[:, some].sum() / known[:, some].sum().clamp(min=1)
            for weight, some in zip(WEIGHTS, groups, strict=False)
        )
        # The words of the caption, where the clip shows them: token t + 1 from all before it.
        words = torch.arange(said.shape[1], device=device)[None] < asked.text[at, own - 1].long() - 1
        words = words & (labels[:, own - 1] == 1.0)[:, None]
        spoken = functional.cross_entropy(said.flatten(0, 1), ids[:, own - 1, 1:].flatten(), reduction="none")
        caption = (spoken * words.flatten()).sum() / words.sum().clamp(min=1)
        total: torch.Tensor = loss + WEIGHTS[3] * caption
        return total

    return loss_of_batch


def corpus(
    options: Options, labelled: int, shape: JudgeShape, folder: Path | None, pool: Executor | None
) -> tuple[JudgeClips, int]:
    """Clips to train on, and how many of them, at the end, the base model generated."""
    common = (shape.frames, shape.size, options.device, pool, HELD_OUT)
    parts = [rendered(labelled, options.seed, *common)]
    if options.clips > labelled:
        parts.append(rendered(options.clips - labelled, options.seed + 1, *common, judged=False))
    generated = 0
    if folder is not None:
        parts.append(samples(folder, "train", shape.frames, options.device))
        generated = len(parts[-1])
    return joined(parts), generated


def main(argv: list[str] | None = None) -> Trained:
    """Trains, saves (weights, processor, card), and measures the saved files."""
    begun = time.monotonic()
    more: dict[str, dict[str, Any]] = {
        "labelled": {"type": int, "default": 32_000, "help": "of the rendered clips, judged by the oracle"},
        "samples": {"type": Path, "help": "folder that miniature.train.judge_samples wrote"},
        "share": {"type": float, "default": 0.5, "help": "of generated clips in a batch"},
        "workers": {"type": int, "default": 1, "help": "processes for scenes and the oracle"},
    }
    options, own = parse(MODULE, argv, more, seconds=170.0, clips=80_000, batch=256, lr=1.5e-3, measure=1500)
    labelled, share, workers, folder = own["labelled"], own["share"], own["workers"], own["samples"]
    if not (0 <= share <= 1 and 0 < labelled <= options.clips and options.batch > 1 and workers > 0):
        raise SystemExit(
            "--share lies in [0, 1], --labelled in [1, --clips]; --batch is at least 2, --workers 1"
        )
    shape = JudgeShape()
    model, processor = build_judge(shape, vocabulary_texts(), options.seed)
    model.to(options.device)
    with processes(workers) if workers > 1 else nullcontext() as pool:
        clips, generated = corpus(options, labelled, shape, folder, pool)
        print(f"{time.monotonic() - begun:6.1f} s  {len(clips)} clips, {generated} of them generated")
        forward = JudgeForward(model, processor, shape, rubric())
        loss = judge_batches(forward, processor, clips, generated, share, options)
        print(f"{time.monotonic() - begun:6.1f} s  questions are ready", flush=True)
        done = fit(model, loss, cosine(options.lr), options.seconds, options.steps)
        size = save_judge(model, processor, options.out)
        del model, forward, clips, loss
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()
        quality = measure_judge(options.out, options.device, options.measure, options.seed, folder, pool)
    facts = [
        "Qwen2-VL (transformers' class) for the `judge` reward of the miniature; asked by "
        "`miniature/rubrics/world.yaml`.",
        f"{size / 2e6:.2f} M parameters, {size / 1e6:.2f} MB of float16; {shape.tokens} vision tokens; "
        f"{shape}.",
        f"Data: {labelled} rendered clips with the oracle's answers, {options.clips - labelled} more with "
        f"labels by construction, {generated} clips of the base model with the oracle's answers "
        f"({share:.0%} of a batch).",
        f"Never seen in training: {', '.join(HELD_OUT)}.",
    ]
    meaning = dict.fromkeys(quality, "agreement with the oracle on this kind of clip") | MEANING
    return finish("A small judge of the physics world", facts, meaning, options, done, quality)


if __name__ == "__main__":
    main()
