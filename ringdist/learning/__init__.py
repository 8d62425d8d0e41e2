"""Fitting rings to data."""
