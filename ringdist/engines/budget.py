"""How many numbers may be in memory at once, and how many rows that allows: the one place for such limits."""

from __future__ import annotations

AT_ONCE = 2**26  # in everything that one chunk of rows needs (float64: half a gigabyte)
STORED = 2**27  # states and matrices that a backward pass finds stored; beyond, it computes them again
REMEMBERED = 2**24  # in what a ring keeps from call to call beside its cores
TEMPORARY = 2**23  # in one temporary that is written and read at once: more would only leave the cache
CACHED = 2**18  # of the matrices that a CPU multiplies side by side


def rows_within(limit: int, numbers_per_row: int) -> int:
    """Rows whose numbers stay within the limit, at least one."""
    return max(1, limit // max(1, numbers_per_row))
