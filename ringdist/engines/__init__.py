"""Contraction of a ring: sweeps, trees of products, logarithms and other libraries."""
