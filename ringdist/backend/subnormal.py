"""Arithmetic of PyTorch on a CPU without subnormal numbers."""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch

SHARE = 2**15  # numbers, of which PyTorch gives that many to each thread at least
_pools = threading.local()  # of this thread: the number of threads that have been started
_least = sys.float_info.min  # not a constant to the compiler, which would compute its half itself


class FlushingSubnormals:
    """Within it this thread gets 0 in place of subnormal results, which take a product 40 times as long.

    JAX never has any, and the threshold of sweeps allows for their loss. Other threads, among which PyTorch shares
    large arrays, are as before: they would take over the setting for good if they were started here.
    """

    def __enter__(self) -> None:
        threads = torch.get_num_threads()
        if threads > getattr(_pools, "started", 1):
            torch.ones(SHARE * threads).mul_(1.0)
            _pools.started = threads
        self.changed = 0.5 * _least > 0 and torch.set_flush_denormal(True)

    def __exit__(self, *_: Any) -> None:
        if self.changed:
            torch.set_flush_denormal(False)
