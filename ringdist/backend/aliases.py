"""Aliases of tensors, for derivatives with respect to each place in which one tensor stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def aliases(operands: Sequence[Any], needed: Sequence[bool]) -> list[Any]:
    """Views of the operands whose gradients are needed; the others as they are.

    One tensor may be several operands, and one operand may be a function of another. The gradient with respect to an
    alias is that of one place alone, whereas that of the tensor would count all of them.
    """
    with torch.enable_grad():
        return [
            operand.view_as(operand) if wanted else operand for operand, wanted in zip(operands, needed, strict=True)
        ]
