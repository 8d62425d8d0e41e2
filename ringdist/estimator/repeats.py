"""Atoms of a column of numbers: repeated values such as zeros among amounts, and codes such as 9999."""

from __future__ import annotations

import numpy as np

from ringdist.estimator.notices import warn

ATOM_SHARE = 0.05  # least share of the rows with an atom
TYPICAL = 5  # least ratio of an atom's count to those of almost all other values
FAR = 2.0  # least distance of a code from all other values, relative to their range
CODE_SHARE = 0.003  # least share of the rows with a code
FEWEST = 5  # least number of rows with an atom or a code
MOST_ATOMS = 4


def atoms(values: np.ndarray, label: str) -> tuple[float, ...]:
    """The atoms among values (n,), ascending; a value that looks like a code causes a warning.

    There are none unless at least two other values remain.
    """
    distinct, count = np.unique(values, return_counts=True)
    if distinct.size < 3:
        return ()
    codes = _codes(distinct, count)
    for value in codes:
        share = 100 * count[distinct == value][0] / values.size
        warn(
            f"{label}: {value:g} stands far from all other values in {share:.1f} % of the rows, as a code for a "
            "missing entry does; it is taken for a value of its own. If it means missing, replace it by NaN, such as "
            f"by frame[name].replace({value:g}, float('nan'))",
            UserWarning,
        )
    most_frequent = np.argsort(-count, kind="stable")[:MOST_ATOMS]
    usual = np.quantile(count, 0.95) if distinct.size > 20 else np.median(count)
    found = set(codes)
    for place in most_frequent:
        if count[place] >= max(FEWEST, ATOM_SHARE * values.size) and count[place] > TYPICAL * usual:
            found.add(float(distinct[place]))
    if distinct[0] == 0 and count[0] >= max(FEWEST, 0.01 * values.size) and count[0] > TYPICAL * usual:
        found.add(0.0)
    return tuple(sorted(found)) if distinct.size - len(found) >= 2 else ()


def _codes(distinct: np.ndarray, count: np.ndarray) -> list[float]:
    """The least and the greatest value, if they are repeated and far from all others."""
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
    """Whether all digits are 9, or the value is a negative integer: -1, -999, 9999, 99.99."""
    digits = f"{abs(value):.10g}".replace(".", "").strip("0")
    return (bool(digits) and set(digits) == {"9"}) or (value < 0 and value == round(value))
