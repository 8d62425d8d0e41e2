"""Weighted sums of rings over the same columns: the structure, one module per subject, and the user-facing class."""

from ringdist.ring_mixture.mixture import RingMixture, load

__all__ = ["RingMixture", "load"]
