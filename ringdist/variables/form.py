"""The arguments of a variable that are not arrays."""

from __future__ import annotations

from typing import Any, NamedTuple


class Form(NamedTuple):
    """The kind of a variable and its arguments that are not arrays; variables of one kind have equal forms.

    Attributes:
        kind: the class that users know.
        num_components: N.
        name: the column's name, or None.
        options: pairs of an argument's name and its value, for those that are not arrays. A value is
            a number, a tuple of numbers, the names of several columns, an `Interval`, or the form of a
            variable that this one is made around.
    """

    kind: type
    num_components: int
    name: str | None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def nameless(self) -> Form:
        """The same without names: variables that differ in these alone are of one kind."""
        options = tuple((key, (None,) * len(value) if key == "names" else value) for key, value in self.options)
        return self._replace(name=None, options=options)
