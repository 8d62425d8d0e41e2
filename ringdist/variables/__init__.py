"""Families of component densities.

- `variable`: the protocol that users implement (`Variable`). `protocol`: the base class with defaults
  that the library uses (`Family`).
- `categorical`, `gaussian`, `student_t`, `lognormal`, `beta`, `von_mises`, `poisson`,
  `negative_binomial`: the built-in families, one file each.
- `multivariate_gaussian`: the family of wide variables, which cover several columns.
- `atoms`: point masses in addition to the components of any family.
- `foreign`: `as_family`, which adapts a class that only follows the protocol to `Family`.
- `interval`, `truncated`: components restricted to an interval; `within` and `panels` compute their
  masses, moments and samples for any family. `truncated_multivariate`: Gaussians of several columns
  within a box, whose masses are in `boxes`. `restriction`: the restriction of any family to an event.
- `postponed`: densities that a sweep computes itself (`gaussian_weighing`).
"""

from ringdist.variables.atoms import WithAtoms
from ringdist.variables.beta import BetaMixture
from ringdist.variables.categorical import Categorical
from ringdist.variables.checks import check_name, column_scale
from ringdist.variables.foreign import Foreign, as_family
from ringdist.variables.form import Form
from ringdist.variables.gaussian import GaussianMixture
from ringdist.variables.interval import Interval
from ringdist.variables.inversion import crossing, first_reached
from ringdist.variables.lognormal import LogNormalMixture
from ringdist.variables.multivariate_gaussian import MultivariateGaussianMixture
from ringdist.variables.negative_binomial import NegativeBinomialMixture
from ringdist.variables.poisson import PoissonMixture
from ringdist.variables.postponed import postponed
from ringdist.variables.protocol import Family, rebuild
from ringdist.variables.restriction import log_density_within, log_probability_within, restricted
from ringdist.variables.student_t import StudentTMixture
from ringdist.variables.truncated import Truncated
from ringdist.variables.truncated_multivariate import TruncatedMultivariateGaussianMixture
from ringdist.variables.variable import Variable
from ringdist.variables.von_mises import VonMisesMixture

BUILT_IN: tuple[type[Family], ...] = (
    Categorical,
    GaussianMixture,
    PoissonMixture,
    LogNormalMixture,
    StudentTMixture,
    NegativeBinomialMixture,
    BetaMixture,
    VonMisesMixture,
    MultivariateGaussianMixture,
    WithAtoms,
    Truncated,
    TruncatedMultivariateGaussianMixture,
)

__all__ = [
    "BUILT_IN",
    "BetaMixture",
    "Categorical",
    "Family",
    "Foreign",
    "Form",
    "GaussianMixture",
    "Interval",
    "LogNormalMixture",
    "MultivariateGaussianMixture",
    "NegativeBinomialMixture",
    "PoissonMixture",
    "StudentTMixture",
    "Truncated",
    "TruncatedMultivariateGaussianMixture",
    "Variable",
    "VonMisesMixture",
    "WithAtoms",
    "as_family",
    "check_name",
    "column_scale",
    "crossing",
    "first_reached",
    "log_density_within",
    "log_probability_within",
    "postponed",
    "rebuild",
    "restricted",
]
