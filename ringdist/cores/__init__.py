"""The core of one column of a ring: a dense array, or a small network."""

from ringdist.cores.conditional import Conditional
from ringdist.cores.cp import CPCore, sources
from ringdist.cores.dense import DenseCore, as_core
from ringdist.cores.protocol import KINDS, Core
from ringdist.cores.semiring import LINEAR, LOG, Semiring

__all__ = ["KINDS", "LINEAR", "LOG", "CPCore", "Conditional", "Core", "DenseCore", "Semiring", "as_core", "sources"]
