"""Clips from outside: files of a table to clips of the store, and the sets that recipes name.

imports/<set>.json    which units hold a set; they say what each file was and what was done to it
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

from data.errors import ConfigError, DataError
from data.explain import nearest
from data.keys import canonical_json
from data.outside import (
    ConversionSettings,
    Converted,
    Facts,
    Refused,
    Source,
    Table,
    convert,
    opened,
    read_source,
)
from data.records import IMPORTED, Clip, Import, Prompt, imported_clip_id
from data.store import Media, Store
from data.store.twice import read_either, update_twice
from data.threads import in_threads
from data.video import encode_mp4
from tasks import fingerprints
from tasks.context import ImportedShard, RoundContext, open_store
from tasks.units import OneAnswer, Runner, Unit

STAGE: Final = "import"
# Of one unit: what a killed import does again at most.
_FILES: Final = 32
# Hashed between two looks at the progress.
_AT_ONCE: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FOLDER: Final = "imports"


@dataclass(frozen=True)
class ImportShard(OneAnswer):
    """Some files of a set, each taken, converted or refused.

    Attributes:
        root: the store.
        folder: what relative paths are below; no part of the question.
        name: of the set.
        settings: the form that clips are brought to.
        files: with the prompts that they show.
    """

    root: str
    folder: str
    name: str
    settings: ConversionSettings
    files: tuple[tuple[Source, Prompt], ...]
    label: str
    task: ClassVar[str] = "import-files"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides these clips."""
        return fingerprints.imported(self.name, self.settings, self.files)

    def run(self) -> None:
        """Convert, and commit clips and refusals. Raises DataError: a file changed after it was hashed."""
        store = open_store(self.root)
        # A file a thread: no more frames are held than cores work.
        made = in_threads(lambda one: self._one(store, *one), self.files)
        taken = [(clip, video) for _, clip, video in made if clip is not None and video is not None]
        shown = {clip.prompt_id for clip, _ in taken}
        prompts = {prompt.prompt_id: prompt for _, prompt in reversed(self.files)}
        counts = Counter(row.status for row, _, _ in made)
        tables = {
            "imports": [row for row, _, _ in made],
            "clips": [clip for clip, _ in taken],
            "prompts": [prompts[one] for one in shown],
        }
        info = {"files": len(made), "clips": len(taken), "refused": counts["refused"]}
        store.commit(STAGE, self.question, tables, [video for _, video in taken], info=info)

    def _one(self, store: Store, source: Source, prompt: Prompt) -> tuple[Import, Clip | None, Media | None]:
        if source.refused:
            return self._row(source, prompt, Facts(), reason=source.refused), None, None
        try:
            found = self._converted(source)
        except Refused as reason:
            return self._row(source, prompt, reason.facts, reason=str(reason)), None, None
        try:
            data = encode_mp4(found.frames, found.fps, self.settings.video)
        except DataError as reason:
            return self._row(source, prompt, found.facts, reason=str(reason)), None, None
        video = store.write_media(data, ".mp4")
        clip = self._clip(source, prompt, found, video)
        return self._row(source, prompt, found.facts, found.done, clip.clip_id), clip, video

    def _converted(self, source: Source) -> Converted:
        try:
            with opened(Path(self.folder), source.path) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == source.sha256:
                    return convert(file, self.settings)
        except ValueError:
            pass  # as good as other bytes
        raise DataError(
            f"{source.path} changed while it was imported: leave the files alone meanwhile, and run it again"
        )

    def _row(
        self,
        source: Source,
        prompt: Prompt,
        facts: Facts,
        done: Sequence[str] = (),
        clip: str | None = None,
        reason: str | None = None,
    ) -> Import:
        return Import(
            name=self.name,
            source=source.path,
            source_sha256=source.sha256,
            conversion=canonical_json(fingerprints.conversion(self.settings)),
            prompt_id=prompt.prompt_id,
            status="refused" if clip is None else "converted" if done else "taken",
            reason=reason,
            done=list(done),
            clip_id=clip,
            **asdict(facts),
        )

    def _clip(self, source: Source, prompt: Prompt, found: Converted, video: Media) -> Clip:
        count, height, width, _ = found.frames.shape
        return Clip(
            clip_id=imported_clip_id(source.sha256, prompt.text, fingerprints.conversion(self.settings)),
            prompt_id=prompt.prompt_id,
            prompt=prompt.text,
            category=prompt.category,
            split=prompt.split,
            policy_id=IMPORTED,
            # Clips of one prompt differ in their seeds; few enough bits for a float to hold it.
            seed=int(source.sha256[:13], 16),
            width=width,
            height=height,
            frames=count,
            fps=found.fps,
            sampler="",
            steps=0,
            guidance=0.0,
            batch_size=1,
            row_in_batch=0,
            video_path=video.path,
            video_sha256=video.sha256,
            codec=self.settings.video.describe(),
            latent_path="",
            latent_row=-1,
            embed_row=-1,
            device_kind="",
            code_version=f"import {fingerprints.VERSIONS[STAGE]}, av {importlib.metadata.version('av')}",
        )


@dataclass(frozen=True)
class HeldShard(Unit):
    """Clips from outside, as a unit of the stage that has all training clips in the store."""

    root: str
    shard: ImportedShard
    label: str
    task: ClassVar[str] = "imported-clips"

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        """As it was imported. Raises DataError: the store does not hold it any more."""
        manifest = open_store(self.root).manifest(self.shard.key, STAGE)
        if manifest is None:
            raise self._gone
        return (manifest.question,)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        return ((STAGE, self.shard.key),)

    def run(self) -> None:
        """Only the files can make it again. Raises DataError."""
        raise self._gone

    @property
    def _gone(self) -> DataError:
        return DataError(
            f"{self.label}: the store does not hold them whole any more: `vidloop import clips` with the "
            "same files and options makes what is missing again"
        )


@dataclass(frozen=True)
class ImportedSet:
    """A set of clips from outside.

    Attributes:
        name: what recipes call it.
        shards: key of each unit that holds clips of it, and how many.
    """

    name: str
    shards: tuple[tuple[str, int], ...]

    @property
    def clips(self) -> int:
        """How many clips it has."""
        return sum(count for _, count in self.shards)

    def labelled(self) -> tuple[ImportedShard, ...]:
        """Its units, as a round learns from them."""
        begin, found = 1, []
        for key, count in self.shards:
            label = f"clips {begin}-{begin + count - 1} of {self.clips} of {self.name}"
            found.append(ImportedShard(key, count, label))
            begin += count
        return tuple(found)


def check_name(name: str) -> None:
    """Raise ConfigError unless a set may be called so."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: letters, digits, _ and - only, 64 at most, no sign in front")


def read_sources(table: Table, progress: Callable[[int], None]) -> list[Source]:
    """Every file of a table with its digest, or why it is not read.

    A file that shows the same prompt as another with the same bytes is refused: it would count twice.

    Args:
        progress: told how many more are done.
    """
    found: list[Source] = []
    first: dict[tuple[str, str], str] = {}
    for begin in range(0, len(table.entries), _AT_ONCE):
        some = table.entries[begin : begin + _AT_ONCE]
        sources = in_threads(lambda entry: read_source(table.root, entry.path), some)
        for entry, source in zip(some, sources, strict=True):
            if source.sha256:
                same = first.setdefault((source.sha256, entry.prompt.text), source.path)
                if same != source.path:
                    source = Source(source.path, source.sha256, f"it has the bytes and the prompt of {same}")
            found.append(source)
        progress(len(some))
    return found


def shards(
    store: Store, table: Table, sources: Sequence[Source], name: str, settings: ConversionSettings
) -> list[ImportShard]:
    """The units of an import, in the order of the table."""
    both = [(source, entry.prompt) for source, entry in zip(sources, table.entries, strict=True)]
    return [
        ImportShard(
            store.url,
            str(table.root),
            name,
            settings,
            tuple(both[begin : begin + _FILES]),
            f"files {begin + 1}-{min(begin + _FILES, len(both))} of {len(both)}",
        )
        for begin in range(0, len(both), _FILES)
    ]


def import_clips(
    store: Store, name: str, units: Sequence[ImportShard], runner: Runner
) -> tuple[ImportedSet, list[Import]]:
    """Have the files of `units` in the store, and the set named; a set that had that name no longer has it.

    Returns:
        The set, and what was said of each file, in the order of `units`.

    Raises:
        DataError: every file was refused; no set is made.
        StageFailed, UserError: see `tasks.units.Runner`; what was finished is kept.
    """
    runner(store, STAGE, units)
    rows: list[Import] = []
    held: list[tuple[str, int]] = []
    for unit in units:
        said = {row.source: row for row in store.read(unit.key, "imports")}
        rows += [said[source.path] for source, _ in unit.files]
        clips = sum(row.clip_id is not None for row in said.values())
        if clips:
            held.append((unit.key, clips))
    made = ImportedSet(name, tuple(held))
    if held:
        said_now = {"name": name, "shards": [list(one) for one in held]}
        update_twice(store, record_of(name), parsed, lambda before: said_now)
    return made, rows


def record_of(name: str) -> str:
    """Path of a set's record below the store's root."""
    return f"{_FOLDER}/{name}.json"


def names(store: Store) -> list[str]:
    """The sets of a store."""
    paths = (path.removeprefix(f"{_FOLDER}/") for path in store.find(f"{_FOLDER}/*.json"))
    return sorted({path.removesuffix(".json").removesuffix(".copy") for path in paths})


def parsed(said: Mapping[str, Any]) -> ImportedSet:
    """A set from what its record says. Raises ValueError, TypeError, KeyError: it says none."""
    return ImportedSet(str(said["name"]), tuple((str(key), int(clips)) for key, clips in said["shards"]))


def find_set(store: Store, name: str) -> ImportedSet:
    """The set of this name. Raises ConfigError: there is none; StoreError: its record is damaged."""
    found = read_either(store, record_of(name), parsed) if _NAME.fullmatch(name) else None
    if found is None:
        raise ConfigError(
            f"clips.imported: {store.url} holds no imported set {name!r}{nearest(name, names(store))}; "
            "`vidloop import clips PATH --name SET` makes one"
        )
    return found


def shown_prompts(store: Store, imported: Sequence[ImportedShard]) -> set[str]:
    """The prompts of clips from outside. Raises Damaged: a unit is missing, or not whole."""
    keys = [shard.key for shard in imported]
    return {text for some in store.batches(keys, "clips", ["prompt"]) for text in some["prompt"].to_pylist()}


def held(context: RoundContext) -> list[HeldShard]:
    """Units of the clips from outside that a round learns from."""
    return [HeldShard(context.generation.root, shard, shard.label) for shard in context.imported]
