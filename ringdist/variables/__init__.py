"""Families of one-dimensional component densities.

- `protocol`: what users follow (`Variable`), and the base class with defaults that the library
  asks (`Family`).
- `categorical`, `gaussian`, `poisson`, `lognormal`, `student_t`: the built-in families, one file each.
- `atoms`: point masses beside the components of any of them.
- `foreign`: `as_family`, by which a class written against the protocol alone becomes a `Family`.
- `interval`, `truncated`: components restricted to an interval; `within` and `panels` compute what
  is asked of them, for any family.
"""

from ringdist.variables.atoms import WithAtoms
from ringdist.variables.categorical import Categorical
from ringdist.variables.checks import check_name, column_scale
from ringdist.variables.foreign import Foreign, as_family
from ringdist.variables.form import Form
from ringdist.variables.gaussian import GaussianMixture
from ringdist.variables.interval import Interval
from ringdist.variables.inversion import first_reached
from ringdist.variables.lognormal import LogNormalMixture
from ringdist.variables.poisson import PoissonMixture
from ringdist.variables.protocol import Family, Variable, rebuild
from ringdist.variables.student_t import StudentTMixture
from ringdist.variables.truncated import Truncated

BUILT_IN: tuple[type[Family], ...] = (
    Categorical,
    GaussianMixture,
    PoissonMixture,
    LogNormalMixture,
    StudentTMixture,
    WithAtoms,
    Truncated,
)

__all__ = [
    "BUILT_IN",
    "Categorical",
    "Family",
    "Foreign",
    "Form",
    "GaussianMixture",
    "Interval",
    "LogNormalMixture",
    "PoissonMixture",
    "StudentTMixture",
    "Truncated",
    "Variable",
    "WithAtoms",
    "as_family",
    "check_name",
    "column_scale",
    "first_reached",
    "rebuild",
]
