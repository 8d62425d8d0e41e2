"""Gradients on the device against those of double precision on the CPU."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import torch

from ringdist.engines import budget, sweep
from ringdist.engines.choice import Engine

from . import rings
from .checks import DTYPES, LONG, SLOW_ENGINES, Row, row
from .rings import Case, leaves, relative_distance
from .session import Item, Session

ALLOWED = {"float32": 2e-3, "float64": 1e-7}  # of any parameter's gradient, relative to its length
DRAWN = 20_000  # codes behind an estimate of a gradient
Grads = list[torch.Tensor]


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for name in rings.names(options.small):
        case = rings.case(name, options.small)
        yield Item(f"gradients, {name}", functools.partial(by_engines, case, options.device))
        yield Item(f"gradients in little memory, {name}", functools.partial(in_little_memory, case, options.device))
        if case.ring.num_variables <= LONG and all("Gaussian" in type(v).__name__ for v in case.ring.variables):
            yield Item(f"gradients of samples, {name}", functools.partial(pathwise, case, options.device))
    yield Item("gradients of gradients", functools.partial(of_gradients, options.device, options.small))
    yield Item("gradients of priors", functools.partial(of_priors, options.device))
    yield Item("estimators", functools.partial(of_estimators, options.device, DRAWN // (20 if options.small else 1)))


def worst(found: Grads, expected: Grads) -> float:
    """The largest relative distance over all parameters."""
    return max(relative_distance(f, e) for f, e in zip(found, expected, strict=True))


def exact(case: Case) -> Grads:
    """On the CPU, by the engine of widest range unless entries are 0, whose gradients it lacks (docs/numerics.md)."""
    return of_likelihood(case.on("cpu", torch.float64), "sweep" if has_zeros(case) else "log")


def has_zeros(case: Case) -> bool:
    return any(isinstance(core, torch.Tensor) and bool((core == 0).any()) for core in case.ring.cores)


def of_likelihood(case: Case, engine: Any) -> Grads:
    """Of the mean log-likelihood with respect to cores, variables and x."""
    ring, parameters = leaves(case.ring)
    x = case.x.clone().requires_grad_(not case.categorical)
    wanted = [*parameters, x] if x.requires_grad else parameters
    found = torch.autograd.grad(ring.log_prob(x, engine=engine).mean(), wanted)
    return [g.nan_to_num(nan=0.0) if g is found[-1] and x.requires_grad else g for g in found]


def by_engines(case: Case, device: str) -> list[Row]:
    expected = exact(case)
    found = []
    for dtype, kind in DTYPES.items():
        there = case.on(device, kind)
        for engine in get_args(Engine):
            if engine in SLOW_ENGINES and there.ring.num_variables > LONG:
                continue
            if engine == "log" and has_zeros(case):
                continue

            def error(engine: str = engine, there: Case = there) -> float:
                return worst(of_likelihood(there, engine), expected)

            found.append(row(engine, dtype, error, ALLOWED[dtype]))
    return found


def in_little_memory(case: Case, device: str) -> list[Row]:
    """Where products are computed again in the backward pass, and where rows come in parts."""
    expected = exact(case)
    there, found = case.on(device, torch.float32), []
    for rows in (0.2, 10):
        numbers = int(rows * sweep.numbers_kept(there.ring))

        def error(numbers: int = numbers) -> float:
            with kept(numbers):
                return worst(of_likelihood(there, "auto"), expected)

        found.append(row(f"{rows:g} rows kept", "float32", error, ALLOWED["float32"]))
    return found


@contextlib.contextmanager
def kept(numbers: int) -> Iterator[None]:
    """Within it, a backward pass finds no more numbers stored."""
    before = budget.STORED
    budget.STORED = numbers
    try:
        yield
    finally:
        budget.STORED = before


def pathwise(case: Case, device: str) -> list[Row]:
    """Of samples, which are given, with respect to everything they depend on."""
    x = case.x[::2]  # rows between them may be far from where samples are
    x = x[~x.isnan().any(1)][:8]

    def found(there: Case) -> Grads:
        ring, parameters = leaves(there.ring)
        moved = ring.pathwise(x.to(there.x))
        weight = torch.linspace(-1, 1, moved.numel(), dtype=moved.dtype, device=moved.device).reshape(moved.shape)
        return list(torch.autograd.grad((moved * weight).sum(), parameters))

    expected = found(case.on("cpu", torch.float64))
    return [
        row("pathwise", dtype, lambda kind=kind: worst(found(case.on(device, kind)), expected), 10 * ALLOWED[dtype])
        for dtype, kind in DTYPES.items()
    ]


def of_gradients(device: str, small: bool) -> list[Row]:
    """Second derivatives: of the squared length of the gradient with respect to x."""
    case = rings.case("uniform ring", small)

    def found(there: Case) -> Grads:
        ring, parameters = leaves(there.ring)
        x = there.x.nan_to_num(0.5).requires_grad_()
        (first,) = torch.autograd.grad(ring.log_prob(x).sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.square().mean(), parameters))

    expected = found(case.on("cpu", torch.float64))
    return [
        row("second", dtype, lambda kind=kind: worst(found(case.on(device, kind)), expected), 5 * ALLOWED[dtype])
        for dtype, kind in DTYPES.items()
    ]


def of_priors(device: str) -> list[Row]:
    """Of log p(z), and of log p(z, y) with attributes that are partly unknown."""
    from adapters import TRIP, JointTRIP

    z = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    y = torch.stack([torch.arange(32) % 3, torch.arange(32) % 2], 1).float()
    y[::4, 0] = torch.nan

    def found(prior: Any, where: str, dtype: torch.dtype) -> Grads:
        prior = prior.to(where, dtype)
        rows = (z, y) if isinstance(prior, JointTRIP) else (z,)
        value = prior.log_prob(*(part.to(where, dtype) for part in rows)).mean()
        return [value, *torch.autograd.grad(value, list(prior.parameters()))]

    makers: dict[str, Callable[[], Any]] = {
        "TRIP": lambda: TRIP(6, 4, 5, seed=1, nonnegative="abs"),
        "TRIP, train": lambda: TRIP(6, 4, 5, seed=1, topology="train"),
        "TRIP, softplus": lambda: TRIP(6, 4, 5, seed=1, nonnegative="softplus"),
        "JointTRIP": lambda: JointTRIP(6, [3, 2], 4, 5, seed=2),
    }
    rows = []
    for name, make in makers.items():
        expected = found(make(), "cpu", torch.float64)
        for dtype, kind in DTYPES.items():

            def error(make: Any = make, kind: torch.dtype = kind, expected: Grads = expected) -> float:
                return worst(found(make(), device, kind), expected)

            rows.append(row(name, dtype, error, ALLOWED[dtype]))
    return rows


def of_estimators(device: str, n: int) -> list[Row]:
    """Estimates of the gradient of E[w · z], whose exact value is that of the mean; what is left is their variance."""
    from adapters import TRIP, expected_reward

    weight = torch.linspace(-1, 1, 6)

    def prior(where: str) -> Any:
        return TRIP(6, 4, 5, seed=1, mean_range=(-1.5, 1.5)).to(where)

    here = prior("cpu")
    true = torch.autograd.grad(here.ring.mean() @ weight, list(here.parameters()))
    rows = []
    for estimator in ("reinforce", "hybrid", "pathwise"):

        def error(estimator: Any = estimator) -> float:
            there = prior(device)
            torch.manual_seed(0)
            value = expected_reward(there, lambda z: z @ weight.to(z), n, estimator)
            found = torch.autograd.grad(value, list(there.parameters()), allow_unused=True)
            found = [torch.zeros_like(p) if g is None else g for g, p in zip(found, there.parameters(), strict=True)]
            return relative_distance(list(found), list(true))

        rows.append(row(estimator, "float32", error, 20 * n**-0.5))
    return rows
