"""Weighted sums of rings over the same columns: the structure, one module a subject, and the class that users hold."""

from ringdist.ring_mixture.mixture import RingMixture, load

__all__ = ["RingMixture", "load"]
