"""A clip made again from its id: the same bytes, also when the store has lost the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import UserError
from data.records import Clip
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import model_of
from models.policy import base_id
from tasks.context import PolicyRef
from tasks.policies import find_policy
from tasks.remake import Remade, frames_digest, remake
from tests.tiny_round import Tiny, begun


@pytest.fixture
def made(tiny: Tiny) -> tuple[Store, list[Clip]]:
    """A store with a round's training clips."""
    from flows.rounds.plain import plain_stage

    context = begun(tiny)
    plain_stage("generate", context)
    store = Store.open(tiny.store)
    return store, [clip for one in store.manifests("generate") for clip in store.read(one.key, "clips")]


def again(tiny: Tiny, clip: str, *overrides: str) -> Remade:
    store, model = Store.open(tiny.store), model_of(load_recipe(str(tiny.recipe), overrides))
    base = base_id(model.path, model.revision)

    def find(policy: str) -> PolicyRef:
        return find_policy(store, policy, base)

    return remake(store, clip, model, find)


def test_a_clip_is_made_again_byte_for_byte(tiny: Tiny, made: tuple[Store, list[Clip]]) -> None:
    store, clips = made
    # The last shard is not full: it was filled up, and has to be again.
    last = next(clip for clip in clips if clip.row_in_batch == 0 and clip.clip_id != clips[0].clip_id)
    for clip in (clips[2], last):
        found = again(tiny, clip.clip_id)
        assert found.clip == clip
        assert found.same_file
        assert found.same_frames
        assert found.video == store.read_media(clip.video_path)
        assert found.frames_sha256 == frames_digest(found.video)


def test_it_needs_no_media(tiny: Tiny, made: tuple[Store, list[Clip]]) -> None:
    store, clips = made
    Path(store.path(clips[0].video_path)).unlink()
    found = again(tiny, clips[0].clip_id)
    assert found.same_file
    assert found.same_frames is None


def test_what_cannot_be_made_again_is_told(tiny: Tiny, made: tuple[Store, list[Clip]]) -> None:
    with pytest.raises(UserError, match="holds no clip c0"):
        again(tiny, "c0")
    with pytest.raises(UserError, match="made with dtype 'float32', the recipe's is 'bfloat16'"):
        again(tiny, made[1][0].clip_id, "model.dtype=bfloat16")
