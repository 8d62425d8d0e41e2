"""The arguments of a variable that are not arrays."""

from __future__ import annotations

from typing import Any, NamedTuple


class Form(NamedTuple):
    """The class of a variable and all its arguments that are not arrays.

    Attributes:
        kind: the class that users know.
        num_components: N.
        name: the column's name, or None.
        options: pairs of an argument's name and its value, for those that are not arrays. A value is
            a number, a tuple of numbers, the names of several columns, an `Interval`, or the form of a
            variable that this one wraps.
    """

    kind: type
    num_components: int
    name: str | None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def nameless(self) -> Form:
        """The form without names, by which variables are grouped."""
        options = tuple((key, (None,) * len(value) if key == "names" else value) for key, value in self.options)
        return self._replace(name=None, options=options)
