"""Conversion of rings to other libraries and to files."""
