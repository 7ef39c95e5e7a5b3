from __future__ import annotations

import gc
import pickle
import threading
import time
import weakref

import pytest

from flows.config.load import load_recipe
from flows.config.resolve import open_round
from tasks import generate
from tasks.context import Residents, gpu_turn
from tests.tiny_round import Tiny


class Model:
    """Something slow to load."""


def test_a_resident_is_loaded_once_and_lent_again() -> None:
    residents = Residents()
    with residents.borrow("sampler", "a", Model) as first:
        pass
    with residents.borrow("sampler", "a", Model) as second:
        assert second is first


def test_two_borrowers_never_share_one() -> None:
    residents, loads, forks = Residents(), [], []

    def load() -> Model:
        loads.append(Model())
        return loads[-1]

    def fork(first: Model) -> Model:
        assert first is loads[0]
        forks.append(Model())
        return forks[-1]

    with (
        residents.borrow("sampler", "a", load, fork) as one,
        residents.borrow("sampler", "a", load, fork) as two,
    ):
        assert one is not two
    assert (len(loads), len(forks)) == (1, 1)


def test_another_name_takes_its_place_and_frees_it() -> None:
    residents = Residents()
    with residents.borrow("sampler", "before", Model) as model:
        gone = weakref.ref(model)
    del model
    with residents.borrow("reward", "other kind", Model):
        assert gone() is not None
    with residents.borrow("sampler", "after", Model):
        gc.collect()
        assert gone() is None


def test_release_frees_everything() -> None:
    residents = Residents()
    with residents.borrow("sampler", "a", Model) as model:
        gone = weakref.ref(model)
    del model
    residents.release()
    gc.collect()
    assert gone() is None


def test_a_resident_that_saw_an_error_is_not_lent_again() -> None:
    residents = Residents()
    with pytest.raises(ValueError, match="broken"), residents.borrow("sampler", "a", Model) as first:
        raise ValueError("broken")
    with residents.borrow("sampler", "a", Model) as second:
        assert second is not first


def test_borrowing_from_many_threads() -> None:
    residents, held, problems = Residents(), set(), []

    def work() -> None:
        for _ in range(50):
            with residents.borrow("sampler", "a", Model, lambda _: Model()) as model:
                if id(model) in held:
                    problems.append("shared")
                held.add(id(model))
                held.discard(id(model))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_units_can_be_sent_to_another_process(tiny: Tiny) -> None:
    from data.store import Store

    context = open_round(load_recipe(str(tiny.recipe)), Store.open(tiny.store, create=True), "run")
    assert pickle.loads(pickle.dumps(context)) == context
    for unit in generate.units(context):
        assert pickle.loads(pickle.dumps(unit)).keys == unit.keys


def test_on_a_cpu_nobody_waits_for_a_turn() -> None:
    inside = threading.Barrier(2)

    def work() -> None:
        with gpu_turn("cpu"):
            inside.wait(10)

    other = threading.Thread(target=work)
    other.start()
    work()  # both are within at the same time, or the barrier breaks
    other.join()


@pytest.mark.gpu
def test_threads_on_a_gpu_take_turns() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    held = []

    def work() -> None:
        with gpu_turn("cuda"):
            held.append("in")
            time.sleep(0.05)
            held.append("out")

    others = [threading.Thread(target=work) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert held == ["in", "out"] * 4
