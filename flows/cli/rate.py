"""Command `rate`: the page on which people rate clips, and what became of a session."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from data.store import Store
from flows.cli.app import answers, app
from flows.cli.options import StoreOption
from flows.reporting.messages import DEFAULT_STORE

DEFAULT_FOLDER: Final = "ratings"
DEFAULT_PORT: Final = 8765
_NONE: Final[list[str]] = []

rate_app = typer.Typer(help="Have people rate clips on a page of their own.", invoke_without_command=True)
app.add_typer(rate_app, name="rate")

StateOption = Annotated[str, typer.Option("--state", help="Folder of the sessions: votes, links' digests.")]
Session = Annotated[str, typer.Argument(help="Its id, or how it begins; none: the only one there is.")]


@rate_app.callback()
@answers
def rate_command(
    context: typer.Context,
    session: Annotated[
        str, typer.Option("--session", help="Go on with this one; all else is as it was.")
    ] = "",
    round_: Annotated[
        str | None, typer.Option("--round", help="Before and after of this round; none: the newest.")
    ] = None,
    clips: Annotated[
        str, typer.Option("--clips", help="Instead: SQL for clip ids, or for two columns of them.")
    ] = "",
    question: Annotated[
        list[str],
        typer.Option(
            "--question", help="prompt, motion, looks, overall; RUBRIC[:ID]; NAME=WORDS. Again for more."
        ),
    ] = _NONE,
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, help="So many items, known answers not counted.")
    ] = 100,
    raters: Annotated[
        int, typer.Option("--raters", min=1, max=1000, help="So many people, rater-1, rater-2, ...")
    ] = 3,
    rater: Annotated[
        list[str], typer.Option("--rater", help="Instead: a person's name. Again for more.")
    ] = _NONE,
    votes: Annotated[
        int, typer.Option("--votes", min=0, help="That each item wants; 0: one of each person.")
    ] = 0,
    repeats: Annotated[
        float, typer.Option("--repeats", min=0, max=1, help="Share of items shown again.")
    ] = 0.1,
    golds: Annotated[
        int, typer.Option("--golds", min=0, help="So many items more whose answer is known.")
    ] = 0,
    gold_rater: Annotated[
        str, typer.Option("--gold-rater", help="Who knows it: a rater of the store's labels.")
    ] = "",
    gold_reward: Annotated[str, typer.Option("--gold-reward", help="Or a reward, as QUESTION=REWARD.")] = "",
    laws: Annotated[
        list[str], typer.Option("--laws", help="Prompts that say which laws concern them.")
    ] = _NONE,
    seed: Annotated[int, typer.Option("--seed", help="Of what is chosen, and of sides.")] = 0,
    host: Annotated[str, typer.Option("--host", help="Others than loopback let others in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")
    ] = DEFAULT_PORT,
    store: StoreOption = DEFAULT_STORE,
    state: StateOption = DEFAULT_FOLDER,
) -> None:
    """Serve a page on which people rate clips, with a secret link for each of them, until Ctrl-C.

    The same command again goes on with the same session.
    """
    if context.invoked_subcommand:
        return
    from flows.rating import database, make
    from flows.rating.serving import serve

    opened, folder = Store.open(store), Path(state).expanduser()
    tokens: dict[str, str] = {}
    if session:
        found = database.open_session(folder, session)
    else:
        wish = make.Wish(
            raters=rater or [f"rater-{n}" for n in range(1, raters + 1)], round=round_, clips=clips,
            questions=question, count=pairs, votes=votes, repeats=repeats, golds=golds,
            gold_rater=gold_rater, gold_reward=gold_reward, laws=laws, seed=seed,
        )  # fmt: skip
        found, tokens = make.make(opened, folder, wish)
    make.check_store(found, opened)
    print(f"Session {found.plan.session}: {len(found.items)} items, {found.plan.votes} votes each")

    def listening(address: str) -> None:
        for name, token in tokens.items():
            print(f"{name}: {address}/r/{token}/")
        if tokens:
            print("These links are secrets and shown this once; `vidloop rate link` makes new ones.")
        else:
            print(f"At {address}; the links are as they were, and `vidloop rate link` makes new ones.")
        print("Ctrl-C ends it; votes are kept.", flush=True)

    print(f"{serve(found, opened, host, port, listening)} votes more are in {opened.url}")


@rate_app.command("status")
@answers
def status_command(
    session: Session = "",
    state: StateOption = DEFAULT_FOLDER,
    format_: Annotated[str, typer.Option("--format", "-f", help="table or json.")] = "table",
) -> None:
    """Say how far a session is, how far its raters agree, and who knew what is known."""
    from data.errors import ConfigError
    from flows.rating import database
    from flows.rating.status import read_status

    if format_ not in ("table", "json"):
        raise ConfigError(f"--format {format_}: say table or json")
    found = read_status(database.open_session(Path(state).expanduser(), session))
    if format_ == "json":
        print(json.dumps(dataclasses.asdict(found)))
        return
    console = Console() if Console().is_terminal else Console(width=132)
    console.print(
        f"Session {found.session} of {found.store}: {found.items} items, {found.votes} votes, "
        f"{found.in_store} of them in the store; {'complete' if found.complete else 'going on'}",
        soft_wrap=True,
        highlight=False,
    )
    table = Table("rater", "items", "left", "votes", "s a vote", "known right", "same twice", "")
    for one in found.raters:
        table.add_row(
            one.name, str(one.items), str(one.left), str(one.votes),
            "-" if one.seconds is None else f"{one.seconds:.1f}",
            _share(one.gold, one.golds), _share(one.again, one.repeats),
            "" if one.excluded is None else f"excluded: {one.excluded}",
        )  # fmt: skip
    console.print(table)
    agreed = Table("question", "alpha", "votes", "items")
    for line in found.agreement:
        alpha = line.why if line.alpha is None else f"{line.alpha:.3f}"
        agreed.add_row(line.question, alpha, str(line.votes), str(line.items))
    console.print(agreed)


def _share(value: float | None, of: int) -> str:
    return "-" if value is None else f"{value:.0%} of {of}"


@rate_app.command("link")
@answers
def link_command(
    session: Annotated[str, typer.Argument()],
    rater: Annotated[str, typer.Argument()],
    state: StateOption = DEFAULT_FOLDER,
) -> None:
    """Make a rater a new link; the one before opens nothing any more."""
    from flows.rating import database
    from flows.rating.session import new_link

    token = new_link(database.open_session(Path(state).expanduser(), session), rater)
    print(f"{rater}: /r/{token}/ at the address of the page")


@rate_app.command("exclude")
@answers
def exclude_command(
    session: Annotated[str, typer.Argument()],
    rater: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option("--reason", help="For those who come later.")],
    store: StoreOption = DEFAULT_STORE,
    state: StateOption = DEFAULT_FOLDER,
) -> None:
    """Have a rater's votes in a session count no more, and close his link. The votes stay."""
    from data import labels
    from flows.rating import database, keep, make
    from flows.rating.session import exclude

    opened, found = Store.open(store), database.open_session(Path(state).expanduser(), session)
    make.check_store(found, opened)
    exclude(found, rater, reason)
    keep.commit(found, opened)
    if any(row.rater == rater for row in keep.read_votes(found)):
        labels.exclude(opened, rater, reason, found.plan.session)
    print(f"{rater} is excluded from session {found.plan.session}")


@rate_app.command("commit")
@answers
def commit_command(
    session: Session = "", store: StoreOption = DEFAULT_STORE, state: StateOption = DEFAULT_FOLDER
) -> None:
    """Bring all votes of a session into the store now; they cannot be taken back then."""
    from flows.rating import database, keep, make

    opened, found = Store.open(store), database.open_session(Path(state).expanduser(), session)
    make.check_store(found, opened)
    print(f"{keep.commit(found, opened)} votes more are in {opened.url}")
