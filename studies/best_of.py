"""Best-of-n sampling: of n clips of the base for one prompt, the one that a feedback prefers. No training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from data.keys import bytes_digest, clip_seed, digest
from data.records import Clip, Score, Studied
from data.store import Store
from models.gate.verdict import Paired, compare
from studies.cells import STAGE, VERSION, cell_id
from studies.grid import BEST_OF, MAIN
from tasks import generate, score
from tasks.context import ClipJob, RewardRef, RoundContext, open_store
from tasks.generate import GenerateShard

_PURPOSE: Final = "best-of-n"


@dataclass(frozen=True)
class Preference:
    """How a feedback prefers: the reward's value, or only whether it reaches `threshold`."""

    feedback: str
    reward: RewardRef
    kind: str
    threshold: float | None

    def of(self, value: float) -> float:
        """How much a clip of that value is preferred."""
        return value if self.kind == "graded" or self.threshold is None else float(value >= self.threshold)


@dataclass(frozen=True)
class BestOfWork:
    """The choices of every feedback, for every n, among the same clips."""

    study: str
    context: RoundContext
    preferences: tuple[Preference, ...]
    clips_per_prompt: int
    sizes: tuple[int, ...]

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"best of {', '.join(map(str, self.sizes))}, seed {self.context.seed}"

    @property
    def alike(self) -> str:
        """No other work has the same answer."""
        return self.key

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides the rows."""
        metric = self.context.evaluate.metric
        return {
            "stage": STAGE,
            "version": VERSION,
            "study": self.study,
            "cell": BEST_OF,
            "clips": digest([shard.question for shard in self.shards()]),
            "metric": [metric.name, metric.version],
            "preferences": [
                [one.feedback, one.reward.name, one.reward.version, one.kind, one.threshold]
                for one in self.preferences
            ],
            "sizes": list(self.sizes),
            "gate": self.context.gate.model_dump(),
            "seed": self.context.seed,
        }

    @cached_property
    def key(self) -> str:
        """Key of the manifest that holds the rows."""
        return digest(self.question)

    def shards(self) -> Sequence[GenerateShard]:
        """Units of the clips to choose from."""
        _, jobs = self.context.evaluate.jobs[0]
        prompts = list(dict.fromkeys(job.prompt for job in jobs))
        wanted = [
            ClipJob(prompt, clip_seed(self.context.seed, prompt.prompt_id, index, _PURPOSE))
            for prompt in prompts
            for index in range(self.clips_per_prompt)
        ]
        how = self.context.generation
        return generate.shards(how, self.context.policy, wanted, "clips to choose from")

    def rewards(self) -> tuple[RewardRef, ...]:
        """All that the clips are scored by."""
        found = {one.reward.name: one.reward for one in self.preferences}
        metric = self.context.evaluate.metric
        return tuple((found | {metric.name: metric}).values())

    def run(self) -> None:
        """Choose, and commit the rows."""
        store = open_store(self.context.generation.root)
        scored = score.shards(store, self.shards(), self.rewards())
        clips: list[Clip] = [row for one in scored for row in store.read(one.clips_key, "clips")]
        keys = {reward.name: [one.key_of(reward) for one in scored] for reward in self.rewards()}
        values = {name: values_of(store, held) for name, held in keys.items()}
        metric = self.context.evaluate.metric.name
        rows = [
            self._row(one, size, choose(clips, values[one.reward.name], values[metric], one, size, metric))
            for one in self.preferences
            for size in self.sizes
        ]
        parents = [*(one.clips_key for one in scored), *(key for held in keys.values() for key in held)]
        store.commit(STAGE, self.question, {"studies": rows}, parents=parents)

    def _row(self, one: Preference, size: int, choices: Paired) -> Studied:
        context = self.context
        found = dataclasses.asdict(compare(choices, context.gate))
        levels = ("before", "after", "ci_low", "ci_high", "n")
        categories = {
            name: dataclasses.asdict(compare(choices.category(name), context.gate))
            for name in sorted(set(choices.categories))
        }
        by_category = {
            name: {level: told[level] for level in (*levels, "delta")} for name, told in categories.items()
        }
        return Studied(
            study=self.study,
            cell=cell_id(digest([self.key, one.feedback])),
            variant=MAIN,
            value=f"n = {size}",
            feedback=one.feedback,
            objective=BEST_OF,
            seed=context.seed,
            rounds=1,
            best_of=size,
            noise=0.0,
            metric=context.evaluate.metric.name,
            split=context.evaluate.primary,
            **{level: found[level] for level in levels},
            clips=0,
            labels=len(choices.prompts) * size,
            accepted=0,
            pairs=0,
            steps=0,
            batch=0,
            promoted=False,
            outcome="chosen, not trained" if choices.prompts else "nothing to choose from",
            policy_before=context.policy.policy_id,
            policy_after=context.policy.policy_id,
            curate_key="",
            finetune_key="",
            evaluate_key="",
            settings=json.dumps(
                {"reward": one.reward.name, "kind": one.kind, "threshold": one.threshold}, sort_keys=True
            ),
            categories=json.dumps(by_category, sort_keys=True, allow_nan=False),
            guards="{}",
            diagnosis="[]",
        )


def choose(
    clips: Sequence[Clip],
    judged: Mapping[str, float | None],
    truth: Mapping[str, float | None],
    preference: Preference,
    size: int,
    metric: str,
) -> Paired:
    """The clip that is preferred in each group of `size` clips of a prompt; ties are broken by lot.

    Args:
        clips: rows; a prompt's are grouped in the order of a digest of their ids, which knows no value.
        judged: the feedback's value by clip; a clip without one cannot be chosen.
        truth: the metric's value by clip; a group in which one is missing is left out, as is one in which
            nothing was judged.
        preference: of the feedback.
        size: n.
        metric: its name.

    Returns:
        A row a group: the metric's mean over all of its clips, and of the clip chosen.
    """
    by_prompt: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: _lot("group", clip.clip_id)):
        by_prompt.setdefault(clip.prompt_id, []).append(clip)
    found: list[tuple[float, float, str, str]] = []
    for prompt, members in sorted(by_prompt.items()):
        for start in range(0, len(members) - size + 1, size):
            group = members[start : start + size]
            real = [truth.get(clip.clip_id) for clip in group]
            known = [(clip, value) for clip in group if (value := judged.get(clip.clip_id)) is not None]
            if not known or any(value is None for value in real):
                continue
            best = max(known, key=lambda one: (preference.of(one[1]), _lot("tie", one[0].clip_id)))[0]
            held = [value for value in real if value is not None]
            after = held[group.index(best)]
            found.append((sum(held) / len(held), after, prompt, best.category))
    before, chosen, prompts, categories = zip(*found, strict=True) if found else ((), (), (), ())
    return Paired(metric, np.array(before, np.float64), np.array(chosen, np.float64), prompts, categories)


def values_of(store: Store, keys: Sequence[str]) -> dict[str, float | None]:
    """The value of each clip in score units of one reward."""
    rows: list[Score] = [row for key in keys for row in store.read(key, "scores")]
    return {row.clip_id: row.value for row in rows}


def _lot(what: str, clip_id: str) -> str:
    return bytes_digest(f"{_PURPOSE}:{what}:{clip_id}".encode())
