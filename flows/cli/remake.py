"""Command `remake`: clips made again from their ids."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from data.errors import StageFailed
from data.store import Store
from data.store.durable_files import write_durably
from flows.cli.app import answers, app
from flows.cli.options import NOTHING_SET, RecipeOption, SetOption, StoreOption
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE


@app.command("remake")
@answers
def remake_command(
    clips: Annotated[list[str], typer.Argument(help="Ids, as view `clips` has them, or their first digits.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the files.")] = ".",
) -> None:
    """Make clips again from their ids, and say whether their frames are those that were stored."""
    from flows.config.load import load_recipe
    from flows.config.resolve import model_of
    from models.policy import base_id, former_id
    from tasks.policies import find_policy
    from tasks.remake import remake

    read, opened = load_recipe(recipe, set_), Store.open(store)
    model = model_of(read)
    former = partial(former_id, model.path)
    find_one = partial(find_policy, opened, base=base_id(model.path, model.revision), former=former)
    different = []
    for name in clips:
        made = remake(opened, name, model, find_one)
        path = Path(out) / f"{made.clip.clip_id}.mp4"
        remedy = "make the folder writable for this user, or give another one with --out"
        write_durably(path.parent, path, made.video, replace=True, remedy=remedy)
        same = "the same file" if made.same_file else "the same frames" if made.same_frames else ""
        told = same or "DIFFERENT frames"
        print(f"{path}: {told} (frames sha256 {made.frames_sha256}; made on {made.clip.device_kind})")
        if not same:
            different.append(name)
    if different:
        raise StageFailed(
            "remake",
            f"{len(different)} of {len(clips)} clips did not come out as they were stored: {different[0]}. "
            "Another device or library version rounds differently",
        )
