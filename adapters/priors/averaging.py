"""Weight averaging over a prior whose ring is re-ordered while the average is taken."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from typing import Any, Self

from torch import nn
from torch.nn import Parameter


class Reorderable(nn.Module):
    """A module whose parameters change their meaning when it is re-ordered.

    `torch.optim.swa_utils.AveragedModel`, and callbacks based on it, average the parameters of a deep copy with those
    of the module, and copy the buffers. If the module is re-ordered in between, the copy receives the new order, but
    its parameters average values for two different orders. The module therefore keeps weak references to its deep
    copies. A copy whose parameters were written to before a re-ordering raises an error once it receives the new order.
    A copy that was not written to takes the new parameters and is valid, and so is a copy that loads a state dict.
    """

    _copies: weakref.WeakSet[Reorderable] | None = None
    _versions: list[int] | None = None  # of the parameters at the time of copying; None if this is not a copy
    _is_outdated = False  # whether this copy was written to before its original was re-ordered

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy to which the module keeps a weak reference."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        other._versions, other._is_outdated = versions_of(other.parameters()), False
        if self._copies is None:
            self._copies = weakref.WeakSet()
        self._copies.add(other)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """The state without the references to copies."""
        return {**super().__getstate__(), "_copies": None}

    def _note_reordering(self) -> None:
        """Mark all copies that were written to as outdated."""
        for other in self._copies or ():
            if other._versions != versions_of(other.parameters()):
                other._is_outdated = True

    def _check_reordering(self) -> None:
        """Raise `ValueError` if a new order was copied to an average of parameters for another order."""
        if self._is_outdated:
            raise ValueError(
                "these weights are averages over a re-ordering of the ring, before which they had another meaning: "
                "start a new average after the last reinitialize(order='mutual_information'), or do not re-order"
            )


def versions_of(parameters: Iterable[Parameter]) -> list[int]:
    """The version counter of each parameter, which every write in place increases."""
    return [parameter._version for parameter in parameters]
