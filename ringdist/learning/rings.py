"""Mixtures of rings over several orders of the columns, whose rings are fitted one after another or jointly."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ringdist import ordering
from ringdist.backend import is_array, to_numpy
from ringdist.learning.data import Model, TrainingData
from ringdist.learning.em import fit_em
from ringdist.learning.fitting import FitResult
from ringdist.learning.starts import initialize, placed_variables
from ringdist.network.layout import Columns
from ringdist.network.rows import unmasked
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture
from ringdist.variables import Variable

MAX_STEPS = 200
GAP = 1e-10  # nats per row by which weights may miss the best likelihood


def fit_mixture(
    x: Any,
    variables: Sequence[Variable | type | None],
    rank: int = 16,
    *,
    num_rings: int = 4,
    orders: Sequence[Sequence[int]] | None = None,
    columns: Columns | None = None,
    topology: Literal["ring", "train"] = "train",
    core: Literal["dense", "cp"] = "cp",
    num_components: int = 8,
    together: bool = False,
    validation: Any = None,
    sample_weight: Any = None,
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
    **options: Any,
) -> FitResult:
    """Fit a `RingMixture` of rings that differ in the order of their columns and in their starting points.

    p(x) = Σ_r w_r p_r(x). Each ring starts near a mixture of products and is fitted to all rows by `fit_em`. Then the
    weights alone are set to maximise the likelihood of the validation rows, or of x if there are none. With `together`,
    EM of the whole mixture follows, in which every ring is fitted to the rows weighted by its responsibilities.

    Args:
        x: (n, d) data, NaN where missing.
        variables: the families, as in `initialize`.
        rank: of every bond.
        num_rings: number of rings, at least 1.
        orders: one order for each ring; None uses `ringdist.ordering.diverse` of the mutual information.
        columns: for every variable the columns of x that it covers, as in `initialize`.
        topology, core, num_components, xp, dtype, device: as in `initialize`.
        together: whether to fit all rings once more, jointly.
        validation: (n', d) rows that choose epochs and weights.
        sample_weight: (n,) non-negative weights of the rows of x; they do not enter the weights of the rings.
        rng: seed.
        options: for `fit_em`, such as `max_epochs`, `batch_size` and `smoothing`.

    Returns:
        The mixture and, with `together`, its history, otherwise the history of the first ring.

    Raises:
        ValueError: if num_rings is not a positive integer or differs from the number of orders; also as `initialize`
            and `fit_em`.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> rng = np.random.default_rng(0)
        >>> cluster = rng.integers(3, size=300)
        >>> x = (rng.random((300, 6)) < np.array([0.1, 0.5, 0.9])[cluster, None]).astype(float)
        >>> model, history = rd.fit_mixture(x, [rd.Categorical(2)] * 6, rank=3, num_rings=2, max_epochs=5, rng=0)
        >>> len(model.rings), model.log_prob(x).shape
        (2, (300,))
    """
    if isinstance(num_rings, bool) or not isinstance(num_rings, int | np.integer) or num_rings < 1:
        raise ValueError(f"num_rings must be a positive integer, found {num_rings!r}")
    if orders is not None and len(orders) != num_rings:
        raise ValueError(f"there must be one order for each of {num_rings} rings, found {len(orders)}")
    seeds = np.random.default_rng(rng).integers(2**31, size=2 * num_rings + 1).tolist()
    layout: dict[str, Any] = {"topology": topology, "core": core, "xp": xp, "dtype": dtype, "device": device}
    if orders is None:
        x = unmasked(x)
        rows = to_numpy(x) if is_array(x) else np.asarray(x)
        placed, sites = placed_variables(rows, variables, columns, num_components)
        orders = ordering.diverse(ordering.dependence(rows, placed, sites), int(num_rings), topology)
    fit_options = {"sample_weight": sample_weight, "validation": validation, **options}
    rings, history = [], None
    for r, order in enumerate(orders):
        start = initialize(
            x,
            variables,
            rank,
            num_components=num_components,
            method="mixture",
            order=order,
            columns=columns,
            rng=seeds[2 * r],
            **layout,
        )
        fitted = fit_em(start, x, rng=seeds[2 * r + 1], **fit_options)
        rings.append(fitted.ring)
        history = history or fitted.history
    mixture = weighted(rings, x if validation is None else validation)
    if together:
        return fit_em(mixture, x, rng=seeds[-1], **fit_options)
    return FitResult(mixture, history or {})


def weighted(rings: Sequence[TensorRing], rows: Any, sample_weight: np.ndarray | None = None) -> RingMixture:
    """The mixture of the rings whose weights maximise the likelihood of rows (n, d), optionally weighted (n,)."""
    values = np.stack([log_probs(ring, rows) for ring in rings])
    return RingMixture(rings, mixture_weights(values, sample_weight).tolist())


def mixture_weights(values: np.ndarray, sample_weight: np.ndarray | None = None) -> np.ndarray:
    """The mixture weights (K,) of highest likelihood, from the log-likelihoods (K, n) of n rows under K models.

    The likelihood is concave in the weights w. With g_k = mean p_k(x) / p(x), no other weights are better by more than
    max g − 1 nats per row. Every step is the best among that of EM, w ← w g, which never decreases the likelihood, and
    several along the direction of Newton's method.
    """
    best = values.max(axis=0)
    share = np.ones(len(best)) if sample_weight is None else np.asarray(sample_weight)
    relevant = (best > -np.inf) & (share > 0)  # the other rows do not depend on the weights
    share = share[relevant] / max(share[relevant].sum(), np.finfo(np.float64).tiny)
    relative = np.exp(values[:, relevant] - best[relevant])
    weights = np.full(len(values), 1 / len(values))
    for _ in range(MAX_STEPS):
        ratio = relative / (weights @ relative)
        gain = ratio @ share
        if gain.max() < 1 + GAP:
            break
        target = _newton(ratio, share, gain)
        steps = [weights * gain, *(weights + length * (target - weights) for length in (1.0, 0.5, 0.1))]
        with np.errstate(divide="ignore"):
            weights = max(steps, key=lambda w: float(share @ np.log(w @ relative)))
    return weights / weights.sum()


def _newton(ratio: np.ndarray, share: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The weights that maximise the quadratic model of the likelihood, at whose maximum they sum to 1.

    Weights that would be negative are set to 0, one set after another.
    """
    curvature, linear = (ratio * share) @ ratio.T, 2 * gain - 1
    free, target = np.ones(len(gain), dtype=bool), np.zeros(len(gain))
    while free.any():
        target = np.zeros(len(gain))
        target[free] = np.linalg.lstsq(curvature[np.ix_(free, free)], linear[free], rcond=None)[0]
        if (target >= 0).all():
            break
        free &= target > 0
    total = target.sum()
    return target / total if total > 0 else np.full(len(gain), 1 / len(gain))


def log_probs(model: Model, rows: Any) -> np.ndarray:
    """log p of every row, (n,), in float64."""
    first = model.rings[0] if isinstance(model, RingMixture) else model
    batch, _ = TrainingData(first, rows).batch(first, slice(None))
    return to_numpy(model.log_prob(batch)).astype(np.float64)
