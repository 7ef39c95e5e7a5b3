"""A report says what people prefer, where they were asked."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from data import labels
from data.labels import Question, Vote
from data.store import Store
from flows.reporting import build_report
from flows.reporting.compare import evaluated
from flows.reporting.read import find_summary, read_facts


def test_votes_on_the_rounds_pairs_are_summed_up(store: Store, make_round: Callable[..., None]) -> None:
    make_round(store)
    summary = find_summary(store, None)
    assert read_facts(store, summary).people == ()
    pairs = [one for one in evaluated(store, summary) if one.split == "heldout"][:20]
    asked, rows = Question("motion", "Which moves better?", "pair"), []
    for n, pair in enumerate(pairs):
        before, after = pair.before.clip_id, pair.after.clip_id
        for name in ("ann", "bob", "cem", "lazy"):
            # Three in four votes are for the clip after the round, whichever clip the vote names first.
            good = name != "lazy" and (n + len(name)) % 4 != 0
            first, second = (before, after) if n % 2 else (after, before)
            answer = "first" if good == (first == after) else "second"
            told = {"other_clip_id": second, "rater": name, "session": "s"}
            rows.append(labels.label(asked, Vote(clip_id=first, answer=answer, **told), "s"))
            rows.append(labels.label(asked, Vote(clip_id=first, answer="second", repeat=1, **told), "s"))
        known = {"other_clip_id": after, "rater": "dan", "session": "s", "gold": "first"}
        rows.append(labels.label(asked, Vote(clip_id=before, answer="first", **known), "s"))
        skipped = {"other_clip_id": after, "rater": "eve", "session": "s"}
        rows.append(labels.label(asked, Vote(clip_id=before, answer="skip", **skipped), "s"))
    labels.commit(store, rows)
    labels.exclude(store, "lazy", "looked away")
    (said,) = read_facts(store, summary).people
    assert (said.question, said.won, said.tied, said.lost) == ("motion", 45, 0, 15)
    assert (said.raters, said.agreement.alpha) == (3, 1.0)
    assert said.share.value == 0.75
    assert said.share.low is not None
    assert said.share.high is not None
    assert 0.4 < said.share.low < 0.75 < said.share.high < 1
    page = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", build_report(store).read_text("utf-8"), flags=re.S)
    shown = " ".join(html.unescape(page).split())
    assert re.search(rf"motion 75\.0% \d\d\.\d% to \d\d\.\d% 45 0 15 {said.prompts} 3 1\.00", shown)
