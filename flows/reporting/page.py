"""Facts and packed clips -> one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flows.reporting import charts, words
from flows.reporting.facts import Facts, PairedClip
from flows.reporting.markdown import plain
from flows.reporting.paired_clips import HOW_CHOSEN, MEDIA_NOTE, Side

if TYPE_CHECKING:
    import jinja2

HERE: Final = Path(__file__).parent / "page"


def template(name: str, **values: Any) -> str:
    """A page of folder page/, with the style sheet that all of them share.

    In HTML every text is escaped, and charts escape theirs. In markdown, what people and models wrote
    goes through the filter `plain`, in SQL through `sql`.
    """
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain, sql=_literal)
    environment.globals.update(charts=charts, words=words, css=(HERE / "report.css").read_text("utf-8"))
    return environment


def _literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def render(facts: Facts, packed: Mapping[PairedClip, Sequence[Side]]) -> str:
    """The page.

    A content security policy in it forbids every request, so that hostile text could not make one even if it
    got through.

    Args:
        facts: what the page says.
        packed: clips to show, from `paired_clips.pack`.
    """
    import yaml

    script = (HERE / "report.js").read_text("utf-8")
    return template(
        "report.html.j2",
        facts=facts,
        summary=facts.summary,
        packed=packed,
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        how_chosen=HOW_CHOSEN,
        media_note=MEDIA_NOTE,
        recipe=yaml.safe_dump(dict(facts.summary.recipe), sort_keys=False, allow_unicode=True),
    )
