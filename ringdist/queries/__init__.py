"""Queries of a ring: one function for each quantity."""
