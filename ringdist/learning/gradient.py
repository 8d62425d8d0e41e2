"""Maximum likelihood by stochastic gradients, with any optimiser of PyTorch or optax.

The optimiser works on unconstrained numbers: logarithms of the cores and of the parameters that a family declares
`positive`; other parameters are unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ringdist.backend import Array, backend_name, dtype_name, is_concrete, namespace, stop_gradient
from ringdist.learning.data import TrainingData
from ringdist.learning.fitting import EpochLog, FitResult, best_of, check_options, numpy_generator
from ringdist.learning.starts import random_like
from ringdist.network.structure import mapped
from ringdist.queries.log_prob import log_prob
from ringdist.ring import TensorRing
from ringdist.variables import as_family

Parameters = list[Any]


def fit_gradient(
    ring: TensorRing,
    x: Any,
    optimizer: Any,
    *,
    sample_weight: Any = None,
    validation: Any = None,
    max_epochs: int = 100,
    batch_size: int | None = 128,
    restarts: int = 1,
    patience: int | None = 10,
    rng: Any = None,
    progress: bool = False,
) -> FitResult:
    """Fit a PyTorch or JAX ring by gradient ascent on the mean log-likelihood, starting from `ring`.

    Args:
        ring: the starting point; zero core entries stay zero.
        x: (n, d) data, NaN where missing. NumPy, including memmaps, or the ring's backend.
        optimizer: for PyTorch a function from a list of parameters to a `torch.optim.Optimizer`, such as
            `lambda p: torch.optim.Adam(p, lr=0.01)`; for JAX an optax `GradientTransformation`.
        batch_size: rows per step, None for all.
        sample_weight, validation, max_epochs, restarts, patience, rng, progress: as in `fit_em`.

    Returns:
        The fitted ring, its arrays without gradients, and the history of mean log-likelihoods per row.

    Raises:
        TypeError: if the ring is a NumPy ring, which has no gradients.
        ValueError: if x or an option does not fit.
        FloatingPointError: if the likelihood of a batch is not finite; lower the learning rate.

    Examples:
        >>> import torch
        >>> import ringdist as rd
        >>> x = torch.randint(2, (200, 1), generator=torch.Generator().manual_seed(0)).repeat(1, 3)
        >>> start = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, xp=torch, rng=0)
        >>> def adam(parameters):
        ...     return torch.optim.Adam(parameters, lr=0.1)
        >>> ring, history = rd.fit_gradient(start, x, adam, max_epochs=5, rng=0)
        >>> history["train"][-1] > history["train"][0]
        True
    """
    check_options(max_epochs, batch_size, patience, restarts)
    backend = backend_name(ring.prototype)
    if backend == "numpy":
        raise TypeError("fit_gradient needs a PyTorch or JAX ring, found NumPy; use ring.to(torch), or fit_em")
    if not is_concrete(*ring.core_arrays()):
        raise ValueError("fit_gradient cannot be traced")
    data = TrainingData(ring, x, sample_weight)
    held_out = None if validation is None else TrainingData(ring, validation, label="validation")
    generator = numpy_generator(rng, ring, draws=batch_size is not None or restarts > 1)
    make_step = _torch_step if backend == "torch" else _jax_step

    def fit(restart: int) -> EpochLog:
        start = ring if restart == 0 else random_like(ring, generator)
        track = EpochLog(held_out, patience, max_epochs, progress)
        return _run(start, data, track, make_step(start, optimizer), batch_size, generator)

    return best_of(ring, restarts, fit)


def _run(
    ring: TensorRing,
    data: TrainingData,
    track: EpochLog,
    step: Callable[[Array, Array], tuple[float, Parameters]],
    batch_size: int | None,
    rng: np.random.Generator,
) -> EpochLog:
    track.best, parameters = ring, None
    for epoch in track.epochs():
        for index in data.batches(batch_size or data.num_rows, rng):
            if not np.asarray(data.weight[index], dtype=dtype_name(ring.prototype.dtype)).any():
                continue
            rows, weight = data.batch(ring, index)
            value, parameters = step(rows, weight)
            if not np.isfinite(value):
                raise FloatingPointError(f"the likelihood of a batch became {value} in epoch {epoch + 1}")
        if parameters is not None:
            current = _to_ring(ring, [stop_gradient(p) for p in parameters], copy=True)
            track.record(current, data.mean_log_prob(current))
    return track


def _torch_step(ring: TensorRing, optimizer: Any) -> Callable[[Array, Array], tuple[float, Parameters]]:
    parameters = [p.clone().requires_grad_() for p in _to_parameters(ring)]
    moving = optimizer(parameters)

    def step(rows: Array, weight: Array) -> tuple[float, Parameters]:
        moving.zero_grad()
        loss = _loss(_to_ring(ring, parameters), rows, weight)
        loss.backward()
        moving.step()
        return -float(loss.detach()), parameters

    return step


def _jax_step(ring: TensorRing, optimizer: Any) -> Callable[[Array, Array], tuple[float, Parameters]]:
    jax = sys.modules["jax"]
    parameters = _to_parameters(ring)
    state = optimizer.init(parameters)

    def update(parameters: Parameters, state: Any, rows: Array, weight: Array) -> Any:
        loss, gradient = jax.value_and_grad(lambda p: _loss(_to_ring(ring, p), rows, weight))(parameters)
        changes, state = optimizer.update(gradient, state, parameters)
        return loss, [p + change for p, change in zip(parameters, changes, strict=True)], state

    compiled = jax.jit(update)

    def step(rows: Array, weight: Array) -> tuple[float, Parameters]:
        nonlocal parameters, state
        loss, parameters, state = compiled(parameters, state, rows, weight)
        return -float(loss), parameters

    return step


def _loss(ring: TensorRing, rows: Array, weight: Array) -> Array:
    """Weighted mean of −log p(row); a row of weight 0 observes nothing and has neither value nor gradient."""
    xp = namespace(rows)
    rows = xp.where(weight[:, None] > 0, rows, xp.nan)
    return -xp.sum(log_prob(ring, rows) * weight) / xp.sum(weight)


def _to_parameters(ring: TensorRing) -> Parameters:
    parameters = [_log(stop_gradient(factor)) for core in ring.links for factor in core.arrays().values()]
    for variable in ring.variables:
        family = as_family(variable)
        for name, array in family.free_arrays().items():
            parameters.append(_log(stop_gradient(array)) if name in family.positive else stop_gradient(array))
    return parameters


def _to_ring(ring: TensorRing, parameters: Parameters, *, copy: bool = False) -> TensorRing:
    """The ring of these parameters, unchecked; with `copy` none of its arrays is one that the optimiser moves."""
    xp = namespace(ring.prototype)
    values = iter(parameters)
    cores = [mapped(core, lambda _: xp.exp(next(values))) for core in ring.links]
    variables = []
    for variable in ring.variables:
        family, arrays = as_family(variable), {}
        for name in family.free_arrays():
            value = next(values)
            arrays[name] = xp.exp(value) if name in family.positive else xp.asarray(value, copy=True) if copy else value
        variables.append(family.with_free_arrays(arrays).variable)
    return ring.with_values(cores, variables)


def _log(array: Array) -> Array:
    xp = namespace(array)
    return xp.where(array > 0, xp.log(xp.where(array > 0, array, 1.0)), -xp.inf)
