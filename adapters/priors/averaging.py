"""What averages of weights may hold of a prior whose ring is re-ordered while they are taken."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from typing import Any, Self

from torch import nn
from torch.nn import Parameter


class Rearranged(nn.Module):
    """A module whose re-ordering changes what its parameters mean.

    `torch.optim.swa_utils.AveragedModel`, and the callbacks made of it, average a deep copy's parameters with those of
    the module, and copy buffers. Where the module is re-ordered in between, the copy would get the new order with
    parameters that are a mixture of two meanings. So the module knows its deep copies; a copy that was written to
    before a re-ordering, and is given the new order after it, is refused. One that was not written to begins with the
    new parameters, which is right, and so does one that loads a state dict.
    """

    _copies: weakref.WeakSet[Rearranged] | None = None
    _versions: list[int] | None = None  # of the parameters, when this was copied; None: it is not a copy
    _is_outdated = False  # whether it was written to before a re-ordering of what it is copied from

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy that the module remembers as long as it lives."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        other._versions, other._is_outdated = versions(other.parameters()), False
        if self._copies is None:
            self._copies = weakref.WeakSet()
        self._copies.add(other)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """All but the copies."""
        return {**super().__getstate__(), "_copies": None}

    def _note_reordering(self) -> None:
        """Tell all copies that were written to that their parameters have another meaning from now on."""
        for other in self._copies or ():
            if other._versions != versions(other.parameters()):
                other._is_outdated = True

    def _check_reordering(self) -> None:
        """`ValueError` where a new order came to an average of parameters that had another one."""
        if self._is_outdated:
            raise ValueError(
                "these weights are averages over a re-ordering of the ring, before which they had another meaning: "
                "start a new average after the last reinitialize(order='mutual_information'), or do not re-order"
            )


def versions(parameters: Iterable[Parameter]) -> list[int]:
    """How often each parameter has been written to."""
    return [parameter._version for parameter in parameters]
