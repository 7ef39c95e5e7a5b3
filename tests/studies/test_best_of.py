"""Best-of-n by hand-made values: the preferred clip of each group, ties by lot, what failed left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from data.records import Clip
from studies.best_of import Preference, choose
from tasks.context import RewardRef

GRADED = Preference("clip", RewardRef("clip", "v", None), "graded", None)
BINARY = Preference("judge-binary", RewardRef("judge", "v", None), "binary", 0.5)


@pytest.fixture
def clips(make_clip: Callable[..., Clip]) -> list[Clip]:
    """Two prompts, eight clips each."""
    return [make_clip(f"c{i:02d}", prompt_id=f"p{i // 8}", category=f"k{i // 8}") for i in range(16)]


def test_a_feedback_that_is_the_truth_finds_the_best_of_each_group(clips: list[Clip]) -> None:
    # One good clip a prompt: in groups of eight it is always found, in groups of two by one in four.
    truth: dict[str, float | None] = {clip.clip_id: float(clip.clip_id in ("c03", "c12")) for clip in clips}
    whole = choose(clips, truth, truth, GRADED, 8, "physics")
    assert (whole.prompts, whole.categories) == (("p0", "p1"), ("k0", "k1"))
    assert (whole.before.tolist(), whole.after.tolist()) == ([1 / 8, 1 / 8], [1.0, 1.0])
    halves = choose(clips, truth, truth, GRADED, 2, "physics")
    assert len(halves.prompts) == 8
    assert halves.after.sum() == 2
    assert halves.before.sum() / 8 == pytest.approx(1 / 8)


def test_a_feedback_that_is_the_opposite_finds_the_worst(clips: list[Clip]) -> None:
    truth: dict[str, float | None] = {clip.clip_id: float(clip.clip_id != "c03") for clip in clips}
    opposite = {name: -value for name, value in truth.items() if value is not None}
    found = choose(clips, opposite, truth, GRADED, 8, "physics")
    assert found.after.tolist() == [0.0, 1.0]


def test_a_binary_feedback_sees_only_who_passes_and_leaves_ties_to_a_lot_that_knows_no_value(
    clips: list[Clip],
) -> None:
    judged: dict[str, float | None] = {
        clip.clip_id: 0.9 if int(clip.clip_id[1:]) % 2 else 0.6 for clip in clips
    }
    truth: dict[str, float | None] = {clip.clip_id: float(int(clip.clip_id[1:]) % 2) for clip in clips}
    # All pass, so the judge says nothing: over many groups the choice is as good as the average.
    found = choose(clips, judged, truth, BINARY, 2, "physics")
    graded = choose(clips, judged, truth, GRADED, 2, "physics")
    assert graded.after.sum() > found.after.sum()
    swapped = {name: 1.5 - value for name, value in judged.items() if value is not None}
    assert choose(clips, swapped, truth, BINARY, 2, "physics").after.tolist() == found.after.tolist()


def test_what_was_not_judged_is_not_chosen_and_what_is_not_known_is_left_out(clips: list[Clip]) -> None:
    truth: dict[str, float | None] = {clip.clip_id: 1.0 for clip in clips}
    judged: dict[str, float | None] = {clip.clip_id: 1.0 for clip in clips}
    assert len(choose(clips, judged, truth, GRADED, 8, "physics").prompts) == 2
    assert len(choose(clips, judged, truth | {"c00": None}, GRADED, 8, "physics").prompts) == 1
    unjudged = {name: None if name < "c08" else value for name, value in judged.items()}
    assert choose(clips, unjudged, truth, GRADED, 8, "physics").prompts == ("p1",)
    best = truth | dict.fromkeys((f"c{i:02d}" for i in range(7)), 0.0)
    some: dict[str, float | None] = {name: 0.1 for name in judged} | {"c07": None}
    assert choose(clips, some, best, GRADED, 8, "physics").after[0] == 0.0
