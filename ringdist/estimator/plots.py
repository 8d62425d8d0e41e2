"""Plots of a fitted `TensorRingDensity`, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ringdist.estimator import events
from ringdist.estimator.columns import Column
from ringdist.estimator.density import TensorRingDensity
from ringdist.estimator.scalars import CLOCKS, DAY

_POINTS = 200
_SHOWN = 0.001, 0.999  # quantiles between which a density is drawn
_MOST_LABELS = 40  # largest number of columns whose names fit next to a heat map


def plot_conditional(estimator: TensorRingDensity, row: Mapping[str, Any], column: str, ax: Any = None) -> Any:
    """The distribution of a column given known entries of others: bars for categories, otherwise a density.

    The density is computed from the exact conditional distribution function, in 200 cells between its quantiles of 0.1
    and 99.9 %. The line is the median, the shade the central 80 %. The density of dates and durations is per day.

    Args:
        estimator: fitted on a frame.
        row: known entries by column name; the column itself is ignored.
        column: the column to plot.
        ax: matplotlib axes; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: if a name is none of the columns, or the known entries have no mass.
        ImportError: if matplotlib is not installed.

    Examples:
        >>> import pandas as pd
        >>> from sklearn.datasets import load_iris
        >>> frame = load_iris(as_frame=True).data
        >>> model = TensorRingDensity(budget=2, random_state=0).fit(frame)
        >>> axes = plot_conditional(model, {"petal length (cm)": 1.5}, "petal width (cm)")
        >>> axes.get_xlabel()
        'petal width (cm)'
    """
    import pandas

    asked = estimator._columns[events.column_of(column, estimator._indices)]
    axes = _axes(ax)
    known = {name: [value] for name, value in row.items() if name != column}
    frame = pandas.DataFrame(known) if known else {}
    axes.set_xlabel(column)
    axes.set_title(
        ", ".join(f"{name} = {values[0]}" for name, values in known.items()) or "all rows", fontsize="medium"
    )
    if asked.categories is not None:
        share = np.asarray(estimator.predict_proba(frame, column))[0]
        axes.bar([str(value) for value in estimator.classes_of(column)], share)
        axes.set_ylabel("probability")
        return axes
    low, middle_low, median, middle_high, high = (
        asked.scalars.to_float(np.asarray(estimator.quantile(frame, column, q)), asked.label).item()
        for q in (_SHOWN[0], 0.1, 0.5, 0.9, _SHOWN[1])
    )
    edges = _edges(asked, low, high)
    values = {name: known_values * len(edges) for name, known_values in known.items()}
    grid = pandas.DataFrame(values | {column: asked.in_notation(edges)})
    unit, name = (DAY, "density per day") if asked.scalars.notation in CLOCKS else (1.0, "density")
    density = np.diff(np.asarray(estimator.cdf(grid, column))) / np.diff(edges) * unit
    middles = (edges[:-1] + edges[1:]) / 2
    inside = (middles >= middle_low) & (middles <= middle_high)
    axes.plot(_on_axis(asked, middles), density)
    axes.fill_between(_on_axis(asked, middles), density, where=inside, alpha=0.3)
    axes.axvline(_on_axis(asked, np.array([median]))[0], linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(name)
    if asked.scalars.notation == "timedelta":
        axes.set_xlabel(f"{column}, days")
    return axes


def _edges(column: Column, low: float, high: float) -> np.ndarray:
    """The edges of the cells in which the density is drawn; dates and durations are multiples of their step."""
    edges = np.linspace(low, high, _POINTS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    if column.scalars.notation not in CLOCKS:
        return edges
    step = column.scalars.step
    first, *others = np.unique(np.round(edges / step)) * step
    return np.array([first, *(others or [first + step])])


def _on_axis(column: Column, values: np.ndarray) -> np.ndarray:
    """Numbers as matplotlib draws them: dates as dates, durations in days."""
    if column.scalars.notation == "timedelta":
        return values / DAY
    if column.scalars.notation in CLOCKS:
        return np.round(values * 1e6).astype(np.int64).astype("M8[us]")
    return values


def plot_dependence(estimator: TensorRingDensity, ax: Any = None) -> Any:
    """The mutual information of all pairs of columns under the model, in nats, as a heat map in the order of the ring.

    Args:
        estimator: fitted.
        ax: matplotlib axes; a new figure's by default.

    Returns:
        The axes.

    Raises:
        ImportError: if matplotlib is not installed.

    Examples:
        >>> import pandas as pd
        >>> from sklearn.datasets import load_iris
        >>> model = TensorRingDensity(budget=2, random_state=0).fit(load_iris(as_frame=True).data)
        >>> axes = plot_dependence(model)
        >>> len(axes.get_xticklabels())
        4
    """
    axes = _axes(ax)
    pairs = estimator.mutual_information()
    names = list(pairs.columns)
    values = pairs.to_numpy(np.float64, copy=True)
    np.fill_diagonal(values, np.nan)
    image = axes.imshow(values, cmap="viridis", vmin=0)
    if len(names) <= _MOST_LABELS:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    axes.figure.colorbar(image, ax=axes, label="mutual information, nats")
    return axes


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5, 4), layout="constrained").subplots()
