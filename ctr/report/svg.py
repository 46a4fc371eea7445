"""Matplotlib figures as inline SVG that follows the page's colours, light or dark.

Matplotlib wants concrete colours, the page wants CSS variables. Each role has a colour that no
plot would use by chance; after drawing, that colour is replaced by the variable.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_ROLES = ("ink", "muted", "grid", "paper", "s1", "s2", "s3", "s4", "s5", "s6")
INK, MUTED, GRID, PAPER, *SERIES = (f"#0f0e{number:02x}" for number in range(len(_ROLES)))

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
}


@contextmanager
def themed() -> Iterator[None]:
    """Draws with the page's style inside the block."""
    with mpl.rc_context(_STYLE):
        yield


def inline_svg(figure: Figure, key: str, label: str) -> str:
    """Returns the figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: A drawn figure.
        key: Unique on the page; prefixes every id inside the figure.
        label: What the figure shows, for readers that cannot see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": key}):
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
    for number, role in enumerate(_ROLES):
        text = text.replace(f"#0f0e{number:02x}", f"var(--{role})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()
