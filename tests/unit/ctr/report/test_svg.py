"""Many runs in one figure: told apart, and with room left for the curves."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure

from ctr.report.svg import LIGHT, PAGE, inline_svg, legend_above, looks, themed


def test_looks_differ_by_colour_first() -> None:
    found = looks(24)
    assert len({(look.color, str(look.line)) for look in found}) == 24
    assert len({(look.color, look.marker) for look in found}) == 24
    assert len({look.color for look in found[:6]}) == 6
    assert {look.line for look in found[:6]} == {"-"}
    assert looks(0) == []


@pytest.mark.parametrize("runs", [2, 12])
def test_a_legend_takes_height_and_no_width(runs: int) -> None:
    with themed():
        figure = Figure(figsize=(5.2, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for number in range(runs):
            axes.plot([0, 1], [0, number], label=f"a recipe of some name {number}")
        bare = Figure(figsize=(5.2, 2.7), layout="constrained")
        bare.add_subplot().plot([0, 1], [0, runs])
        legend_above(figure, axes)
        for each in (figure, bare):
            FigureCanvasSVG(each).draw()
    assert axes.get_position().width == pytest.approx(bare.axes[0].get_position().width, abs=0.02)
    width, height = (figure.get_size_inches() * figure.dpi).tolist()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= width
    assert box.y1 <= height
    # What is left for the curves does not depend on the number of runs.
    assert axes.get_position().height * figure.get_figheight() > 1.7


def test_colours_are_the_pages_inside_it_and_plain_in_a_file() -> None:
    assert all(is_color_like(color) for color in (LIGHT.ink, LIGHT.paper, *LIGHT.series))
    assert len(LIGHT.series) == len(PAGE.series)
    with themed():
        figure = Figure(layout="constrained")
        figure.add_subplot().plot([0, 1], color=PAGE.series[1])
        svg = inline_svg(figure, "key", "a line")
    assert "var(--s2)" in svg
    assert "#0f0e" not in svg
