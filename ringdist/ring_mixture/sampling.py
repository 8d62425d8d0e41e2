"""Samples of a mixture of rings: the ring is drawn first, then its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    astype,
    backend_name,
    draw,
    indices,
    is_concrete,
    namespace,
    stop_gradient,
    take,
    to_numpy,
    uniform,
)
from ringdist.network.events import as_events, check_observed
from ringdist.network.layout import Column
from ringdist.network.rows import as_rows
from ringdist.queries import sampling
from ringdist.ring_mixture.density import possible, ring_posteriors
from ringdist.ring_mixture.structure import Mixture


def sample(mixture: Mixture, n: int, *, rng: Any = None) -> Array:
    """n independent exact samples, (n, d) in the rings' dtype; categories are integers.

    Each ring is sampled once, with the number of samples drawn for it. In JAX, which recompiles for every number of
    samples, every ring draws n.

    Args:
        n: number of samples, 0 or more.
        rng: seed, or the backend's own generator or key; None is fresh entropy (`ValueError` for JAX).

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.ones((1, 1, 1))] * 2, [rd.GaussianMixture([mean], [1.0])] * 2)
        ...     for mean in (-10.0, 10.0)
        ... )
        >>> x = rd.RingMixture([a, b], [0.2, 0.8]).sample(10_000, rng=0)
        >>> bool((np.sign(x[:, 0]) == np.sign(x[:, 1])).all()), (x[:, 0] > 0).mean().round(1)
        (True, np.float64(0.8))
    """
    if mixture.num_rings == 1:
        return sampling.sample(mixture.rings[0], n, rng=rng)
    _check_count(n)
    stream, core = Stream(rng, mixture.prototype), mixture.prototype
    weights = stop_gradient(mixture.weights)
    xp = namespace(weights)
    ring_of = draw(xp.broadcast_to(weights, (n, mixture.num_rings)), uniform(stream.next(), (n,), core))
    if _asks_all(ring_of):
        rows = [sampling.sample(ring, n, rng=stream.next()) for ring in mixture.rings]
        return _chosen(rows, ring_of)
    parts, places = [], []
    for c, ring in enumerate(mixture.rings):
        place = np.flatnonzero(to_numpy(ring_of) == c)
        parts.append(sampling.sample(ring, place.shape[0], rng=stream.next()))
        places.append(place)
    return take(xp.concat(parts), indices(np.argsort(np.concatenate(places)), core))


def sample_given(
    mixture: Mixture, x: Any, n: int | None = None, *, event: Mapping[Column, Any] | None = None, rng: Any = None
) -> Array:
    """x with the NaN entries of every row drawn from p(missing | observed, event); observed entries are unchanged.

    For every draw a ring is drawn from its posterior, then the missing entries from that ring. Each ring is sampled
    once, for the rows that were drawn for it.

    Args:
        x: (..., d) evidence.
        n: draws per row; None is one draw without a leading axis.
        event: maps columns (index or name) to an `rd.Interval` or a set of categories that contains the draws.
        rng: seed, or the backend's own generator or key; None is fresh entropy (`ValueError` for JAX).

    Returns:
        (..., d), or (n, ..., d), in the rings' dtype.

    Raises:
        ValueError: if x or the event does not fit, the evidence of a row with the event has zero mass, or an observed
            entry contradicts the event.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.ones((1, 1, 1))] * 2, [rd.GaussianMixture([mean], [1.0])] * 2)
        ...     for mean in (-10.0, 10.0)
        ... )
        >>> mixture = rd.RingMixture([a, b], [0.2, 0.8])
        >>> x = mixture.sample_given([[-9.0, np.nan], [9.0, np.nan]], 1000, rng=0)
        >>> x.shape, x[..., 1].mean(axis=0).round(0)
        ((1000, 2, 2), array([-10.,  10.]))
    """
    if mixture.num_rings == 1:
        return sampling.sample_given(mixture.rings[0], x, n, event=event, rng=rng)
    if n is not None:
        _check_count(n)
    rows, shape = as_rows(mixture.rings[0], x)
    xp, (b, d), draws = namespace(rows), rows.shape, 1 if n is None else int(n)
    stream = Stream(rng, rows)
    check_observed(as_events(mixture.rings[0], event or {}), rows, np.arange(b))
    posterior = astype(stop_gradient(ring_posteriors(mixture, rows, event)), rows.dtype)
    shares = xp.broadcast_to(posterior, (draws, b, mixture.num_rings))
    ring_of = draw(shares, uniform(stream.next(), (draws, b), rows))
    if _asks_all(ring_of):
        parts = []
        for c, ring in enumerate(mixture.rings):
            if is_concrete(posterior) and not bool(xp.any(posterior[:, c] > 0)):
                parts.append(xp.broadcast_to(rows, (draws, b, d)))  # the event may be impossible in this ring
            else:
                some = possible(posterior[:, c], rows)
                parts.append(sampling.sample_given(ring, some, draws, event=event, rng=stream.next()))
        drawn = _chosen(parts, ring_of)
    else:
        drawn = _drawn_in_groups(mixture, rows, to_numpy(ring_of), event, stream)
    return xp.reshape(drawn, (*shape, d) if n is None else (draws, *shape, d))


def _drawn_in_groups(
    mixture: Mixture, rows: Array, ring_of: np.ndarray, event: Mapping[Column, Any] | None, stream: Stream
) -> Array:
    """Draws (n b, d) of rows (b, d) from the rings `ring_of` (n, b); each ring draws for its own rows only.

    The number of draws of a ring is the same for all its rows, the largest that any of them needs. Rows that need fewer
    use the first ones.
    """
    parts, places = [], []
    for c, ring in enumerate(mixture.rings):
        chosen = ring_of == c
        counts = chosen.sum(axis=0)
        used = np.flatnonzero(counts)
        if not used.shape[0]:
            continue
        some = take(rows, indices(used, rows))
        most = int(counts.max())
        drawn = sampling.sample_given(ring, some, most, event=event, rng=stream.next(), row_numbers=used)
        draw_of, row = np.nonzero(chosen)
        rank = (np.cumsum(chosen, axis=0) - 1)[draw_of, row]  # index among the draws of its row from this ring
        flat = rank * used.shape[0] + np.searchsorted(used, row)
        parts.append(take(namespace(rows).reshape(drawn, (-1, rows.shape[1])), indices(flat, rows)))
        places.append(draw_of * rows.shape[0] + row)
    if not parts:
        return rows[:0]
    return take(namespace(rows).concat(parts), indices(np.argsort(np.concatenate(places)), rows))


def _asks_all(ring_of: Array) -> bool:
    """Whether every ring draws for all rows, so that no shape depends on random numbers."""
    return backend_name(ring_of) == "jax" or not is_concrete(ring_of)


def _chosen(drawn: list[Array], ring_of: Array) -> Array:
    """The rows (..., d) from the rings that were drawn for them."""
    xp, result = namespace(ring_of), drawn[0]
    for c, rows in enumerate(drawn[1:], 1):
        result = xp.where((ring_of == c)[..., None], rows, result)
    return result


def _check_count(n: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"n must be an integer, found {n!r}")
    if n < 0:
        raise ValueError(f"n must be 0 or more, found {n}")
