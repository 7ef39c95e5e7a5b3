import subprocess
import sys
from pathlib import Path

import pytest

import data
from data import champion
from data.champion import Champion
from data.errors import StoreError, UserError
from data.records import Policy

CHECKOUT = Path(data.__file__).parents[1]


def test_a_new_store_has_no_champion(store):
    assert champion.read(store) is None
    assert champion.history(store) == []
    with pytest.raises(UserError, match="nothing to roll back"):
        champion.rollback(store)


def test_promotion_moves_the_pointer_and_keeps_the_way_back(store):
    assert champion.promote(store, "y1", "r1") == Champion("y1", "r1")
    assert champion.promote(store, "y2", "r2") == Champion("y2", "r2") == champion.read(store)
    assert champion.history(store) == [Champion("y1", "r1"), Champion("y2", "r2")]
    assert champion.rollback(store) == Champion("y1", "r1") == champion.read(store)
    assert champion.rollback(store) is None
    assert champion.read(store) is None


def test_promoting_the_champion_again_changes_nothing(store):
    champion.promote(store, "y1", "r1")
    before = (store.root / "champion.json").read_bytes()
    assert champion.promote(store, "y1", "r9") == Champion("y1", "r1")
    assert (store.root / "champion.json").read_bytes() == before


def test_by_hand_only_policies_of_the_store(store, commit):
    media = store.write_media(b"adapter", "safetensors")
    policy = Policy("y1", "base", [], "dpo", "d1", media.path, media.sha256, 4, 8.0, ["to_q"], 5, "{}", "[]")
    store.commit("finetune", {"stage": "finetune", "version": 1}, {"policies": [policy]}, [media])
    assert champion.set_champion(store, "y1") == Champion("y1", "set by hand")
    with pytest.raises(UserError, match=r"holds no policy 'y7'; it holds y1"):
        champion.set_champion(store, "y7")
    assert champion.read(store) == Champion("y1", "set by hand")


@pytest.mark.parametrize("content", ["", "{}", '{"history": [1]}', None])
def test_of_a_damaged_pointer_the_copy_answers_and_the_next_promotion_mends_it(store, content):
    champion.promote(store, "y1", "r1")
    path = store.root / "champion.json"
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert champion.read(store) == Champion("y1", "r1")
    champion.promote(store, "y1", "r1")
    assert path.read_bytes() == whole == (store.root / "champion.copy.json").read_bytes()


def test_a_pointer_with_a_flipped_bit_is_not_believed(store):
    champion.promote(store, "y1", "r1")
    champion.promote(store, "y2", "r2")
    for path in store.root.glob("champion*.json"):
        path.write_bytes(path.read_bytes().replace(b'"y2"', b'"y3"'))
    with pytest.raises(StoreError, match=r"champion\.json was changed.*`vidloop scrub --heal"):
        champion.read(store)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"history": [1]}', '{"history": [{"policy": "y"}]}'])
def test_a_damaged_pointer_is_named(store, content):
    (store.root / "champion.json").write_text(content)
    with pytest.raises(StoreError, match=r"champion\.json"):
        champion.read(store)


def test_of_many_promotions_at_once_none_is_lost(store):
    code = (
        "import sys; from data import champion; from data.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "for i in range(10): champion.promote(store, f'y{sys.argv[2]}-{i}', 'r')\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(store.root), str(i)], cwd=CHECKOUT)
        for i in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert {entry.policy_id for entry in champion.history(store)} == {
        f"y{w}-{i}" for w in range(3) for i in range(10)
    }
