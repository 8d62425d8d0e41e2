"""Values of a column of numbers that stand for themselves: zeros among amounts, codes such as 9999."""

from __future__ import annotations

import warnings

import numpy as np

ATOM_SHARE = 0.05  # of the rows, for one value
TYPICAL = 5  # times as often as almost all other values occur
FAR = 2.0  # times the extent of all other values: the distance of a code from them
CODE_SHARE = 0.003  # of the rows
FEWEST = 5  # rows
MOST_ATOMS = 4


def atoms(values: np.ndarray, label: str) -> tuple[float, ...]:
    """The values (n,) that are repeated as no continuous column does, ascending; and a warning for what looks a code.

    Values beside them must be left, and different ones.
    """
    distinct, count = np.unique(values, return_counts=True)
    if distinct.size < 3:
        return ()
    codes = _codes(distinct, count)
    for value in codes:
        share = 100 * count[distinct == value][0] / values.size
        warnings.warn(
            f"{label}: {value:g} stands far from all other values in {share:.1f} % of the rows, as a code for a "
            "missing entry does; it is taken for a value of its own. If it means missing, replace it by NaN, such as "
            f"by frame[name].replace({value:g}, float('nan'))",
            UserWarning,
            stacklevel=2,
        )
    often = np.argsort(-count, kind="stable")[:MOST_ATOMS]
    usual = np.quantile(count, 0.95) if distinct.size > 20 else np.median(count)
    found = set(codes)
    for place in often:
        if count[place] >= max(FEWEST, ATOM_SHARE * values.size) and count[place] > TYPICAL * usual:
            found.add(float(distinct[place]))
    if distinct[0] == 0 and count[0] >= max(FEWEST, 0.01 * values.size) and count[0] > TYPICAL * usual:
        found.add(0.0)
    return tuple(sorted(found)) if distinct.size - len(found) >= 2 else ()


def _codes(distinct: np.ndarray, count: np.ndarray) -> list[float]:
    """The least and the greatest value where they are repeated and far from all others."""
    least_count = max(FEWEST, CODE_SHARE * count.sum())
    found = []
    for end, rest in ((0, distinct[1:]), (-1, distinct[:-1])):
        value = float(distinct[end])
        extent = float(rest[-1]) - float(rest[0])
        gap = min(abs(value - float(rest[0])), abs(value - float(rest[-1])))
        if count[end] >= least_count and value != 0 and gap > FAR * extent and _is_written_as_code(value):
            found.append(value)
    return found


def _is_written_as_code(value: float) -> bool:
    """Digits that are all 9, or a negative integer: -1, -999, 9999, 99.99."""
    digits = f"{abs(value):.10g}".replace(".", "").strip("0")
    return (bool(digits) and set(digits) == {"9"}) or (value < 0 and value == round(value))
