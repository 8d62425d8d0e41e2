"""Whether what samplers of the device draw has the ring's distribution, by the CPU's distribution functions.

With x_k given the columns before it, u_k = F_k(x_k | x_<k) is uniform (Rosenblatt 1952); a value of an integer column
is spread over its step. The error is √n times the largest distance of the u_k from uniform, over columns, which is
beyond 2.7 once in a million times.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

import ringdist as rd

from . import rings
from .checks import LONG, Row, row
from .rings import Case
from .session import Item, Session

ALLOWED = 2.7
SMALL, LARGE = 400, 4000  # rows drawn, few in a dry run and of long rings, which take the CPU long to judge
COLUMNS, FEW = 12, 3  # so many columns are looked at at most, of long rings


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for name in rings.names(options.small):
        case = rings.case(name, options.small)
        n = SMALL if options.small or case.ring.num_variables > LONG else LARGE
        yield Item(f"sample, {name}", functools.partial(unconditional, case, options.device, n))
        yield Item(f"sample_given, {name}", functools.partial(conditional, case, options.device, n))
    yield Item("sample, priors", functools.partial(priors, options.device, SMALL if options.small else LARGE))


def unconditional(case: Case, device: str, n: int) -> list[Row]:
    """Samples of the ring; of a table also the counts of all cells."""
    found = []
    exact = case.on("cpu", torch.float64).ring
    for dtype in (torch.float32, torch.float64):
        ring = case.on(device, dtype).ring
        name = str(dtype).removeprefix("torch.")
        found.append(row("sample", name, lambda ring=ring: unlikeliness(exact, ring.sample(n, rng=7)), ALLOWED))
    if case.categorical:
        ring = case.on(device, torch.float32).ring
        found.append(row("cells", "float32", lambda: cells(exact, ring.sample(4 * n, rng=8)), 5.0))
    return found


def conditional(case: Case, device: str, n: int) -> list[Row]:
    """The missing entries of one row, drawn many times, and of many rows at once."""
    exact = case.on("cpu", torch.float64)
    there = case.on(device, torch.float32)
    partly = case.x.isnan().any(1)
    place = int(partly.nonzero()[0])
    missing = case.x[place].isnan().nonzero()[:, 0].tolist()

    def many() -> float:
        drawn = there.ring.sample_given(there.x[place], n, rng=9)
        return unlikeliness(exact.ring, drawn, missing)

    def rows() -> float:
        every = there.x[partly].repeat(max(1, n // int(partly.sum())), 1)
        drawn = there.ring.sample_given(every, rng=10).cpu()
        kept = ~every.cpu().isnan()
        if not torch.equal(drawn[kept], every.cpu()[kept]):
            return math.inf  # observed entries come back unchanged
        return unlikeliness(exact.ring, drawn, missing, every.isnan().cpu())

    return [row("of one row", "float32", many, ALLOWED), row("of many rows", "float32", rows, ALLOWED)]


def priors(device: str, n: int) -> list[Row]:
    """Codes of priors, free and given attributes."""
    from adapters import TRIP, JointTRIP

    trip, joint = TRIP(6, 4, 5, seed=1).to(device), JointTRIP(5, [3, 2], 4, 5, seed=2).to(device)
    exact = trip.ring.detach().to(dtype=torch.float64, device="cpu")
    whole = joint.ring.detach().to(dtype=torch.float64, device="cpu")
    y = torch.tensor([2.0, 1.0])

    def given() -> float:
        codes = joint.sample(n, y.to(device)).cpu()
        rows = torch.cat([codes, y.expand(n, -1)], 1)
        return unlikeliness(whole, rows, list(range(5)), torch.arange(7).expand(n, -1) < 5)

    checks: dict[str, Callable[[], float]] = {
        "TRIP.sample": lambda: unlikeliness(exact, trip.sample(n)),
        "TRIP.sample_components": lambda: unlikeliness(exact, trip.sample_components(n)[0]),
        "TRIP.rsample": lambda: unlikeliness(exact, trip.rsample(n)),
        "JointTRIP.sample": given,
    }
    return [row(name, "float32", check, ALLOWED) for name, check in checks.items()]


# ------------------------------------------------------------------------------------------------------------- measures


@torch.no_grad()
def unlikeliness(
    exact: Any, x: torch.Tensor, columns: Sequence[int] | None = None, drawn: torch.Tensor | None = None
) -> float:
    """√n times the largest Kolmogorov-Smirnov distance of the u_k of some columns from uniform.

    Args:
        exact: the ring in double precision on the CPU.
        x: rows (n, d).
        columns: those looked at; None: all, or of many some.
        drawn: (n, d), which entries were drawn; None: all in those columns. The other ones are evidence.
    """
    x = x.detach().cpu().double()
    if not bool(x.isfinite().all()):
        return math.inf
    d = x.shape[1]
    drawn = torch.ones_like(x, dtype=torch.bool) if drawn is None else drawn
    if columns is not None:
        others = torch.ones(d, dtype=torch.bool)
        others[list(columns)] = False
        drawn = drawn & ~others if bool(drawn.all()) else drawn
    columns = range(d) if columns is None else columns
    step = max(1, len(columns) // (COLUMNS if d <= LONG else FEW))
    return max(_distance(exact, x, k, drawn) for k in list(columns)[::step])


def _distance(exact: Any, x: torch.Tensor, k: int, drawn: torch.Tensor) -> float:
    chosen = drawn[:, k]
    later = drawn & (torch.arange(x.shape[1]) > k)
    rows = x.masked_fill(later, torch.nan)[chosen]
    u = exact.cdf(k, rows)
    if isinstance(exact.variables[k], rd.Categorical | rd.PoissonMixture):
        below = rows.clone()
        below[:, k] = (below[:, k] - 1).clamp(min=0)
        lower = exact.cdf(k, below).masked_fill(rows[:, k] == 0, 0.0)
        share = torch.rand(len(u), generator=torch.Generator().manual_seed(10**6 + k), dtype=u.dtype)
        u = lower + share * (u - lower)
    n = len(u)
    u = u.sort().values
    steps = torch.arange(n + 1, dtype=u.dtype) / n
    return math.sqrt(n) * float(torch.maximum(u - steps[:-1], steps[1:] - u).max())


def cells(exact: Any, x: torch.Tensor) -> float:
    """How many standard deviations χ² of the counts of all cells is above its mean."""
    table = exact.to_dense()
    place = torch.zeros(len(x), dtype=torch.long)
    for k, size in enumerate(table.shape):
        place = place * size + x[:, k].cpu().long()
    expected = len(x) * table.reshape(-1)
    counts = torch.bincount(place, minlength=len(expected)).double()
    often = expected >= 5
    counts = torch.cat([counts[often], counts[~often].sum()[None]])
    expected = torch.cat([expected[often], expected[~often].sum()[None]]).clamp(min=1e-9)
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))
