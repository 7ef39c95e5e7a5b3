"""Which clips to label next, drawn by lot with uncertain ones first; the chances are kept in the store.

    calibrations/draw-<place>-<id>.csv      clip_id, chance, drawn (1 or 0): every clip that could be drawn

Draws are independent of one another, so a clip's chance of having been drawn by now is 1 - the product of the
chances that it was not; a clip that is drawn again is labelled once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from data.keys import digest
from data.store import Damaged, Store
from rewards.few_labels import draw

_FOLDER: Final = "calibrations"
_COLUMNS: Final = ("clip_id", "chance", "drawn")


@dataclass(frozen=True)
class Drawn:
    """What has been drawn by now.

    Attributes:
        chances: of every clip that could be, that it was; empty where nothing was drawn.
        clips: that were.
    """

    chances: Mapping[str, float]
    clips: frozenset[str]


def draw_labels(store: Store, values: Mapping[str, float], budget: int) -> tuple[list[str], str]:
    """Draw clips to label, and keep every clip's chance.

    Args:
        store: of the clips.
        values: P(yes) of each by clip id.
        budget: how many clips.

    Returns:
        (the clips, sorted; the file's path below the store's root).

    Raises:
        DataError: there are not so many clips.
    """
    before = len(_files(store))
    clips = sorted(values)
    seed = digest(["label draw", before, [[clip, values[clip]] for clip in clips]])
    rng = np.random.default_rng(int(seed[:16], 16))
    places, chances = draw(np.array([values[clip] for clip in clips], np.float64), budget, rng)
    drawn = {clips[place] for place in places}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for clip, chance in zip(clips, chances.tolist(), strict=True):
        writer.writerow([clip, repr(chance), int(clip in drawn)])
    path = f"{_FOLDER}/draw-{before:04}-{seed[:8]}.csv"
    store.write_file(path, text.getvalue().encode())
    return sorted(drawn), path


def drawn(store: Store) -> Drawn:
    """What all draws of a store say together. Raises Damaged: one of them cannot be read."""
    missed: dict[str, float] = {}
    clips: set[str] = set()
    for path in _files(store):
        try:
            rows = list(csv.DictReader(io.StringIO(store.read_file(path).decode())))
            for row in rows:
                chance = float(row["chance"])
                if not 0 <= chance <= 1:
                    raise ValueError(f"chance {chance}")
                missed[row["clip_id"]] = missed.get(row["clip_id"], 1.0) * (1 - chance)
                if row["drawn"] == "1":
                    clips.add(row["clip_id"])
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            why = f"cannot read which clips were drawn to be labelled: {store.where(path)} ({error})"
            raise Damaged(why, "remove the file: labels then count as drawn evenly") from error
    return Drawn({clip: 1 - one for clip, one in missed.items()}, frozenset(clips))


def _files(store: Store) -> list[str]:
    return sorted(store.find(f"{_FOLDER}/draw-*.csv"))
