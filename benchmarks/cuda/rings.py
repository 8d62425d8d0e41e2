"""The rings on which a GPU is compared with the CPU, in all their kinds and extremes."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

import ringdist as rd

KINDS = ("dense", "cp")  # of cores
ROWS = 48
MISSING = 0.3  # share of the entries of every third row


class Case(NamedTuple):
    """A ring in single precision on the CPU, and rows to ask it about, some of them with missing entries."""

    ring: Any
    x: torch.Tensor

    def on(self, device: str, dtype: torch.dtype) -> "Case":
        """The same numbers in another place."""
        return Case(self.ring.to(dtype=dtype, device=device), self.x.to(device, dtype))

    @property
    def categorical(self) -> bool:
        return all(isinstance(v, rd.Categorical) for v in self.ring.variables)


@functools.cache
def case(name: str, small: bool) -> Case:
    """The ring of this name with rows drawn from it; made once."""
    ring = MAKERS[name](small)
    generator = torch.Generator().manual_seed(1)
    x = ring.to(dtype=torch.float64).sample(ROWS, rng=2).float()
    hidden = torch.rand(x.shape, generator=generator) < MISSING
    hidden[torch.arange(ROWS) % 3 > 0] = False
    x = x.masked_fill(hidden, torch.nan)
    return Case(ring, FAR[name](x) if name in FAR else x)


def names(small: bool) -> list[str]:
    """All rings; in a dry run some."""
    left_out = {"train", "mostly zeros", "decoupled", "long ring"} if small else set()
    return [name for name in MAKERS if name not in left_out]


def gaussians(d: int, n: int = 4, spread: float = 3.0) -> list[Any]:
    generator = torch.Generator().manual_seed(d)
    means = spread * torch.randn(d, n, generator=generator)
    stds = 0.5 + torch.rand(d, n, generator=generator)
    return [rd.GaussianMixture(mean, std, name=f"g{k}") for k, (mean, std) in enumerate(zip(means, stds, strict=True))]


def mixed(d: int) -> list[Any]:
    generator = torch.Generator().manual_seed(d)
    found: list[Any] = gaussians(d)
    for k in range(1, d, 3):
        found[k] = rd.Categorical(3 + k % 3, name=f"c{k}")
    for k in range(2, d, 3):
        found[k] = rd.PoissonMixture(1 + 8 * torch.rand(3, generator=generator), name=f"p{k}")
    return found


def random(variables: Sequence[Any], rank: Any, **options: Any) -> Any:
    return rd.TensorRing.random(variables, rank, rng=3, xp=torch, dtype=torch.float32, **options)


def uneven(d: int) -> Any:
    generator = torch.Generator().manual_seed(4)
    ranks = [2 + (5 * k) % 7 for k in range(d)]
    return random(mixed(d), ranks, order=torch.randperm(d, generator=generator).tolist())


def extreme(d: int) -> Any:
    """Cores whose scales differ by 60 orders of magnitude: no product of two of them keeps within single precision."""
    ring = random(gaussians(d), 4)
    scales = [(1e30, 1e-30, 1e25, 1e-18)[k % 4] for k in range(d)]
    return rd.TensorRing([core * s for core, s in zip(ring.cores, scales, strict=True)], ring.variables)


def decoupled(d: int) -> Any:
    """Two worlds that never meet, of which one takes over by far: what the other contributes must not be lost."""
    ring = random(gaussians(d), 4)
    worlds = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
    scale = torch.where(torch.arange(4) < 2, 1.0, 1e-3)[None, :, None]
    return rd.TensorRing([core * worlds * scale for core in ring.cores], ring.variables)


def zeros(d: int) -> Any:
    """Cores of which most entries are zero."""
    ring = random(mixed(d), 6)
    generator = torch.Generator().manual_seed(5)
    kept = [torch.rand(core.shape, generator=generator) < 0.35 for core in ring.cores]
    kept = [mask | (torch.eye(core.shape[1], core.shape[2]) > 0) for mask, core in zip(kept, ring.cores, strict=True)]
    return rd.TensorRing([core * mask for core, mask in zip(ring.cores, kept, strict=True)], ring.variables)


MAKERS: dict[str, Callable[[bool], Any]] = {
    "table": lambda small: random([rd.Categorical(3, name=f"c{k}") for k in range(5)], 4),
    "uniform ring": lambda small: random(gaussians(4 if small else 12), 8),
    "train": lambda small: random(gaussians(5 if small else 11), 8, topology="train"),
    "uneven ranks": lambda small: uneven(4 if small else 9),
    "mixed families": lambda small: random(mixed(5 if small else 12), 7),
    "CP cores": lambda small: random(mixed(5 if small else 12), 8, core="cp", inner=6),
    "mostly zeros": lambda small: zeros(4 if small else 9),
    "extreme scales": lambda small: extreme(6 if small else 12),
    "decoupled": lambda small: decoupled(8 if small else 300),
    "long ring": lambda small: random(gaussians(20 if small else 1000), 6),
}
# Rows far from all components, where densities leave the range of single precision.
FAR: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "extreme scales": lambda x: torch.where(torch.arange(len(x))[:, None] % 2 > 0, 40 * x, x),
}


def leaves(ring: Any) -> tuple[Any, list[torch.Tensor]]:
    """The ring again, of copies that record gradients, and those copies: cores first, then arrays of variables."""
    parameters: list[torch.Tensor] = []

    def leaf(array: torch.Tensor) -> torch.Tensor:
        parameters.append(array.detach().clone().requires_grad_())
        return parameters[-1]

    cores = [leaf(core) if isinstance(core, torch.Tensor) else with_each(core, leaf) for core in ring.cores]
    variables = [
        type(v)(**{name: leaf(array) for name, array in v.arrays().items()}, name=v.name) if v.arrays() else v
        for v in ring.variables
    ]
    return rd.TensorRing(cores, variables, ring.order, validate=False), parameters


def with_each(core: rd.CPCore, change: Callable[[torch.Tensor], torch.Tensor]) -> rd.CPCore:
    """The core with its factors changed."""
    return core.with_arrays({name: change(array) for name, array in core.arrays().items()})


def wide(values: Any) -> Any:
    """Any array, number or nested sequence of them as one flat row in double precision on the CPU."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().reshape(-1)
    if isinstance(values, list | tuple):
        return torch.cat([wide(value) for value in values])
    return torch.tensor([float(values)], dtype=torch.float64)


def distance(found: Any, expected: Any) -> float:
    """The largest difference relative to 1 + |expected|; infinite where one is NaN, or an infinity is not met."""
    found, expected = wide(found), wide(expected)
    if found.shape != expected.shape:
        return math.inf
    same = (found == expected) | (found.isnan() & expected.isnan())
    error = ((found - expected).abs() / (1 + expected.abs())).masked_fill(same, 0.0)
    return float(error.nan_to_num(nan=math.inf, posinf=math.inf).max()) if len(error) else 0.0


def relative_distance(found: Any, expected: Any) -> float:
    """The length of the difference relative to the length of what is expected."""
    found, expected = wide(found), wide(expected)
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))
