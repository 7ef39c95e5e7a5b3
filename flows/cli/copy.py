"""The command `copy`: a store to another place, from a folder to object storage and back."""

from __future__ import annotations

from typing import Annotated

import typer

from data.store import Store
from flows.cli.app import answers, app


@app.command("copy")
@answers
def copy_command(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A store: a folder, or s3://BUCKET/PREFIX.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Another, made if it is not there.")],
) -> None:
    """Copy a store's committed work, champions, rounds and calibrations; run again, it goes on."""
    from data.copying import copy

    done = copy(Store.open(source), Store.open(target, create=True), print)
    print(f"{done.files} files, {done.bytes / 1e6:.1f} MB copied; {done.there} were there")
