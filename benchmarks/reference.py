"""The paper's official code (insilicomedicine/TRIP), loaded from a checkout on the user's disk; no copy is here."""

import importlib.util
from pathlib import Path
from typing import Any

import torch

SOURCE = Path("core/learnable_priors/trip.py")
# What today's torch no longer accepts, and what it accepts instead.
PATCHES = {"torch.isnan(x).byte()": "torch.isnan(x)"}


def load(checkout: Path) -> type:
    """The class ``TRIP`` of a checkout, patched in memory so that it runs on today's torch."""
    path = checkout / SOURCE
    if not path.is_file():
        raise SystemExit(f"--reference {checkout}: not a checkout of insilicomedicine/TRIP, {SOURCE} is missing")
    source = path.read_text()
    for old, new in PATCHES.items():
        source = source.replace(old, new)
    spec = importlib.util.spec_from_loader("trip_reference", loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module.TRIP


def build(trip: type, roots: list[torch.Tensor], means: list[torch.Tensor], log_stds: list[torch.Tensor]) -> Any:
    """A reference model whose cores are the squares of ``roots`` (it squares its parameters itself)."""
    model = trip([("c", len(mean)) for mean in means], tt_int=roots[0].shape[-1], distr_init="rand")
    for own, given in zip(model.tt_cores + model.means + model.log_stds, roots + means + log_stds, strict=True):
        own.data = given.clone()
    return model
