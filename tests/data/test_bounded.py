"""What a process remembers is bounded: what was used longest ago is forgotten first."""

from __future__ import annotations

import threading

from data.bounded import Bounded


def test_what_was_used_longest_ago_goes_first() -> None:
    held: Bounded[str, int] = Bounded(2)
    held.put("a", 1)
    held.put("b", 2)
    assert held.get("a") == 1
    assert held.put("c", 3) == 3
    assert [held.get(key) for key in "abc"] == [1, None, 3]
    held.put("a", 4)
    assert (held.get("a"), len(held)) == (4, 2)
    held.pop("a")
    held.pop("never there")
    assert (held.get("a"), len(held)) == (None, 1)
    held.clear()
    assert (held.get("c"), len(held)) == (None, 0)


def test_entries_weigh_and_the_newest_stays_whatever_it_weighs() -> None:
    held: Bounded[str, str] = Bounded(10, len)
    held.put("four", "four")
    held.put("five", "fives")
    held.put("two", "to")
    assert (held.get("four"), held.get("five"), held.get("two")) == (None, "fives", "to")
    held.put("large", "x" * 50)
    assert (held.get("five"), held.get("large")) == (None, "x" * 50)
    held.put("large", "x")
    held.put("nine", "x" * 9)
    assert len(held) == 2


def test_threads_may_use_it_together() -> None:
    held: Bounded[int, int] = Bounded(50)

    def use(start: int) -> None:
        for number in range(start, start + 3000):
            held.put(number % 400, number)
            held.get((number * 7) % 400)
            held.pop((number * 3) % 400)

    threads = [threading.Thread(target=use, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) <= 50
    for number in range(50):
        held.put(1000 + number, number)
    assert [held.get(1000 + number) for number in range(50)] == list(range(50))
