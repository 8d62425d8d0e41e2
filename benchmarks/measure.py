"""How times and memory are measured, and on which device."""

import ctypes
import multiprocessing
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def default_device() -> str:
    """CUDA where there is any."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def interleaved(
    operations: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    device: str,
    seconds: float = 1.0,
    statistic: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Milliseconds of each, called in turns, at least ``repeats`` times and for at least ``seconds``.

    Every round begins with another one, because what runs before decides which memory is warm.
    """
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in operations}
    for operation in [*operations.values()] * 2:
        operation()
    turns = deque(operations.items())
    end = time.perf_counter() + seconds
    while min(map(len, times.values())) < repeats or time.perf_counter() < end:
        turns.rotate(-1)
        for name, operation in turns:
            synchronize()
            begin = time.perf_counter()
            operation()
            synchronize()
            times[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistic(measured) for name, measured in times.items()}


def in_fresh_process(function: Callable[..., T], *args: object) -> T:
    """The function's value in a process of its own, in which no library holds memory from before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def memory_mark(device: str) -> float:
    """Bytes in use now; the peak counts from here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps from before would be used first and hide a part
    Path("/proc/self/clear_refs").write_text("5")
    return memory_peak(device)


def memory_peak(device: str) -> float:
    """Bytes at the highest since `memory_mark`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not ru_maxrss: it starts from the parent's and cannot be reset.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024.0 * int(status["VmHWM"].split()[0])
