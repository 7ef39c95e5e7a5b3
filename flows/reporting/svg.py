"""Figures as SVG: matplotlib draws, the page's style sheet colours. The one maker of every chart.

Colours are drawn as placeholder values and replaced by CSS variables, so that one chart serves light, dark
and print. Text stays text: it scales with the page and can be searched.
"""

from __future__ import annotations

import html
import io
import re
import zlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholder -> CSS variable. The values only have to be unlike each other and unlike any real colour.
INK, MUTED, RULE, BEFORE, AFTER, LOSER = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    BEFORE: "--before",
    AFTER: "--after",
    LOSER: "--loser",
}
WIDTH = 4.7
"""Inches: 338 points, the width of a phone's page."""


def new_figure(height: float, grid: Literal["x", "y"] | None = "y") -> tuple[Figure, Axes]:
    """An empty figure at phone width, `height` inches high, with lines for the ticks of one axis.

    Figure without pyplot: no global state, no display, safe in any thread.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=INK, labelsize=11, color=RULE)
    axes.xaxis.label.set(color=MUTED, fontsize=11)
    axes.yaxis.label.set(color=MUTED, fontsize=11)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=RULE, linewidth=0.8)
    return figure, axes


def standalone(figure: Figure, salt: str) -> bytes:
    """The figure as an SVG file. Same figure, same bytes.

    Args:
        figure: what is drawn.
        salt: ids inside are made from it.
    """
    return _written(figure, salt, fonttype="path")


def inline(figure: Figure, said: str) -> str:
    """The figure as an `<svg>` element: no addresses, colours by CSS, `said` for those who listen."""
    from matplotlib.text import Text

    for item in figure.findobj(Text):
        item.set_parse_math(False)  # a dollar sign in a category is a dollar sign
    # Ids inside, and so the page's bytes, depend on what is drawn alone.
    text = _written(figure, said, fonttype="none", transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would reach the whole page
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    # Ids are global in an HTML page: every chart keeps to its own.
    prefix = f"c{zlib.crc32(said.encode()):08x}-"
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}", text)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    if size is None:
        raise RuntimeError("matplotlib wrote an SVG without a viewBox")
    label = html.escape(said, quote=True)
    head = f'<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {size[1]} {size[2]}">'
    return head + text[text.index(">") + 1 :]


def _written(figure: Figure, salt: str, fonttype: str, transparent: bool = False) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": fonttype, "svg.hashsalt": salt}):
        figure.savefig(
            buffer, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None}
        )
    return buffer.getvalue()
