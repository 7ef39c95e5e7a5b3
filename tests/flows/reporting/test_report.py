"""The report of a round: one file, true to the rows, safe with any text."""

import html.parser
import re
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from data.store import Store
from flows.reporting import build_report
from flows.reporting.artifacts.card import card
from flows.reporting.artifacts.sheets import sheets_markdown
from flows.reporting.read import find_summary, read_facts
from flows.reporting.words import about_prompts, set_name
from flows.rounds.approval import question
from tasks import round_ids

ROUND = "20260101T000000Z-abc123"


@pytest.fixture(scope="module")
def page(reported: Store) -> str:
    return build_report(reported).read_text("utf-8")


class Page(html.parser.HTMLParser):
    """Every element with its attributes, all visible text, and whether tags are balanced."""

    VOID = frozenset({"meta", "img", "input", "br", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_is_one_file_that_fetches_nothing(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]+\.", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    for tag, attrs in Page(page).elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "poster", "action", "srcset"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:video/mp4;base64,", "data:image/png;base64,")), (tag, name)
    assert "default-src 'none'" in page


def test_parses_as_html_with_balanced_tags_and_unique_ids(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {
        attrs["href"][1:] for tag, attrs in parsed.elements if tag in ("a", "use") and attrs.get("href")
    }
    assert targets <= set(ids)


def test_is_under_15_megabytes(page: str) -> None:
    assert len(page.encode()) < 15_000_000


def test_hostile_text_stays_text(page: str, hostile: str) -> None:
    parsed = Page(page)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 1
    assert not any(name.startswith("on") for _, attrs in parsed.elements for name in attrs)
    assert hostile in parsed.words()


def test_says_the_numbers_of_the_summary(page: str) -> None:
    words = Page(page).words()
    assert "The model got better: 66.7% of held-out clips obey physics, 41.7% did before" in words
    assert "Not promoted Diversity is broken" in words
    assert "diversity broken : overall 0.62 times what it was 0.8 0.5 0.62" in words
    assert "+25.0 percentage points, 95% interval +11.0 to +39.0" in words


@pytest.mark.parametrize(
    ("prompts", "allowed", "label", "said"),
    [
        ("heldout", True, "training prompts", "66.7% of clips of training prompts obey physics"),
        ("/data/walks.csv", False, "walks", "66.7% of clips of walks obey physics"),
        ("/data/walks.csv", True, "training prompts", "66.7% of clips of training prompts obey physics"),
    ],
)
def test_prompts_are_called_held_out_nowhere_unless_they_are(
    store: Store, make_round: Callable[..., None], prompts: str, allowed: bool, label: str, said: str
) -> None:
    said_of = {"prompts": prompts, "allow_training_prompts": allowed}
    make_round(store, recipe={"name": "mini", "seed": 0, "finetune": {}, "evaluate": said_of})
    summary = find_summary(store, None)
    facts = read_facts(store, summary)
    words = Page(build_report(store).read_text("utf-8")).words()
    told = {
        "report": words,
        "card": card(store, facts),
        "question": question(store, summary, "2026-01-02T00:00:00+00:00"),
        "sheets": sheets_markdown(store, summary.changed(policy_after=None)),
    }
    for name, text in told.items():
        assert not re.search("held-out", text, re.IGNORECASE), name
        assert label in text, name
    assert said in words
    assert said in told["card"]
    assert f"all {label}" in words
    assert ("allows prompts here that the round trains on" in words) == allowed


def test_where_the_training_of_a_policy_before_is_not_known_nothing_is_called_held_out(
    store: Store, make_round: Callable[..., None]
) -> None:
    make_round(store)
    summary = find_summary(store, None)
    assert set_name(summary) == "held-out"
    assert "or one that its policy comes from" in about_prompts(summary)
    unsure = summary.changed(untraced=["m7"])
    assert set_name(unsure) == "heldout"
    assert "whether a prompt here was among it is not known" in about_prompts(unsure)


def test_nothing_measured_is_said_with_its_reason_and_never_as_zero(page: str) -> None:
    words = Page(page).words()
    assert "flicker not measured: clips have <2 frames not measured" in words
    assert "clips not measured, for example: no frames <to> see" in words
    assert "1 not measured" in words  # the unseen clip whose judgement failed


def test_shows_fixed_broken_and_failing_clips_with_both_videos(page: str) -> None:
    words = Page(page).words()
    found = dict(re.findall(r"(Fixed|Broken|Still failing|Still right): (\d+) of 60 clips", words))
    assert found == {"Fixed": "25", "Broken": "10", "Still failing": "10", "Still right": "15"}
    videos = [attrs for tag, attrs in Page(page).elements if tag == "video"]
    assert len(videos) == 2 * (6 + 6 + 6 + 3)
    assert all(attrs["aria-label"] and "muted" in attrs and "playsinline" in attrs for attrs in videos)
    assert all(attrs.get("alt") for tag, attrs in Page(page).elements if tag == "img")
    assert "the ball floats in the air" in words


def test_curation_and_stages_are_counted(page: str) -> None:
    words = Page(page).words()
    assert "all 60 20 33.3% 50" in words
    assert "rejected: below threshold 40" in words
    assert "score 12 s 8 8 0" in words
    assert "finetune 2 min 10 s 1 0 0" in words


def test_the_same_round_gives_the_same_bytes(page: str, reported: Store) -> None:
    assert build_report(reported, ROUND).read_text("utf-8") == page


def test_a_round_without_training_says_so(tmp_path: Path, make_round: Callable[..., None]) -> None:
    store = Store.open(tmp_path / "store", create=True)
    nothing = {"before": None, "after": None, "delta": None, "ci_low": None, "ci_high": None, "n": 0}
    make_round(store, "r2", policy_after=None, verdict="no training data", guards={}, stages={},
                primary={"metric": "physics", "reason": "no new policy"} | nothing)  # fmt: skip
    words = Page(build_report(store).read_text("utf-8")).words()
    assert "No comparison was made in this round: no new policy." in words
    assert "Nothing was trained in this round." in words
    assert "this round made no new policy (no training data)" in words


def test_a_missing_video_is_named_and_the_report_still_opens(
    tmp_path: Path, make_round: Callable[..., None]
) -> None:
    store = Store.open(tmp_path / "store", create=True)
    make_round(store)
    for path in store.root.glob("media/*/*.mp4"):
        path.write_bytes(b"not a video")
    words = Page(build_report(store).read_text("utf-8")).words()
    assert "Clip not shown" in words


@pytest.mark.parametrize("name", ["nowhere", "../escape", "", "."])
def test_an_unknown_round_is_refused_by_name(reported: Store, name: str) -> None:
    with pytest.raises(UserError, match=f"newest is {ROUND}"):
        build_report(reported, name)


def test_a_clock_that_was_ahead_hides_no_newer_round(
    tmp_path: Path, make_round: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, begun = Store.open(tmp_path / "store", create=True), []
    for days in (0, 400, 0, -400):

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None, days: int = days) -> Any:
                return datetime.now(tz) + timedelta(days=days)

        monkeypatch.setattr(round_ids, "datetime", Clock)
        begun.append(round_ids.new_round_id(store))
        store.write_file(f"rounds/{begun[-1]}/recipe.json", b"{}")
        make_round(store, begun[-1])
    monkeypatch.undo()
    page = build_report(store)
    assert page.parent.name == begun[-1]
    assert "in the future by this machine's clock" in Page(page.read_text("utf-8")).words()
    first = build_report(store, begun[0])
    assert "in the future" not in Page(first.read_text("utf-8")).words()


def test_a_store_without_rounds_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vidloop round"):
        build_report(Store.open(tmp_path / "store", create=True))


def test_says_in_words_what_ails_the_training(page: str) -> None:
    said = Page(page).words()
    assert "Likelihood displacement. The chosen clips became less likely: their error lies 3.6% above" in said
    assert "in 75% of the pairs" in said
    assert "What to do about each by its name: docs/symptoms.md" in said
    assert "Motion loss" not in said


def test_a_broken_motion_guard_is_named_among_the_findings(
    make_round: Callable[..., None], tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "store", create=True)
    make_round(store, guards={"motion": {"before": 1.0, "after": 0.5, "ok": False, "reason": "overall"}})
    said = Page(build_report(store).read_text("utf-8")).words()
    assert "Motion loss. The clips stand still: motion is 0.50 times what it was" in said


def test_a_clip_leads_to_its_row_and_a_round_is_found_by_how_its_id_begins(reported: Store) -> None:
    summary = find_summary(reported, None)
    assert find_summary(reported, summary.round[:12]) == summary
    page = build_report(reported).read_text("utf-8")
    for group in read_facts(reported, summary).clips:
        for pair in group.shown:
            assert (
                f"<code>{pair.before.clip_id[:12]}</code> and <code>{pair.after.clip_id[:12]}</code>" in page
            )
