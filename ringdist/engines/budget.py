"""All memory limits: how many numbers may be in memory at once, and how many rows that allows."""

from __future__ import annotations

from ringdist.backend import Array, on_accelerator

AT_ONCE = 2**26  # in everything that one chunk of rows needs (float64: half a gigabyte)
STORED = 2**27  # states and matrices stored for a backward pass; beyond, they are recomputed
ACCELERATED = 8  # times as many where one more chunk is a few hundred more launches
REMEMBERED = 2**24  # in what a ring caches between calls
TEMPORARY = 2**23  # in one temporary that is written and read at once: more would only leave the cache
CACHED = 2**18  # of the matrices that a CPU multiplies side by side


def at_once(array: Array) -> int:
    """`AT_ONCE` on the device of `array`."""
    return AT_ONCE * (ACCELERATED if on_accelerator(array) else 1)


def stored(array: Array) -> int:
    """`STORED` on the device of `array`."""
    return STORED * (ACCELERATED if on_accelerator(array) else 1)


def rows_within(limit: int, numbers_per_row: int) -> int:
    """Rows whose numbers stay within the limit, at least one."""
    return max(1, limit // max(1, numbers_per_row))
