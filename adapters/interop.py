"""Priors trained with other code: the paper's official TRIP module and GENTRL's prior.

In both, the entries of the ring are the *squares* of the stored cores, and `log_stds` are used as natural logarithms of
standard deviations, although their initial values suggest squares. Both add 1e-10 to every component's density, and
again in the normalisation. Here nothing is added, so log-densities agree where densities are much larger than that. A
state dict contains `parameters.0`, `parameters.1`, ...: means and log_stds (N,) of each continuous variable in turn,
then one core (N, m, m) for each variable. It contains neither the order of the variables nor their types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from adapters.priors.base import check_option, integer_of
from adapters.priors.joint import JointTRIP
from adapters.priors.trip import TRIP


def trip_from_official(state_dict: Mapping[str, Tensor], *, categorical: Sequence[int] = ()) -> TRIP | JointTRIP:
    """The prior of a state dict of the paper's official TRIP module (insilicomedicine/TRIP), a ring in file order.

    Args:
        state_dict: `module.state_dict()`.
        categorical: indices of the discrete variables.

    Returns:
        A `TRIP`. With discrete variables a `JointTRIP`: the continuous variables are its latents, and the discrete ones
        its attributes, each in the order of the state dict. Parameters have the dtype of the state dict.

    Raises:
        ValueError: if names or shapes are not those of such a state dict, or the continuous variables differ in N.
        TypeError: if an index is not an integer.

    Examples:
        >>> import torch
        >>> from adapters.interop import trip_from_official
        >>> tensors = [*(torch.randn(3) for _ in range(4)), torch.rand(3, 2, 2), torch.rand(3, 2, 2)]
        >>> prior = trip_from_official({f"parameters.{i}": tensor for i, tensor in enumerate(tensors)})
        >>> prior.num_latents, prior.num_components, prior.ranks
        (2, 3, (2, 2))
    """
    return _converted(state_dict, categorical, None, "ring")


def trip_from_gentrl(
    state_dict: Mapping[str, Tensor],
    *,
    categorical: Sequence[int] = (),
    order: Sequence[int] | None = None,
    topology: Literal["train", "ring"] = "train",
) -> TRIP | JointTRIP:
    """The prior of a state dict of GENTRL's `LP` module (insilicomedicine/GENTRL, Zhavoronkov et al. 2019).

    GENTRL sums over both end bonds of a train in every query. Here they are summed once, so the end bond has rank 1.

    Args:
        state_dict: `module.state_dict()`.
        categorical: indices of the discrete variables.
        order: `module.order`, the order of the variables, which GENTRL saves separately.
        topology: `module.tt_type`, with "train" for "usual".

    Returns:
        As `trip_from_official`.

    Raises:
        ValueError: if names, shapes or order do not fit, or the continuous variables differ in N.
        TypeError: if an index is not an integer.

    Examples:
        >>> import torch
        >>> from adapters.interop import trip_from_gentrl
        >>> tensors = [*(torch.randn(3) for _ in range(4)), torch.rand(3, 2, 2), torch.rand(3, 2, 2)]
        >>> state = {f"parameters.{i}": tensor for i, tensor in enumerate(tensors)}
        >>> trip_from_gentrl(state, order=[1, 0]).ranks
        (1, 2)
    """
    check_option("topology", topology, ("train", "ring"))
    return _converted(state_dict, categorical, order, topology)


def _converted(
    state_dict: Mapping[str, Tensor], categorical: Sequence[int], order: Sequence[int] | None, topology: str
) -> TRIP | JointTRIP:
    means, log_stds, cores, discrete = _parts(state_dict, categorical)
    d = len(cores)
    columns = list(range(d)) if order is None else [integer_of("an entry of order", k, least=0) for k in order]
    if sorted(columns) != list(range(d)):
        raise ValueError(f"order must be a permutation of the {d} variables, found {columns}")
    cores = [core**2 for core in cores]
    if topology == "train":
        first, last = columns[0], columns[-1]
        cores[first] = cores[first].sum(1, keepdim=True)
        cores[last] = cores[last].sum(2, keepdim=True)
    ranks = [cores[k].shape[1] for k in columns]
    latents_first = [k for k in range(d) if k not in discrete] + sorted(discrete)
    place = {k: i for i, k in enumerate(latents_first)}
    ring_order = [place[k] for k in columns]
    size, sizes = means.shape[1], [cores[k].shape[0] for k in sorted(discrete)]
    prior: TRIP | JointTRIP = (
        JointTRIP(len(means), sizes, size, ranks, ring_order, nonnegative="abs")
        if discrete
        else TRIP(len(means), size, ranks, ring_order, nonnegative="abs")
    )
    prior.to(means.dtype)
    prior._write([{"core": cores[k]} for k in latents_first], means, log_stds, ring_order)
    return prior


def _parts(
    state_dict: Mapping[str, Tensor], categorical: Sequence[int]
) -> tuple[Tensor, Tensor, list[Tensor], set[int]]:
    """Means and log_stds (c, N), cores, and the indices of the discrete variables."""
    count = len(state_dict)
    discrete = {integer_of("an entry of categorical", k, least=0) for k in categorical}
    if set(state_dict) != {f"parameters.{i}" for i in range(count)}:
        raise ValueError(f"names must be parameters.0, parameters.1, ..., found {sorted(state_dict)[:5]}")
    tensors = [state_dict[f"parameters.{i}"].detach() for i in range(count)]
    d, rest = divmod(count + 2 * len(discrete), 3)
    if rest or d <= len(discrete) or max(discrete, default=-1) >= d:
        raise ValueError(
            f"there must be two vectors per continuous variable and one core per variable, found {count} tensors "
            f"and {len(discrete)} discrete variables {sorted(discrete)}"
        )
    vectors, cores = tensors[: count - d], tensors[count - d :]
    _check_shapes(vectors, cores, discrete)
    return torch.stack(vectors[0::2]), torch.stack(vectors[1::2]), cores, discrete


def _check_shapes(vectors: Sequence[Tensor], cores: Sequence[Tensor], discrete: set[int]) -> None:
    rank = cores[0].shape[-1] if cores[0].ndim else 1
    for k, core in enumerate(cores):
        if core.ndim != 3 or tuple(core.shape[1:]) != (rank, rank):
            raise ValueError(f"variable {k}: a core must have shape (N, {rank}, {rank}), found {tuple(core.shape)}")
    continuous = [k for k in range(len(cores)) if k not in discrete]
    size = cores[continuous[0]].shape[0]
    for i, vector in enumerate(vectors):
        k = continuous[i // 2]
        if tuple(vector.shape) != (cores[k].shape[0],) or vector.shape[0] != size:
            raise ValueError(
                f"variable {k}: means and log_stds must have as many entries as its core, and all continuous "
                f"variables as many, {size}; found {tuple(vector.shape)} and a core of {cores[k].shape[0]}"
            )
