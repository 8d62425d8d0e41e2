"""Random rings of every kind and at every scale of the dtype, all queries, against enumeration in log space.

What may differ is rounding: of logarithms of cores (at most 709 each in float64, 88 in float32), of log-densities
(relative, so that far points are compared relative to their surprise), and of the result.
"""

import math

import numpy as np
import pytest

from tests import oracle
from tests.backends import load_backend
from tests.log_oracle import Table, log_dense
from tests.oracle import Case, Column
from tests.structured import PATTERNS, Structured, make_structured

pytestmark = pytest.mark.slow_on("jax")

TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
RANGE = {"float32": 37, "float64": 300}
SCALES = ("plain", "within", "between", "bonds", "one large", "one small", "zeros", "worlds", "subnormal", "edge")
KINDS = ("categorical", "gaussian", "poisson", "laplace")


def scaled_factor(array, scale, reach, tiny, rng):
    """A factor of random numbers at another scale."""
    ten = lambda size: 10.0 ** rng.uniform(-reach, reach, size)  # noqa: E731
    match scale:
        case "within":
            return ten(array.shape)
        case "between":
            return array * ten(())
        case "bonds":
            return (
                array * 10.0 ** rng.uniform(-reach / 2, reach / 2, (*array.shape[:-1], 1)[-2:])
                if array.ndim == 2
                else (array * 10.0 ** rng.uniform(-reach / 2, reach / 2, (1, array.shape[1], 1)))
            )
        case "one large" | "one small":
            array = array.copy()
            sign = 1 if scale == "one large" else -1
            array.flat[rng.integers(array.size)] = 10.0 ** (sign * rng.uniform(0, reach))
            return array
        case "zeros":
            keep = rng.random(array.shape) < 0.6
            keep.flat[0] = True
            return np.where(keep, array * 10.0 ** rng.uniform(-reach / 3, reach / 3, array.shape), 0.0)
        case "worlds":
            if array.ndim == 2 or array.shape[1] != array.shape[2]:
                return array
            decay = 10.0 ** -rng.uniform(0, reach / 2, array.shape[1])
            return array * np.eye(array.shape[1]) * decay
        case "subnormal":
            return array * tiny * 10.0 ** rng.uniform(-3, 3)
        case "edge":
            return array * 10.0 ** rng.choice([-reach, reach])
    return array


def parameters(kind, size, reach, rng):
    spread = rng.choice([1.0, 1e-12, 1e6, 10.0 ** (-reach / 4), 10.0 ** (reach / 4)], p=[0.5, 0.2, 0.1, 0.1, 0.1])
    place = rng.normal(0, 3, size) * rng.choice([1.0, spread])
    stds = spread * rng.uniform(0.5, 2.0, size) * 10.0 ** rng.choice([0.0, -3.0], size)
    if kind == "gaussian":
        return {"means": place, "stds": stds}
    if kind == "laplace":
        return {"locations": place, "scales": stds}
    return {"rates": 10.0 ** rng.uniform(-3, 3, size)} if kind == "poisson" else {}


def made_case(seed, dtype, backend_name):
    """A ring of 1 to 6 columns with its table in log space, and rows of data in the dtype."""
    rng = np.random.default_rng(seed)
    reach, tiny = RANGE[dtype], float(np.finfo(dtype).tiny)
    d = int(rng.integers(1, 7))
    choices = [["dense"], [*PATTERNS], ["dense", "diagonal", *PATTERNS]][rng.integers(3)]
    patterns = [choices[i] for i in rng.integers(len(choices), size=d)]
    kinds = list(rng.choice(KINDS, d)) if rng.random() < 0.6 else ["categorical"] * d
    order = tuple(int(k) for k in rng.permutation(d))
    base = make_structured(patterns, kinds, order, train=rng.random() < 0.4, seed=seed)
    scales = SCALES[:-2] if backend_name == "jax" else SCALES
    scale = str(rng.choice(scales)) if rng.random() < 0.7 else None
    parts, columns = [], []
    for k, (kind, factors) in enumerate(base.parts):
        own = scale or str(rng.choice(scales))
        # Factors of a network share the range, so that their product is one that a dense core could have.
        share = reach if kind == "dense" or rng.random() < 0.5 else reach / len(factors)
        made = {name: scaled_factor(a, own, share, tiny, rng) for name, a in factors.items()}
        made = {name: np.minimum(a, np.finfo(dtype).max / 4).astype(dtype) for name, a in made.items()}
        if backend_name == "jax":  # XLA takes subnormal numbers for zeros
            made = {name: np.where(a < tiny, 0, a).astype(dtype) for name, a in made.items()}
        parts.append((kind, made))
        old = base.case.columns[k]
        new = {
            n: a.astype(dtype).astype(float) for n, a in parameters(old.kind, old.num_components, reach, rng).items()
        }
        columns.append(Column(old.kind, old.num_components, new, old.name))
    text = f"made_case({seed}, {dtype!r}, {backend_name!r})  # {scale}, {patterns}, {kinds}, {order}"
    case = Case(tuple(np.zeros(core.shape) for core in base.case.cores), tuple(columns), order, text, seed)
    table = Table([log_dense(*part) for part in parts], case.columns, order)
    x = np.stack([column.draw(6, rng) for column in columns], axis=-1)
    far = rng.random(x.shape) < 0.1
    wide = np.array([np.sqrt(c.variances().max()) if c.kind in ("gaussian", "laplace") else 0.0 for c in columns])
    x = np.where(far, x + wide * rng.choice([30.0, -1e3], x.shape), x)
    x[rng.random(x.shape) < 0.35] = np.nan
    x[0] = np.nan
    return Structured(case, tuple(parts)), table, x.astype(dtype).astype(float), rng


class Check:
    """One case on one backend: what does not agree is collected, so that a run shows all of it."""

    def __init__(self, backend, dtype, seed):
        self.backend, self.dtype = backend, dtype
        self.structured, self.table, self.x, self.rng = made_case(seed, dtype, backend.name)
        self.case, self.eps, self.faults = self.structured.case, float(np.finfo(dtype).eps), []
        self.d = self.case.d

    def run(self):
        if not np.isfinite(self.table.log_z):
            return []
        try:
            ring = self.structured.ring(self.backend, self.dtype)
        except ValueError as error:
            if "all zero" in str(error):  # as the dtype has it
                return []
            raise
        x = self.x[np.isfinite(self.table.log_mass(self.x))]
        self.possible = x
        self.slack = TOLERANCE[self.dtype] + 16 * self.eps * self.table.surprise(x)
        for part in (self.likelihoods, self.posteriors, self.moments, self.transforms, self.samples, self.tables):
            part(ring)
        return self.faults

    def same(self, name, actual, expected, slack):
        """Notes a fault unless |actual − expected| <= slack, −inf beside −inf."""
        actual = np.asarray(self.backend.numpy(actual) if not isinstance(actual, float) else actual, dtype=np.float64)
        expected = np.asarray(expected).astype(np.float64)
        with np.errstate(invalid="ignore"):
            good = (np.abs(actual - expected) <= slack) | (actual == expected)
        if not good.all():
            self.faults.append((name, self.case.text, actual[~good][:3], expected[~good][:3]))

    def put(self, x):
        return self.backend.array(x, self.dtype)

    def logs_agree(self, name, ring, x, expected, slack, depth):
        """log_prob of a ring made of another, where its cores can hold what explains the row."""
        some = (depth < -0.9 * math.log(np.finfo(self.dtype).tiny)) | np.isneginf(expected)
        actual = self.backend.numpy(ring.log_prob(self.put(x[some])))
        size = np.where(np.isfinite(expected[some]), np.abs(expected[some]), 0).astype(np.float64)
        self.same(name, actual, expected[some], slack[some] + 16 * self.eps * size)

    def likelihoods(self, ring):
        expected = self.table.log_prob(self.possible)
        size = np.abs(expected).astype(np.float64)
        engines = ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork")
        for engine in engines:
            actual = ring.log_prob(self.put(self.possible), engine=engine)
            self.same(f"log_prob {engine}", actual, expected, self.slack + 16 * self.eps * size)
        size = abs(float(self.table.log_z))
        self.same(
            "log_normalizer", ring.log_normalizer(), self.table.log_z, TOLERANCE[self.dtype] + 8 * self.eps * size
        )

    def posteriors(self, ring):
        x, sure = self.possible, self.slack < 0.01
        x, slack = x[sure], self.slack[sure]
        for k in range(self.d):
            expected = self.table.posterior(k, x)
            self.same(f"posterior {k}", ring.component_posterior(k, self.put(x)), expected, 2 * slack[:, None])
            weights = self.table.posterior(k, oracle.without(x, k))
            column = self.case.columns[k]
            point = np.array([column.draw(1, self.rng)[0] for _ in x]).astype(self.dtype).astype(float)
            full = x.copy()
            full[:, k] = point
            self.same(f"cdf {k}", ring.cdf(k, self.put(full)), (weights * column.cdf(point)).sum(-1), 4 * slack)
        expected = self.table.mean(x)
        with np.errstate(over="ignore", invalid="ignore"):
            size = np.array([np.abs(c.means()).max() for c in self.case.columns])
            self.same("mean", ring.mean(self.put(x)), expected, slack[:, None] * size + 8 * self.eps * size)

    def moments(self, ring):
        slack = TOLERANCE[self.dtype]
        expected = self.table.covariance()
        size = np.array(
            [
                float(
                    np.sqrt(
                        np.max(c.variances().astype(np.longdouble)) + np.abs(c.means()).max().astype(np.longdouble) ** 2
                    )
                )
                for c in self.case.columns
            ]
        )
        outer = np.outer(size.astype(np.longdouble), size.astype(np.longdouble))
        fits = np.abs(expected) < np.finfo(self.dtype).max / 4
        actual = self.backend.numpy(ring.covariance()).astype(np.longdouble)
        smallest = float(np.finfo(self.dtype).tiny)
        self.same(
            "covariance",
            np.where(fits, (actual - expected) / np.maximum(outer, smallest / slack), 0.0).astype(float),
            0 * outer,
            4 * slack,
        )
        self.same("mutual_information", ring.mutual_information(), self.table.mutual_information(), 8 * slack)

    def transforms(self, ring):
        x, d = self.possible, self.d
        expected = self.table.log_prob(x)
        depth = 0 * self.slack  # neither loses an entry
        self.logs_agree("to_train", ring.to_train(), x, expected, 2 * self.slack, depth)
        back = list(range(d))[::-1]
        self.logs_agree("permute", ring.permute(back), x[:, back], expected, 2 * self.slack, depth)
        if d == 1:
            return
        keep = sorted(int(k) for k in self.rng.permutation(d)[: self.rng.integers(1, d)])
        hidden = x.copy()
        hidden[:, [k for k in range(d) if k not in keep]] = np.nan
        slack = TOLERANCE[self.dtype] + 16 * self.eps * self.table.surprise(hidden)
        depth, expected = self.table.depth(x, tuple(keep)), self.table.log_prob(hidden)
        self.logs_agree(f"marginal {keep}", ring.marginal(keep), x[:, keep], expected, 2 * slack, depth)
        given = [k for k in range(d) if k not in keep]
        row = np.full((1, d), np.nan)
        drawn = self.backend.numpy(ring.sample(1, rng=self.backend.rng(int(self.rng.integers(1000)))))[0]
        row[0, given] = drawn[given]
        mass = self.table.log_mass(row)
        spread = float(self.table.surprise(row)[0]) * 16 * self.eps
        if np.isfinite(mass[0]) and spread < 0.01:
            rows = np.where(np.isnan(row), x, row)
            expected = self.table.log_prob(rows) - self.table.log_prob(row)
            slack = (
                TOLERANCE[self.dtype]
                + 16 * self.eps * np.where(np.isfinite(expected), self.table.surprise(rows), 0)
                + spread
            )
            conditional = ring.condition({k: float(row[0, k]) for k in given})
            depth = self.table.depth(x, tuple(keep), row[0])
            self.logs_agree(f"condition {given}", conditional, x[:, keep], expected, 2 * slack, depth)

    def samples(self, ring):
        for k in range(self.d):
            if self.case.columns[k].kind != "categorical":
                return
        joint = self.table.joint(*range(self.d))
        if joint.size == 1:
            return
        n = max(300, 10 * joint.size)  # ten for each cell, or chi_square has nothing to judge
        drawn = self.backend.numpy(ring.sample(n, rng=self.backend.rng(1)))
        self.fits("sample", drawn, joint)
        given = self.possible[int(self.rng.integers(len(self.possible)))]
        drawn = self.backend.numpy(ring.sample_given(self.put(given), n, rng=self.backend.rng(2)))
        logs = self.table.posterior_logs(given[None])[0]
        self.fits("sample_given", drawn, np.exp(logs - self.table.log_mass(given[None])[0]))

    def fits(self, name, drawn, p):
        p = p.astype(np.float64)
        p_value = oracle.chi_square(oracle.counts(drawn, p.shape), np.where(p > 1e-30, p, 0) / p.sum())
        if p_value < 1e-7:
            self.faults.append((name, self.case.text, p_value, None))

    def tables(self, ring):
        slack = TOLERANCE[self.dtype]
        if all(c.kind == "categorical" for c in self.case.columns):
            p = self.table.joint(*range(self.d))
            self.same("to_dense", ring.to_dense(), p, 2 * slack)
            best = self.backend.numpy(ring.mode()).astype(int)
            self.same("mode", float(p[tuple(best)] / p.max()), 1.0, 2 * slack)
            self.same("inner", ring.inner(ring), (p**2).sum(), 4 * slack)
            value, _ = ring.entropy()
            seen = p[p > 0]
            self.same("entropy", float(value), -(seen * np.log(seen)).sum(), 8 * slack)


def check(backend, dtype, seeds):
    faults = []
    for seed in seeds:
        try:
            faults += Check(backend, dtype, seed).run()
        except Exception as error:
            raise AssertionError(f"Check({backend}, {dtype!r}, {seed})") from error
    assert not faults, f"{len(faults)} faults: {faults[:5]}"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("numpy", "float64"),
        ("torch", "float32"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("numpy", "float32"), ("torch", "float64"))),
    ],
)
def test_some_random_rings(name, dtype):
    check(load_backend(name), dtype, range(15))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_thousands_of_random_rings(name, dtype, part):
    seeds = {"numpy": 100, "torch": 50}[name]
    check(load_backend(name), dtype, range(100 + part * seeds, 100 + (part + 1) * seeds))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_rings_of_jax(dtype):
    """Few: op by op, JAX compiles every operation for every shape, which takes it half a minute a ring."""
    check(load_backend("jax"), dtype, range(10))


# ------------------------------------------------------------------------------------ what was wrong once, by itself


def of_cores(backend, dtype, cores, kinds=None):
    """A ring of dense or CP cores over categorical columns, and its table."""
    parts = [("cp", c) if isinstance(c, dict) else ("dense", {"core": c}) for c in cores]
    parts = [(kind, {name: np.asarray(a).astype(dtype) for name, a in f.items()}) for kind, f in parts]
    log_cores = [log_dense(*part) for part in parts]
    columns = tuple(Column("categorical", len(core)) for core in log_cores)
    order = tuple(range(len(cores)))
    shapes = tuple(np.zeros(core.shape) for core in log_cores)
    structured = Structured(Case(shapes, columns, order), tuple(parts))
    return structured.ring(backend, dtype), Table(log_cores, columns, order)


@pytest.fixture(params=["numpy", "torch", "jax"])
def backend(request):
    return load_backend(request.param)


@pytest.mark.parametrize(
    ("dtype", "large"), [("float32", 1e15), ("float32", 1e25), ("float32", 1e37), ("float64", 1e40), ("float64", 1e300)]
)
def test_a_large_entry_beside_small_ones(backend, dtype, large):
    """Evidence that excludes the large entry leaves the small ones right, in every query."""
    rng = np.random.default_rng(0)
    cores = [rng.uniform(1e-3, 2e-3, (3, 2, 2)) for _ in range(3)]
    cores[1][2, 0, 1] = large
    ring, table = of_cores(backend, dtype, cores)
    x = np.array([[0.0, 1, 2], [np.nan, 0, 1], [np.nan, np.nan, 1], [2, 2, 2]])
    for engine in ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        actual = backend.numpy(ring.log_prob(backend.array(x, dtype), engine=engine))
        np.testing.assert_allclose(actual, table.log_prob(x).astype(float), rtol=1e-5, err_msg=engine)
    put = backend.array(x[:2], dtype)
    np.testing.assert_allclose(
        backend.numpy(ring.component_posterior(0, put)), table.posterior(0, x[:2]).astype(float), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(backend.numpy(ring.mean(put)), table.mean(x[:2]).astype(float), rtol=1e-4, atol=1e-6)
    drawn = backend.numpy(ring.sample_given(put[1], 4000, rng=backend.rng()))[:, 0]
    p = table.posterior(0, x[1:2])[0].astype(float)
    assert oracle.chi_square(np.bincount(drawn.astype(int), minlength=3), p) > 1e-4
    full = np.array([[0.0, 1, 2], [1, 0, 1]])
    evidence = np.array([[np.nan, 1, np.nan], [np.nan, 0, np.nan]])
    for row, given in zip(full, evidence, strict=True):
        conditional = ring.condition({1: float(row[1])})
        expected = float(table.log_prob(row[None])[0] - table.log_prob(given[None])[0])
        actual = backend.numpy(conditional.log_prob(backend.array(row[[0, 2]], dtype)))
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "nines"), [("float32", 23), ("float64", 150)])
def test_cores_that_span_more_than_the_dtype(backend, dtype, nines):
    """Trains and conditionals of cores with entries 10^-n and 10^n, of which the small ones matter."""
    rng = np.random.default_rng(1)
    cores = [rng.uniform(1, 2, (2, 2, 2)) for _ in range(4)]
    cores[1][0] *= 10.0**-nines
    cores[1][1] *= 10.0**nines
    cores[2][1] *= 10.0**-nines
    ring, table = of_cores(backend, dtype, cores)
    x = oracle.configurations((2, 2, 2, 2))
    expected = table.log_prob(x).astype(float)
    for other in (ring, ring.to_train(), ring.permute([0, 1, 2, 3])):
        np.testing.assert_allclose(
            backend.numpy(other.log_prob(backend.array(x, dtype))), expected, rtol=1e-5, atol=1e-5
        )
    given = np.array([[np.nan, np.nan, np.nan, 1.0]])
    some = x[x[:, 3] == 1]
    actual = ring.condition({3: 1.0}).log_prob(backend.array(some[:, :3], dtype))
    right = (table.log_prob(some) - table.log_prob(given)).astype(float)
    np.testing.assert_allclose(backend.numpy(actual), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_rings_at_the_ends_of_the_dtype(backend, dtype, end):
    """Marginals and conditionals of rings near the largest and the smallest normal number."""
    info = np.finfo(dtype)
    unit = float(info.max) / 4 if end == "largest" else float(info.tiny) * 4
    rng = np.random.default_rng(2)
    cores = [rng.uniform(0.5, 1, (2, 2, 2)) * unit for _ in range(4)]
    factors = {"left": cores[1][0] / unit, "emission": cores[1][1] / unit, "right": cores[0][0]}
    ring, table = of_cores(backend, dtype, [cores[0], factors, *cores[2:]])
    x = oracle.configurations((2, 2, 2, 2))
    np.testing.assert_allclose(
        backend.numpy(ring.log_prob(backend.array(x, dtype))), table.log_prob(x).astype(float), rtol=1e-5, atol=1e-5
    )
    hidden = x.copy()
    hidden[:, 1:3] = np.nan
    actual = ring.marginal([0, 3]).log_prob(backend.array(x[:, [0, 3]], dtype))
    np.testing.assert_allclose(backend.numpy(actual), table.log_prob(hidden).astype(float), rtol=1e-5, atol=1e-5)
    given, some = np.array([[np.nan, 1.0, np.nan, np.nan]]), x[x[:, 1] == 1]
    actual = ring.condition({1: 1.0}).log_prob(backend.array(some[:, [0, 2, 3]], dtype))
    right = (table.log_prob(some) - table.log_prob(given)).astype(float)
    np.testing.assert_allclose(backend.numpy(actual), right, rtol=1e-5, atol=1e-5)
    p = np.exp(table.log_prob(x).astype(float))
    np.testing.assert_allclose(float(ring.inner(ring)), (p**2).sum(), rtol=1e-4)


@pytest.mark.parametrize("exponent", [20, 35])
def test_hidden_states_whose_factors_are_far_apart(numpy_backend, exponent):
    """left 10^-e and right 10^e for one hidden state, the reverse for another: the core itself is near 1."""
    rng = np.random.default_rng(3)
    scale = 10.0 ** np.array([exponent, -exponent, 0])
    core = {
        "left": rng.random((2, 3)) / scale,
        "emission": rng.random((2, 3)),
        "right": scale[:, None] * rng.random((3, 2)),
    }
    plain = rng.random((2, 2, 2))
    for cores in ([core, plain, core], [plain, core, core]):
        ring, table = of_cores(numpy_backend, "float32", cores)
        x = oracle.configurations((2, 2, 2))
        for engine in ("sweep", "tree", "log", "opt_einsum"):
            actual = ring.log_prob(x, engine=engine)
            np.testing.assert_allclose(actual, table.log_prob(x).astype(float), rtol=1e-4, atol=1e-4, err_msg=engine)
        marginal, hidden = ring.marginal([0, 2]), x.copy()
        hidden[:, 1] = np.nan
        np.testing.assert_allclose(
            marginal.log_prob(x[:, [0, 2]]), table.log_prob(hidden).astype(float), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("counts", [[0, 0, 0], [1, 1, 1], [[3]], [4]], ids=str)
def test_chi_square_refuses_what_it_cannot_judge(counts):
    with pytest.raises(ValueError, match=r"nothing to test|too few"):
        oracle.chi_square(np.array(counts), np.full(np.shape(counts), 1 / np.size(counts)))


@pytest.mark.parametrize("n", [10, 1000])
def test_chi_square_of_one_possible_outcome(n):
    assert oracle.chi_square(np.array([0, n]), np.array([0.0, 1.0])) == 1
    assert oracle.chi_square(np.array([1, n]), np.array([0.0, 1.0])) == 0
