"""Command `import labels`: what people said of clips, into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data.store import Store
from flows.cli.app import answers, import_app
from flows.cli.options import StoreOption
from flows.reporting.messages import DEFAULT_STORE


@import_app.command("labels")
@answers
def import_labels_command(
    file: Annotated[str, typer.Argument(help="CSV, JSON Lines or Parquet.")],
    format_: Annotated[
        str, typer.Option("--format", "-f", help="own, videogen-rewardbench, flow-factory or videophy2.")
    ] = "own",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out votes that are wrong, and say why.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Bring labels of people into the store: all of a file, or none; once, however often it is asked."""
    from data.label_import import import_labels, told

    found = import_labels(Store.open(store), Path(file).expanduser(), format_, skip_bad)
    raters = {row.rater for row in found.new}
    clips = {clip for row in found.new for clip in (row.clip_id, row.other_clip_id) if clip}
    print(f"{len(found.new)} labels of {len(clips)} clips by {len(raters)} raters; "
          f"{found.known} were there before")  # fmt: skip
    if found.bad:
        print(f"Left out: {told(found.bad)}")
