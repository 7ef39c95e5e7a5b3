"""A cell played: the last three stages of an ordinary round, and the row that says what came of it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from data.errors import Diverged, StageFailed
from data.keys import digest
from data.records import Studied
from data.store import Store
from data.store.manifest import Manifest
from models.training.diagnosis import diagnose
from studies.grid import TUNING, Cell
from studies.recipe import Tree
from tasks import curate, evaluate, finetune, fingerprints, generate
from tasks.context import ClipJob, Generation, PolicyRef, RoundContext, open_store
from tasks.stages import run_stage
from tasks.units import Runner

STAGE: Final = "study"
VERSION: Final = 1
# Pools are made before any cell, by whoever is free; a cell finds them in the store.
_STAGES: Final = ("curate", "finetune", "evaluate")


@dataclass(frozen=True)
class CellWork:
    """One training with its examination: a round whose clips and scores are there.

    Attributes:
        study: the study's name.
        number: of the round in its row, from 1.
        context: what the stages need.
        settings: the objective's own settings, for the row.
    """

    study: str
    cell: Cell
    number: int
    context: RoundContext
    settings: Tree

    @property
    def label(self) -> str:
        """What a person calls it."""
        row = f", round {self.number}" if self.cell.rounds > 1 else ""
        return f"{self.cell.label}{row}"

    @cached_property
    def alike(self) -> str:
        """Equal for two works that would train the same: they share answers, if not done at the same time."""
        return digest(self._work)

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides the row."""
        cell = dataclasses.asdict(self.cell)
        return {
            "stage": STAGE,
            "version": VERSION,
            "study": self.study,
            "cell": {name: cell[name] for name in ("variant", "value", "feedback", "objective", "seed")},
            "noise": float(self.cell.noise),
            "round": self.number,
            "work": self.alike,
        }

    @cached_property
    def key(self) -> str:
        """Key of the manifest that holds the row."""
        return digest(self.question)

    def run(self) -> None:
        """Play, and commit the row.

        Raises:
            StageFailed, ConfigError: a stage did not finish; what was done is kept.
        """
        store = open_store(self.context.generation.root)
        try:
            for stage in _STAGES:
                run_stage(stage, self.context, Runner())
            row, parents = self._row(store)
        except StageFailed as failed:
            # Settings that are tried may be too wild: that is an answer. Of the chosen ones it is a failure.
            if self.cell.variant != TUNING or not isinstance(failed.__cause__, Diverged):
                raise
            row, parents = self._diverged(store, str(failed.__cause__))
        store.commit(STAGE, self.question, {"studies": [row]}, parents=parents)

    @property
    def _work(self) -> dict[str, Any]:
        """All that decides the three stages, as far as it can be named before any of them has run."""
        context = self.context
        how, policy = context.generation, context.policy
        examined = [_clips(how, policy, jobs) for _, jobs in context.evaluate.jobs]
        measures = [[reward.name, reward.version] for reward in context.evaluate.measures]
        return {
            "versions": dict(fingerprints.VERSIONS),
            "clips": _clips(how, policy, context.jobs),
            "feedback": [context.feedback.name, context.feedback.version],
            "curate": context.curate.fingerprint(),
            "finetune": fingerprints.finetune(how.model, context.finetune, policy, "", ""),
            "examined": examined,
            "measures": measures,
            "guards": list(context.evaluate.guards),
            "gate": context.gate.model_dump(),
            "seed": context.seed,
        }

    def _row(self, store: Store) -> tuple[Studied, list[str]]:
        context = self.context
        trained, examined = (
            _manifest(store, unit.keys[0]) for unit in (finetune.unit(context), evaluate.unit_of(context))
        )
        after = finetune.candidate(context)
        found = examined.info
        verdict = found["verdict"] if after else f"{found['verdict']}: {found['primary']['reason']}"
        row = dataclasses.replace(
            self._told(store, found, verdict),
            promoted=found["promoted"],
            policy_after=after.policy_id if after else "",
            finetune_key=trained.key,
            evaluate_key=examined.key,
            diagnosis=_json(
                [] if after is None else [dataclasses.asdict(one) for one in diagnose(trained.info)]
            ),
        )
        return row, [row.curate_key, trained.key, examined.key]

    def _diverged(self, store: Store, reason: str) -> tuple[Studied, list[str]]:
        row = self._told(store, evaluate.nothing_learned(self.context.evaluate, reason), reason)
        return row, [row.curate_key]

    def _told(self, store: Store, found: Mapping[str, Any], outcome: str) -> Studied:
        """The row, as far as findings and curation say it."""
        context, cell, primary = self.context, self.cell, found["primary"]
        curated = _manifest(store, curate.unit(context).keys[0])
        report = curated.info
        return Studied(
            study=self.study,
            cell=cell_id(self.key),
            variant=cell.variant,
            value=cell.value,
            feedback=cell.feedback,
            objective=cell.objective,
            seed=cell.seed,
            rounds=self.number,
            best_of=1,
            noise=float(cell.noise),
            metric=primary["metric"],
            split=context.evaluate.primary,
            before=primary["before"],
            after=primary["after"],
            ci_low=primary["ci_low"],
            ci_high=primary["ci_high"],
            n=primary["n"],
            clips=len(context.jobs),
            labels=report["clips"]["scored"],
            accepted=report["clips"]["accepted"],
            pairs=report["pairs"]["formed"],
            steps=context.finetune.steps,
            batch=context.finetune.batch_size,
            promoted=False,
            outcome=outcome,
            policy_before=context.policy.policy_id,
            policy_after="",
            curate_key=curated.key,
            finetune_key="",
            evaluate_key="",
            settings=_json(self.settings),
            categories=_json(found["categories"]),
            guards=_json(found["guards"]),
            diagnosis=_json([]),
        )


@functools.lru_cache(maxsize=64)
def _clips(how: Generation, policy: PolicyRef, jobs: tuple[ClipJob, ...]) -> str:
    """Digest of what decides clips; the cells of a seed share theirs."""
    return digest([shard.question for shard in generate.shards(how, policy, jobs)])


def promoted(store: Store, work: CellWork) -> PolicyRef:
    """The policy that the next round of a row starts from: the candidate, if the gate let it through."""
    after = finetune.candidate(work.context)
    found = evaluate.findings(work.context)
    return after if after is not None and found.promoted else work.context.policy


def cell_id(key: str) -> str:
    """Id of a cell, from the key of its row's manifest."""
    return "s" + key[:24]


def _manifest(store: Store, key: str) -> Manifest:
    found = store.manifest(key)
    assert found is not None, f"unit {key} was just committed"
    return found


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
