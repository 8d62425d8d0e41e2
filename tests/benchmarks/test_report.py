"""Figures of result pages are readable: no row has more than two panels."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from benchmarks.report import PANEL_INCHES, PANELS, arranged


def places(figure: Figure) -> list[tuple[int, int]]:
    return [(spec.rowspan.start, spec.colspan.start) for spec in (axes.get_subplotspec() for axes in figure.axes)]


@pytest.mark.parametrize("count", [3, 4, 7])
def test_panels_of_one_row_are_arranged_in_rows_of_two(count):
    figure = Figure(figsize=(4 * count, 3))
    drawn = list(figure.subplots(1, count))
    assert arranged(figure) is figure and figure.axes == drawn
    assert places(figure) == [divmod(i, PANELS) for i in range(count)]
    assert figure.get_size_inches().tolist() == pytest.approx([2 * PANEL_INCHES[0], (count + 1) // 2 * PANEL_INCHES[1]])
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    assert boxes[2].y1 < boxes[0].y0 and boxes[0].x1 < boxes[1].x0


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 3)])
def test_other_figures_stay_as_they_are(shape):
    figure = Figure(figsize=(7, 5))
    figure.subplots(*shape)
    before = places(figure)
    assert places(arranged(figure)) == before
    assert figure.get_size_inches().tolist() == [7, 5]
