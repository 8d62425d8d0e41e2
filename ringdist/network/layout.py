"""The columns of x that belong to each variable: the only place that maps columns to sites.

A site is a place around the ring, with one variable and one core. Its variable covers one column, or several if it is
wide. These may be any columns; by default the columns of the variables follow each other, those of variable 0 first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from reprlib import repr as short
from typing import Any

import numpy as np

from ringdist.variables import Family, Variable, as_family

Column = int | str
Columns = Sequence[int | Sequence[int]]  # of every variable; an index alone for one column


class Layout:
    """The columns of some variables.

    Args:
        variables: one for each site.
        columns: of every site, in the order of its variable's own; together a permutation of 0..d-1. None: those of
            the first variable, then those of the second, and so on.

    Attributes:
        columns: the columns of every site, in the order of its variable's own.
        places: of every column its site, and its place among the columns of that.
        names: of every column, or None.
        num_columns: d.
        is_consecutive: whether columns are in the order of the variables.
        in_order: of every column its place among the columns of all sites side by side; None if consecutive.

    Raises:
        ValueError: if columns are not one tuple per variable, of the variable's width, together a permutation.
    """

    def __init__(self, variables: Sequence[Variable], columns: Columns | None = None):
        families = [as_family(variable) for variable in variables]
        self.columns = _consecutive(families) if columns is None else as_columns(columns, [f.width for f in families])
        listed = [k for own in self.columns for k in own]
        self.num_columns = len(listed)
        self.is_consecutive = listed == list(range(len(listed)))
        places = [(i, j) for i, own in enumerate(self.columns) for j in range(len(own))]
        names = [name for family in families for name in family.names]
        self.in_order: tuple[int, ...] | None = None
        if not self.is_consecutive:
            self.in_order = tuple(sorted(range(len(listed)), key=listed.__getitem__))
            places, names = [places[n] for n in self.in_order], [names[n] for n in self.in_order]
        self.places, self.names = tuple(places), tuple(names)

    @property
    def is_plain(self) -> bool:
        """Whether every variable has one column."""
        return len(self.columns) == self.num_columns

    def column(self, k: Column) -> int:
        """The index of a column given by index or name; `ValueError` if there is none."""
        if isinstance(k, str):
            if k in self.names:
                return self.names.index(k)
            raise ValueError(f"there is no column {k!r}; columns are named {list(self.names)}")
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"a column is an index or a name, found {k!r}")
        if not 0 <= k < self.num_columns:
            raise ValueError(f"there is no column {k}; columns are 0..{self.num_columns - 1}")
        return int(k)

    def site(self, i: Column) -> int:
        """The index of a site given by index or by the name of one of its columns; `ValueError` if there is none."""
        if isinstance(i, str):
            return self.places[self.column(i)][0]
        if self.is_plain:
            return self.column(i)
        if isinstance(i, bool) or not isinstance(i, int | np.integer):
            raise TypeError(f"a variable is given by its index or the name of a column, found {i!r}")
        if not 0 <= i < len(self.columns):
            raise ValueError(f"there is no variable {i}; variables are 0..{len(self.columns) - 1}")
        return int(i)

    def describe(self, k: int) -> str:
        """The column as error messages name it: column 3 ('age')."""
        name = self.names[k]
        return f"column {k}" if name is None else f"column {k} ({name!r})"

    def describe_site(self, i: int) -> str:
        """The columns of a site as error messages name them: columns 3, 4 ('age', 'height')."""
        columns = self.columns[i]
        if len(columns) == 1:
            return self.describe(columns[0])
        names = [repr(self.names[k]) for k in columns if self.names[k] is not None]
        return f"columns {', '.join(map(str, columns))}" + (f" ({', '.join(names)})" if names else "")


def _consecutive(families: Sequence[Family]) -> tuple[tuple[int, ...], ...]:
    """Plain Python, as `torch.compile` traces the making of a ring."""
    columns, start = [], 0
    for family in families:
        columns.append(tuple(range(start, start + family.width)))
        start += family.width
    return tuple(columns)


def as_columns(columns: Columns, widths: Sequence[int | None]) -> tuple[tuple[int, ...], ...]:
    """The columns of every variable as tuples of Python's integers, checked.

    Args:
        widths: how many columns each variable has; None for two or more.
    """
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise TypeError(f"columns must be one tuple of indices per variable, found {columns!r}")
    listed = tuple(map(_as_indices, columns))
    if len(listed) != len(widths):
        raise ValueError(
            f"columns must be one tuple of indices per variable, found {len(listed)} for {len(widths)} variables"
        )
    for i, (own, width) in enumerate(zip(listed, widths, strict=True)):
        if len(own) < 2 if width is None else len(own) != width:
            raise ValueError(f"variable {i} has {width or '2 or more'} columns, found {short(own)}")
    every = sorted(k for own in listed for k in own)
    if every != list(range(len(every))):
        raise ValueError(
            f"the columns of all variables must be a permutation of 0..{len(every) - 1}, found {short(list(listed))}"
        )
    return listed


def _as_indices(own: Any) -> tuple[int, ...]:
    entries = (own,) if isinstance(own, int | np.integer) else own
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise TypeError(f"the columns of a variable are an index or a tuple of them, found {own!r}")
    entries = tuple(entries)
    if any(isinstance(k, bool) or not isinstance(k, int | np.integer) for k in entries):
        raise TypeError(f"the columns of a variable are indices, found {own!r}")
    return tuple(map(int, entries))
