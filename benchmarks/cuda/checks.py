"""Every engine and every query on the device against double precision on the CPU."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, get_args

import torch

import ringdist as rd
from ringdist.engines.choice import Engine

from . import rings
from .rings import Case, distance, wide
from .session import Item, OutOfTime, Session, explained

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES = {"float32": 3e-4, "float64": 1e-8}  # relative to 1 + |value|
LONG = 100  # columns beyond which only those queries are asked whose cost is linear in them
SLOW_ENGINES = ("opt_einsum", "tensornetwork")
Row = dict[str, Any]


class Query(NamedTuple):
    """What is asked, and of which rings."""

    ask: Callable[[Case], Any]
    suits: Callable[[Case], bool] = lambda case: True
    linear: bool = False  # whether its cost is linear in the columns
    error: Callable[[Any, Any], float] = distance  # of what is found and what is expected
    allowed: float | None = None  # None: the tolerance of the dtype


def row(name: str, dtype: str, measure: Callable[[], float], tolerance: float) -> Row:
    """The error of one check and whether it is small enough; an exception is a failed check."""
    found: Row = {"check": name, "dtype": dtype, "error": None, "allowed": tolerance}
    try:
        found["error"] = error = measure()
    except OutOfTime:
        raise
    except Exception as problem:  # whatever it is, the other checks are made
        return found | {"ok": "no", "message": explained(problem)}
    return found | {"ok": "yes" if error <= tolerance else "no"}


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for name in rings.names(options.small):
        case = rings.case(name, options.small)
        yield Item(f"log_prob, {name}", functools.partial(engines, case, options.device))
        for query, asked in QUERIES.items():
            if asked.suits(case) and (asked.linear or case.ring.num_variables <= LONG):
                yield Item(f"{query}, {name}", functools.partial(compared, query, case, options.device))


def engines(case: Case, device: str) -> list[Row]:
    """log p of all rows by each engine."""
    exact = case.on("cpu", torch.float64)
    expected = exact.ring.log_prob(exact.x, engine="log")
    found = []
    for dtype, kind in DTYPES.items():
        there = case.on(device, kind)
        for engine in get_args(Engine):
            if engine in SLOW_ENGINES and there.ring.num_variables > LONG:
                continue

            def error(engine: Any = engine, there: Case = there) -> float:
                return distance(there.ring.log_prob(there.x, engine=engine), expected)

            found.append(row(engine, dtype, error, TOLERANCES[dtype]))
    return found


def compared(query: str, case: Case, device: str) -> list[Row]:
    """A query in both precisions against the CPU."""
    ask, allowed = QUERIES[query].ask, QUERIES[query].allowed
    expected = ask(case.on("cpu", torch.float64))

    def error(kind: torch.dtype) -> float:
        return QUERIES[query].error(ask(case.on(device, kind)), expected)

    return [
        row(query, dtype, functools.partial(error, kind), TOLERANCES[dtype] if allowed is None else allowed)
        for dtype, kind in DTYPES.items()
    ]


# ------------------------------------------------------------------------------------------------------------- queries


def some(case: Case, count: int = 3) -> list[int]:
    """A few columns, the first and the last among them."""
    d = case.ring.num_variables
    return sorted({0, d // 2, d - 1} if count == 3 else set(range(min(d, count))))


def posteriors(case: Case) -> Any:
    return [case.ring.component_posterior(k, case.x) for k in some(case)]


def cdfs(case: Case) -> Any:
    rows = case.x[~case.x.isnan().any(1)]
    return [case.ring.cdf(k, rows) for k in some(case)]


def quantiles(case: Case) -> Any:
    q = torch.linspace(0.05, 0.95, len(case.x), dtype=case.x.dtype, device=case.x.device)
    return [case.ring.quantile(k, q, case.x) for k in some(case)]


def best(case: Case) -> Any:
    """How probable the completions found are: equally good ones may differ."""
    exact = case.ring.to(dtype=torch.float64, device="cpu")
    found = case.ring.mode(case.x[:7:2])
    return exact.log_prob(found.cpu().double())


def shortfall(found: Any, expected: Any) -> float:
    """The most nats by which a completion is worse than expected; infinite where one is NaN or has no mass."""
    missing = wide(expected) - wide(found)
    return float(missing.clamp(min=0.0).nan_to_num(nan=math.inf, posinf=math.inf).max())


def marginals(case: Case) -> Any:
    keep = list(range(0, case.ring.num_variables, 2))
    return case.ring.marginal(keep).log_prob(case.x[:, keep])


def conditionals(case: Case) -> Any:
    given = list(range(0, case.ring.num_variables, 2))
    rest = [k for k in range(case.ring.num_variables) if k not in given]
    known = case.x[1]  # a complete row
    return case.ring.condition({k: float(known[k]) for k in given}).log_prob(case.x[:, rest])


def products(case: Case) -> Any:
    other = rd.TensorRing([core.flip(0) for core in case.ring.cores], case.ring.variables, case.ring.order)
    return [case.ring.inner(case.ring).log(), case.ring.inner(other).log()]  # of numbers that can be small


def dense_cores(case: Case) -> bool:
    return all(isinstance(core, torch.Tensor) for core in case.ring.cores)


def fitted_by_em(case: Case) -> Any:
    """The likelihoods on the way, and where two visits of exact EM lead."""
    result = rd.fit_em(case.ring, case.x, max_epochs=2, rng=0)
    return [*result.history["train"], result.ring.log_prob(case.x)]


def fitted_by_gradients(case: Case) -> Any:
    result = rd.fit_gradient(
        case.ring, case.x, lambda p: torch.optim.Adam(p, lr=0.01), max_epochs=3, batch_size=None, rng=0
    )
    return result.history["train"]


QUERIES: dict[str, Query] = {
    "log_normalizer": Query(lambda c: c.ring.log_normalizer(), linear=True),
    "component_posterior": Query(posteriors, linear=True),
    "mean": Query(lambda c: [c.ring.mean(), c.ring.mean(c.x)], linear=True),
    "covariance": Query(lambda c: c.ring.covariance()),
    "mutual_information": Query(lambda c: c.ring.mutual_information()),
    "cdf": Query(cdfs, linear=True),
    "quantile": Query(quantiles),
    # A search from random starts, which two devices draw differently: it may end in another local maximum, which must
    # not be worse. On the CPU, over six seeds and all rings, completions differ by 0.023 nats at most.
    "mode": Query(best, lambda c: c.ring.num_variables <= 12, error=shortfall, allowed=0.05),
    "marginal": Query(marginals, linear=True),
    "condition": Query(conditionals, linear=True),
    "inner": Query(products, lambda c: dense_cores(c) and c.ring.num_variables <= 12),
    "to_dense": Query(lambda c: c.ring.to_dense(), lambda c: c.categorical),
    "to_train": Query(lambda c: c.ring.to_train().log_prob(c.x), lambda c: max(c.ring.ranks) <= 4 and dense_cores(c)),
    "permute": Query(lambda c: c.ring.permute(range(c.ring.num_variables)[::-1]).log_prob(c.x.flip(1)), linear=True),
    "entropy": Query(lambda c: c.ring.entropy(10, rng=0)[0], lambda c: c.categorical),
    "fit_em": Query(fitted_by_em, lambda c: c.ring.num_variables <= 12),
    "fit_gradient": Query(fitted_by_gradients, lambda c: c.ring.num_variables <= 12),
}
