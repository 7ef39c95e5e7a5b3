"""A report says how often the candidate wins, what did not teach, and what did not move."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import ConfigError
from data.store import Store
from flows.config.load import load_recipe
from flows.reporting import build_report
from flows.reporting.artifacts.card import card
from flows.reporting.messages import conclusion
from flows.reporting.read import find_summary, read_facts
from flows.rounds.plain import plain_round
from tests.tiny_round import Tiny, begun, play


def words(page: Path) -> str:
    text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(text).split()).replace(" ,", ",")


def table(said: str) -> str:
    return said.partition("By every reward that was measured")[2].partition("Guards against reward hacking")[
        0
    ]


def test_the_win_rate_stands_with_its_interval(reported: Store) -> None:
    said = words(build_report(reported)).partition("Clip against clip")[2]
    assert re.search(r"the policy before 62\.5% \d\d\.\d% to \d\d\.\d% 25 25 10 ", said), said[:400]


@pytest.mark.parametrize(
    ("feedback", "physics", "clip"),
    [("oracle", "taught, decides", "did not teach"), ("clip", "did not teach, decides", "taught"),
     ("judge", "did not teach, decides", "did not teach")],
)  # fmt: skip
def test_beside_each_gain_stands_what_did_not_teach(
    store: Store, make_round: Callable[..., None], feedback: str, physics: str, clip: str
) -> None:
    make_round(store, feedback=feedback)
    said = table(words(build_report(store)))
    assert f"physics {physics} 0.417 0.667 +0.25" in said
    assert re.search(rf"clip {clip} 0\.\d+ 0\.\d+ \+0\.00\d+", said), said
    assert ("was not asked about these clips" in said) == (feedback == "judge")


@pytest.mark.parametrize(
    "of", [{"components": {"clip": {}, "physics": {}}}, {"kind": "clip", "model": "the same"}]
)
def test_what_is_mixed_or_of_the_same_model_taught_too(
    store: Store, make_round: Callable[..., None], of: dict[str, Any]
) -> None:
    known = {name: {"kind": name, "version": "v1"} for name in ("physics", "clip", "mix")}
    recipe = {
        "name": "mini",
        "seed": 0,
        "rewards": {"mix": of, "clip": {"kind": "clip", "model": "the same"}},
    }
    make_round(store, feedback="mix", rewards=known, recipe=recipe)
    said = table(words(build_report(store)))
    assert "clip taught" in said
    assert ("Only what taught was measured" in said) == ("components" in of)


def test_what_did_not_move_is_named_first(reported: Store) -> None:
    facts = read_facts(reported, find_summary(reported, None))
    still = "Did not surely move (the interval of the change holds zero): "
    for text in (words(build_report(reported)), card(reported, facts).replace("\\", "")):
        named = text.partition(still)[2].partition(".")[0].split(", ")
        # The change of physics in all, +11 to +39 points, is not among them; each category's holds zero.
        assert "physics of falling down" in named, text[:800]
        assert "physics of unseen" in named
        assert "physics" not in named
    assert words(build_report(reported)).index(still) < 1500


def test_a_round_that_compared_nothing_says_nothing_of_it(
    store: Store, make_round: Callable[..., None]
) -> None:
    make_round(store, policy_after=None, verdict="no training data", stages={}, guards={})
    said = words(build_report(store))
    assert "surely move" not in said
    assert "Clip against clip" not in said


@pytest.mark.slow
def test_the_terminal_says_it_and_scores_that_are_there_are_shown(tiny: Tiny) -> None:
    context = begun(tiny)
    summary = plain_round(context)
    told = "\n".join(conclusion(context, summary))
    assert (
        "Did not surely move (the interval of the change holds zero): motion. Equal before and after: "
        in told
    )
    assert re.search(r"Equal before and after: physics, physics of ", told)
    store = Store.open(tiny.store)
    assert "sharpness taught" not in table(words(build_report(store, summary.round)))
    # Another round asks the teacher about the very same clips: then the first one's page can tell, too.
    play(tiny, "evaluate.metric=sharpness", "evaluate.same_as_feedback=true")
    assert re.search(r"sharpness taught [\d.]+", table(words(build_report(store, summary.round))))


@pytest.mark.slow
def test_best_of_n_is_an_opponent_too(tiny: Tiny) -> None:
    summary = play(
        tiny,
        "evaluate.metric=sharpness",
        "evaluate.same_as_feedback=true",
        "evaluate.baselines=[{best_of: 3}]",
    )
    (name,) = summary["baselines"]
    said = words(build_report(Store.open(tiny.store))).partition("Clip against clip")[2]
    found = re.search(rf"{re.escape(name)} (\d+\.\d)% .*? (\d+) (\d+) (\d+) ", said)
    assert found is not None, said[:500]
    rate, won, tied, lost = map(float, found.groups())
    assert won + tied + lost == summary["primary"]["n"]
    assert rate == pytest.approx(100 * (won + tied / 2) / (won + tied + lost), abs=0.06)
    assert lost > won  # it is the best of three, by the very metric


@pytest.mark.slow
def test_rewards_beside_measure_both_policies_and_decide_nothing(tiny: Tiny) -> None:
    alone = play(tiny)
    beside = play(tiny, "evaluate.beside=[sharpness]")
    decided = ("primary", "categories", "also", "guards", "verdict", "promoted", "policy_after")
    assert {key: beside[key] for key in decided} == {key: alone[key] for key in decided}
    said = table(words(build_report(Store.open(tiny.store), beside["round"])))
    assert re.search(r"sharpness taught [\d.]+ [\d.]+ \S+ \S+ to ", said), said
    assert "was not asked about these clips" not in said


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("[nobody]", "there is no reward 'nobody'"),
        ("[motion]", "measures already"),
        ("[clip, clip]", "names one twice"),
    ],
)
def test_what_cannot_measure_beside_is_refused(tiny: Tiny, beside: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(str(tiny.recipe), [f"evaluate.beside={beside}"])
