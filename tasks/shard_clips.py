"""The clips of a committed shard, decoded once for all that look at them."""

from __future__ import annotations

from functools import cached_property

from data.errors import VideoError
from data.records import Clip
from data.store import Store
from data.threads import in_threads
from data.video import decode_mp4
from rewards import Judgement, LoadedClip


class ShardClips:
    """The clips of one shard; decoded when somebody first looks at them."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self.rows: list[Clip] = store.read(key, "clips")

    @property
    def loaded(self) -> list[LoadedClip]:
        """The clips that can be decoded."""
        return [one for one in self._decoded if isinstance(one, LoadedClip)]

    @property
    def undecodable(self) -> dict[str, Judgement]:
        """A failed judgement for each of the others, by clip id."""
        both = zip(self.rows, self._decoded, strict=True)
        return {row.clip_id: one for row, one in both if isinstance(one, Judgement)}

    @cached_property
    def _decoded(self) -> list[LoadedClip | Judgement]:
        return in_threads(self._decode, self.rows)

    def _decode(self, clip: Clip) -> LoadedClip | Judgement:
        try:
            frames, fps = decode_mp4(self._store.read_media(clip.video_path))
        except VideoError as error:
            return Judgement(None, {}, str(error))
        return LoadedClip(clip.clip_id, clip.prompt, frames, fps, clip.category)
