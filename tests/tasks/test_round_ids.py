"""Ids of rounds sort as the rounds began, whatever the clock does; what lies in the future is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from data.store import Store
from flows.reporting import words
from tasks import round_ids
from tasks.round_ids import hours_ahead, new_round_id, time_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Days by which the clock is wrong."""
    wrong = {"days": 0.0}

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(days=wrong["days"])

    monkeypatch.setattr(round_ids, "datetime", Clock)
    return wrong


@pytest.mark.parametrize("folder", ["rounds", "improvements"])
def test_a_later_round_has_a_greater_id_whatever_the_clock_did(
    store: Store, clock: dict[str, float], folder: str
) -> None:
    begun = []
    for days in (0, 400, 0, 0, -400, 401, 0):
        clock["days"] = days
        begun.append(new_round_id(store))
        store.write_file(f"{folder}/{begun[-1]}/recipe.json", b"{}")
    assert begun == sorted(begun)
    assert len({time_of(one) for one in begun}) == len(begun)


def test_with_a_clock_that_is_right_an_id_is_the_time(store: Store) -> None:
    (store.root / "rounds" / "notes of mine").mkdir(parents=True)
    (store.root / "rounds" / "99999999T999999-abcdef01").mkdir()
    time = time_of(new_round_id(store))
    assert time is not None
    assert abs((time - datetime.now(UTC)).total_seconds()) < 5


def test_at_the_end_of_time_rounds_go_on(store: Store) -> None:
    store.write_file("rounds/99991231T235959-abcdef01/recipe.json", b"{}")
    assert time_of(new_round_id(store)) is not None


def test_what_lies_in_the_future_is_said(store: Store, clock: dict[str, float]) -> None:
    clock["days"] = 400
    ahead = new_round_id(store)
    store.write_file(f"rounds/{ahead}/recipe.json", b"{}")
    clock["days"] = 0
    after = new_round_id(store)
    for one in (ahead, after):
        assert 24 * 399 < hours_ahead(one) < 24 * 401
        (said,) = words.ahead(one)
        assert one in said
        assert "9600 h" in said or "9599 h" in said
    assert words.ahead(new_round_id(Store.open(store.root / "other", create=True))) == ()
