"""Where the time goes on the device: kernels, their number, and how long the host takes to launch them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from .. import rivals
from ..measure import interleaved
from . import wgan
from .rings import KINDS
from .session import Item, Options, Session
from .speed import models

RANKS, SMALL_RANKS = (20, 100), (2,)
SHOWN = 15  # rows of each table
CALLS = 3
Row = dict[str, Any]


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for rank in SMALL_RANKS if options.small else RANKS:
        for kind in KINDS:
            for name in ("log-likelihood", "sampling", "training step"):
                yield Item(f"profile, {name}, {kind}, rank {rank}", functools.partial(ring, options, rank, kind, name))
    yield Item("profile, hybrid step of a prior", functools.partial(prior, options))


def ring(options: Options, rank: int, kind: str, name: str) -> dict[str, Any]:
    ours = models(options, rank, kind)["ours"]
    operations = {"log-likelihood": ours.evaluate, "sampling": ours.sample}
    return profiled(rivals.trainer(ours) if name == "training step" else operations[name], options.device)


def prior(options: Options) -> dict[str, Any]:
    size = wgan.setting(options.small)
    model = wgan.candidates(size)["TRIP, learned, hybrid"](0)[0].to(options.device)

    def step() -> None:
        z, log_prob = model.sample_components(size.batch)
        torch.autograd.grad((z.sum(1) * log_prob).mean(), list(model.parameters()))

    return profiled(step, options.device)


def profiled(operation: Callable[[], object], device: str) -> dict[str, Any]:
    """Totals of one call, and the kernels and operations that take most of it."""
    milliseconds = interleaved({"it": operation}, repeats=3, device=device, seconds=0.2)["it"]
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=kinds) as found:
        for _ in range(CALLS):
            operation()
        if device == "cuda":
            torch.cuda.synchronize()
    events = found.key_averages()
    kernels = [e for e in events if "CUDA" in str(e.device_type) and e.self_device_time_total > 0]
    calls = [e for e in events if e.key.startswith("aten::")]
    launches = sum(e.count for e in events if e.key in ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC"))
    waits = sum(e.count for e in events if "Synchronize" in e.key or "aten::_local_scalar_dense" in e.key)
    totals = {
        "ms": milliseconds,
        "kernels": sum(e.count for e in kernels) / CALLS,
        "launches": launches / CALLS,
        "kernel time, ms": sum(e.self_device_time_total for e in kernels) / CALLS / 1000,
        "calls": sum(e.count for e in calls) / CALLS,
        "waits": waits / CALLS,
    }
    return {
        "totals": [totals],
        "kernels": top(kernels, "self_device_time_total"),
        "operations": top(calls, "self_cpu_time_total"),
    }


def top(events: list[Any], time: str) -> list[Row]:
    """Those that take most time, with their number and microseconds a call of the whole."""
    chosen = sorted(events, key=lambda event: getattr(event, time), reverse=True)[:SHOWN]
    return [
        {"name": e.key[:110], "number": round(e.count / CALLS, 1), "µs": round(getattr(e, time) / CALLS, 1)}
        for e in chosen
    ]
