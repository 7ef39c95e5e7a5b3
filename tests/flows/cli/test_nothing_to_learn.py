"""A stage that found nothing to learn from says so; that is an outcome, not a failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from data.store import Store
from tests.tiny_round import Ended, Tiny

CASES = (
    (
        "shaping={kind: binary, threshold: 1000000.0}",
        "dpo",
        "nothing to learn from: all 9 clips were rejected",
    ),
    (
        "shaping={kind: binary, threshold: 1000000.0}",
        "sft",
        "nothing to learn from: all 9 clips were rejected",
    ),
    ("shaping={kind: binary, threshold: -1.0}", "dpo", "9 of 9 clips accepted; no pairs"),
)


@pytest.mark.slow
def test_curate_and_finetune_say_that_there_is_nothing_to_learn_from(
    tiny: Tiny, vidloop: Callable[..., Ended]
) -> None:
    for stage in ("generate", "score"):
        assert vidloop(stage, *tiny.args("--plain")).code == 0
    for shaping, objective, said in (*CASES, CASES[0]):  # once more from the store
        told = tiny.args(
            "--plain", "--set", shaping, "--set", "curate={}", "--set", f"finetune.objective={objective}"
        )
        curated, trained = vidloop("curate", *told), vidloop("finetune", *told)
        assert (curated.code, trained.code) == (0, 0)
        assert said in curated.out + curated.err
        assert "no policy was made, for there is no training data" in trained.out + trained.err
    store = Store.open(tiny.store)
    assert [store.read(m.key, "policies") for m in store.manifests("finetune")] == [[]] * len(CASES)
    # what was stored of it hinders nothing: with another line the same clips teach
    taught = vidloop("curate", *tiny.args("--plain")), vidloop("finetune", *tiny.args("--plain"))
    assert [ended.code for ended in taught] == [0, 0]
    assert "no policy" not in taught[1].out + taught[1].err
    assert len(store.manifests("finetune")) == len(CASES) + 1
