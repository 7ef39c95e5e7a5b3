from __future__ import annotations

import threading

import pytest

from data import threads
from data.threads import in_threads


def test_results_come_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)
    later = threading.Event()

    def work(item: int) -> int:
        # the first is done last
        if item == 0:
            assert later.wait(10)
        if item == 2:
            later.set()
        return item * item

    assert in_threads(work, [0, 1, 2]) == [0, 1, 4]
    assert in_threads(work, []) == []


@pytest.mark.parametrize("count", [1, 4])
def test_an_error_of_one_item_is_raised(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: count)

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("item 2 is broken")
        return item

    with pytest.raises(ValueError, match="item 2 is broken"):
        in_threads(work, [0, 1, 2, 3])
