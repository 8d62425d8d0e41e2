"""The frozen structure of a ring, and rows of data as evidence about it."""

from ringdist.network.evidence import Evidence
from ringdist.network.layout import Column
from ringdist.network.structure import Network

__all__ = ["Column", "Evidence", "Network"]
