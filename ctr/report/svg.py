"""Matplotlib figures as inline SVG that follows the page's colours, light or dark.

Matplotlib wants concrete colours, the page wants CSS variables. Each role has a colour that no
plot would use by chance; after drawing, that colour is replaced by the variable.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import cycle, islice
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_ROLES = ("ink", "muted", "grid", "paper", "s1", "s2", "s3", "s4", "s5", "s6")


class Palette(NamedTuple):
    """Colours by their role."""

    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]


def _palette(colors: Sequence[str]) -> Palette:
    ink, muted, grid, paper, *series = colors
    return Palette(ink, muted, grid, paper, tuple(series))


_PLACEHOLDERS = tuple(f"#0f0e{number:02x}" for number in range(len(_ROLES)))
#: For ``inline_svg``; on its own it is all but black.
PAGE = _palette(_PLACEHOLDERS)
INK, MUTED, GRID, PAPER, SERIES = PAGE
#: For a figure in a file of its own: the page's light colours.
LIGHT = _palette(
    ("#1a1f2b", "#5d6677", "#dfe3ea", "#ffffff",
     "#2563eb", "#d9480f", "#0f8a5f", "#8b3fd1", "#b7791f", "#c2255c")
)  # fmt: skip


class Look(NamedTuple):
    """How one of several runs or arms is drawn: colour, line style, marker."""

    color: str
    line: Any
    marker: str


#: One for each time that the colours are used up.
_REPEATS: tuple[tuple[Any, str], ...] = (
    ("-", "o"), ((0, (4, 1.4)), "s"), ((0, (1, 1.2)), "^"), ((0, (6, 1.4, 1, 1.4)), "D"),
)  # fmt: skip


def looks(count: int) -> list[Look]:
    """Returns different looks: first by colour, then the same colours with other lines and markers.

    They repeat after 24.
    """
    every = cycle([Look(color, line, marker) for line, marker in _REPEATS for color in SERIES])
    return list(islice(every, count))


def _style(palette: Palette) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": palette.ink,
        "axes.edgecolor": palette.grid,
        "axes.labelcolor": palette.muted,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "grid.color": palette.grid,
        "grid.linewidth": 0.6,
        "xtick.color": palette.grid,
        "ytick.color": palette.grid,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.handlelength": 2.4,
        # A page shows through; a file may be opened on any ground.
        "figure.facecolor": "none" if palette is PAGE else palette.paper,
    }


@contextmanager
def themed(palette: Palette = PAGE) -> Iterator[None]:
    """Draws with the page's style inside the block."""
    with mpl.rc_context(_style(palette)):
        yield


def legend_above(figure: Figure, axes: Axes) -> None:
    """Puts the legend over the axes and makes the figure higher by what it takes."""
    handles, labels = axes.get_legend_handles_labels()
    # Inches of a line and its gaps, and of a letter.
    column = 0.62 + 0.06 * max(map(len, labels))
    columns = max(1, min(4, len(labels), int((figure.get_figwidth() - 0.3) / column)))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * (rows - 1))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.2)


def inline_svg(figure: Figure, key: str, label: str) -> str:
    """Returns the figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: A drawn figure.
        key: Unique on the page; prefixes every id inside the figure.
        label: What the figure shows, for readers that cannot see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**_style(PAGE), "svg.hashsalt": key}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    width, height = (round(72 * side, 1) for side in figure.get_size_inches())
    head = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{round(width * 1.6)}px">'
    )
    text = head + text[text.index(">") + 1 :]
    # HTML needs no namespaces, and ids must not repeat across the page's figures.
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'href="#', f'href="#{key}-', text)
    text = re.sub(r"url\(#", f"url(#{key}-", text)
    for color, role in zip(_PLACEHOLDERS, _ROLES, strict=True):
        text = text.replace(color, f"var(--{role})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()
