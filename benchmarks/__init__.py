"""Measurements of ringdist, one module per question: ``python -m benchmarks NAME [options]``."""
