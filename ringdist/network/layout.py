"""Which columns of x belong to which variable: the one place where columns and sites meet.

A site is a place around the ring, with one variable and one core. Its variable covers one column, or several if it is
wide; the columns of the variables follow each other, those of variable 0 first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ringdist.variables import Variable, as_family

Column = int | str


class Layout:
    """The columns of some variables.

    Attributes:
        columns: the columns of every site, in ascending order.
        places: of every column its site, and its place among the columns of that.
        names: of every column, or None.
        num_columns: d.
    """

    def __init__(self, variables: Sequence[Variable]):
        families = [as_family(variable) for variable in variables]
        columns: list[tuple[int, ...]] = []
        places: list[tuple[int, int]] = []
        names: list[str | None] = []
        start = 0
        for i, family in enumerate(families):
            columns.append(tuple(range(start, start + family.width)))
            places += [(i, j) for j in range(family.width)]
            names += family.names
            start += family.width
        self.columns, self.places, self.names = tuple(columns), tuple(places), tuple(names)
        self.num_columns = start

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
        if len(self.columns) == self.num_columns:
            return self.column(i)
        if isinstance(i, str):
            return self.places[self.column(i)][0]
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
