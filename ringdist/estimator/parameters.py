"""Checks of the options of `TensorRingDensity` before fitting."""

from __future__ import annotations

import math
import numbers
from typing import Any


def check_parameters(model: Any) -> None:
    """Raise `ValueError` for an invalid option that no later step would report."""
    choices = {
        "topology": ("ring", "train"),
        "core": ("auto", "dense", "cp"),
        "start": ("auto", "mixture", "quantile", "kmeans"),
        "handle_unknown": ("error", "missing", "rare"),
    }
    for name, known in choices.items():
        value = getattr(model, name)
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, found {value!r}")
    if not isinstance(model.shared_covariances, bool):
        raise ValueError(f"shared_covariances must be True or False, found {model.shared_covariances!r}")
    for name, least in {"num_components": 1, "num_rings": 1, "max_epochs": 0, "batch_size": 1}.items():
        value = getattr(model, name)
        if value == "auto" or (value is None and name == "batch_size"):
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            rule = "'auto' or an integer, 0 or more" if least == 0 else "'auto' or a positive integer"
            raise ValueError(f"{name} must be {rule}, found {value!r}")
    for name in ("budget", "pseudocount", "variance_floor"):
        value = getattr(model, name)
        if (value is None and name == "budget") or (name != "budget" and isinstance(value, str) and value == "auto"):
            continue
        positive = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not positive or value < 0 or (name == "budget" and value == 0):
            rule = "a positive number" if name == "budget" else "a finite number, not negative"
            raise ValueError(f"{name} must be {rule}, found {value!r}")
    if not (model.rank == "auto" if isinstance(model.rank, str) else _is_rank(model.rank)):
        raise ValueError(f"rank must be 'auto', a positive integer or one per bond, found {model.rank!r}")


def plain_rank(rank: Any) -> int | tuple[int, ...]:
    """The rank or ranks as Python integers."""
    return int(rank) if isinstance(rank, numbers.Integral) else tuple(int(r) for r in rank)


def _is_rank(rank: Any) -> bool:
    ranks = [rank] if isinstance(rank, numbers.Number) else rank
    try:
        return all(isinstance(r, numbers.Integral) and not isinstance(r, bool) and int(r) >= 1 for r in ranks)
    except TypeError:
        return False
