"""Each family beside the same distribution of scipy, for tests that run over all of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import integrate, stats

import ringdist as rd
from tests.backends import Backend


@dataclass(frozen=True, eq=False)
class Specimen:
    """A variable of three components, and what scipy says of them.

    Args:
        family: the class.
        parameters: arrays of the constructor.
        scipy: from parameters to one frozen distribution a component.
        outside: values without a density, and what the error says of the first.
        options: other arguments of the constructor.
        pieces: where quadrature has to begin anew: ends of the support, and points between.
        bounds: statistics whose expectation is a bound only.
        vague: parameters that 20 000 draws do not tell to a tenth, and how well they do.
    """

    family: Any
    parameters: dict[str, list[float]]
    distributions: Callable[..., list[Any]]
    outside: list[float]
    finding: str
    options: dict[str, Any] = field(default_factory=dict)
    pieces: tuple[float, ...] = (-np.inf, np.inf)
    bounds: tuple[str, ...] = ()
    vague: dict[str, float] = field(default_factory=dict)

    @functools.cached_property
    def scipy(self) -> list[Any]:
        return self.distributions(**{key: np.array(values) for key, values in self.parameters.items()})

    @property
    def placeable(self) -> Any:
        """What `initialize` is given for it."""
        return functools.partial(self.family, **self.options) if self.options else self.family

    def moved(self, key: str, values: np.ndarray) -> Specimen:
        """The same with other values of one parameter."""
        return dataclasses.replace(self, parameters={**self.parameters, key: list(values)})

    def __repr__(self) -> str:
        return self.family.__name__

    @property
    def integer(self) -> bool:
        return hasattr(self.scipy[0], "pmf")

    def make(self, backend: Backend, dtype: str = "float64", name: str | None = None) -> Any:
        arrays = {key: backend.array(values, dtype) for key, values in self.parameters.items()}
        return self.family(**arrays, **self.options, name=name)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.stack([d.logpmf(x) if self.integer else d.logpdf(x) for d in self.scipy], axis=-1)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        return np.stack([d.cdf(x) for d in self.scipy], axis=-1)

    def means(self) -> np.ndarray:
        return np.array([d.mean() for d in self.scipy])

    def variances(self) -> np.ndarray:
        return np.array([d.var() for d in self.scipy])

    def draw(self, n: int, seed: int = 0, component: int | None = None) -> np.ndarray:
        """(n,) values of one component, or of all in turn."""
        count = len(self.scipy)
        chosen = np.arange(n) % count if component is None else np.full(n, component)
        return self.of_components(chosen, np.random.default_rng(seed))

    def of_components(self, components: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A value of each component in turn."""
        x = np.zeros(components.shape)
        for c, distribution in enumerate(self.scipy):
            x[components == c] = distribution.rvs(size=int((components == c).sum()), random_state=rng)
        return x

    def integral(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Σ or ∫ function(x) over the support."""
        if self.integer:
            return float(np.sum(function(np.arange(20_000.0))))
        return sum(
            integrate.quad(function, a, b, epsabs=0, epsrel=1e-10, limit=200)[0]
            for a, b in itertools.pairwise(self.pieces)
        )


def each(make: Callable[..., Any]) -> Callable[..., list[Any]]:
    """From arrays of parameters to a distribution for each component."""

    def distributions(**parameters: np.ndarray) -> list[Any]:
        names, columns = list(parameters), zip(*parameters.values(), strict=True)
        return [make(**dict(zip(names, column, strict=True))) for column in columns]

    return distributions


LOG_NORMAL = Specimen(
    rd.LogNormalMixture,
    {"means": [0.1, 1.0, -1.0], "stds": [0.5, 1.0, 0.25]},
    each(lambda means, stds: stats.lognorm(s=stds, scale=np.exp(means))),
    [0.0, -1.0, np.inf],
    r"log-normal values are positive and finite, found 0; rd.WithAtoms\(variable, \[0.0\]\)",
    pieces=(0.0, 0.5, 2.0, np.inf),
)

STUDENT_T = Specimen(
    rd.StudentTMixture,
    {"locs": [0.5, -3.0, 6.0], "scales": [0.4, 1.0, 2.0], "dofs": [2.5, 5.0, 40.0]},
    each(lambda locs, scales, dofs: stats.t(dofs, loc=locs, scale=scales)),
    [np.inf],
    "values must be finite, found inf",
    pieces=(-np.inf, -3.0, 0.5, 6.0, np.inf),
    vague={"dofs": 0.4},
)

NEGATIVE_BINOMIAL = Specimen(
    rd.NegativeBinomialMixture,
    {"means": [0.8, 4.0, 12.0], "dispersions": [2.0, 0.3, 0.05]},
    each(lambda means, dispersions: stats.nbinom(1 / dispersions, 1 / (1 + dispersions * means))),
    [-1.0, 2.5, np.inf],
    "counts are integers from 0, found -1",
    bounds=("square", "jump_0", "jump_1", "jump_2", "jump_3"),
)

BETA = Specimen(
    rd.BetaMixture,
    {"alphas": [1.5, 6.0, 30.0], "betas": [4.0, 5.0, 2.5]},
    each(lambda alphas, betas: stats.beta(alphas, betas, loc=-1.0, scale=3.0)),
    [-1.0, 2.0, 5.0, np.inf],
    r"values lie strictly between -1 and 2, found -1; rd.WithAtoms\(variable, \[-1\]\)",
    options={"low": -1.0, "high": 2.0},
    pieces=(-1.0, 0.0, 1.0, 2.0),
)


class Angle:
    """Scipy's von Mises distribution as one of the number in [−π, π]."""

    def __init__(self, loc: float, concentration: float) -> None:
        self.loc, self.inner = loc, stats.vonmises(concentration, loc=loc)

    def pdf(self, x):
        return self.inner.pdf(x)

    def logpdf(self, x):
        return self.inner.logpdf(x)

    def cdf(self, x):
        return self.inner.cdf(x) - self.inner.cdf(-np.pi)

    def mean(self) -> float:
        return self.moment(lambda x: x)

    def var(self) -> float:
        mean = self.mean()
        return self.moment(lambda x: (x - mean) ** 2)

    def moment(self, function) -> float:
        ends = (-np.pi, self.loc, np.pi)
        pieces = itertools.pairwise(ends)
        return sum(
            integrate.quad(lambda x: function(x) * self.pdf(x), a, b, epsabs=1e-13, limit=200)[0] for a, b in pieces
        )

    def rvs(self, size, random_state):
        x = self.inner.rvs(size=size, random_state=random_state)
        return (x + np.pi) % (2 * np.pi) - np.pi


VON_MISES = Specimen(
    rd.VonMisesMixture,
    {"locs": [0.3, -2.8, 1.7], "concentrations": [0.5, 3.0, 20.0]},
    each(lambda locs, concentrations: Angle(locs, concentrations)),
    [3.2, -4.0, np.inf],
    r"angles lie in \[−π, π\], found 3.2; \(x \+ π\) % \(2 π\) − π brings them in",
    pieces=(-np.pi, -2.8, 0.3, 1.7, np.pi),
)

SPECIMENS = [LOG_NORMAL, STUDENT_T, NEGATIVE_BINOMIAL, BETA, VON_MISES]
