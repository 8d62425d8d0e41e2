"""The ring as an object: what it tells about itself, random rings, immutability, pickling."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close
from tests.oracle import MIXED, TABLE, TRAIN
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda ring: pickle.loads(pickle.dumps(ring))}


@over(MIXED, TABLE, TRAIN, case=cases())
@pytest.mark.fast_on("jax")
def test_attributes(backend, case):
    ring = backend.ring(case)
    assert ring.num_variables == case.d, ring
    assert tuple(ring.shape) == case.shape, ring
    assert tuple(ring.order) == case.order, ring
    assert tuple(ring.ranks) == case.ranks, ring
    assert ring.is_train == (1 in case.ranks), ring
    assert len(ring.variables) == len(ring.cores) == case.d, ring
    for core, expected in zip(ring.cores, case.cores, strict=True):
        assert_close(backend.numpy(core), expected, ring)
    sizes = sum(core.size for core in case.cores)
    extra = sum(p.size for column in case.columns for p in column.parameters.values())
    assert ring.num_parameters in (sizes, sizes + extra), ring
    assert all(isinstance(v, rd.Variable) for v in ring.variables), ring


def test_the_default_order_is_that_of_the_columns(numpy_backend):
    cores = [np.ones((2, 1, 3)), np.ones((4, 3, 2)), np.ones((3, 2, 1))]
    ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(4), rd.Categorical(3)])
    assert tuple(ring.order) == (0, 1, 2) and tuple(ring.ranks) == (1, 3, 2), ring


def test_repr_tells_what_the_ring_is(backend):
    text = repr(backend.ring(MIXED))
    parts = "TensorRing", "ring of 4", "Categorical", "GaussianMixture", "LaplaceMixture", "float64", backend.name[:5]
    for part in parts:
        assert part in text, text
    assert len(text) < 1000, text
    long = rd.TensorRing.random([rd.Categorical(2)] * 5000, 2, rng=0)
    assert len(repr(long)) < 2000, "the repr of a long ring is short"


def test_reprs_of_variables_tell_family_size_and_name():
    for variable in (
        rd.Categorical(5, name="age"),
        rd.GaussianMixture([0.0, 1.0], [1.0, 2.0], name="age"),
        rd.PoissonMixture([1.0, 2.0], name="age"),
    ):
        text = repr(variable)
        assert type(variable).__name__ in text and "age" in text, text


# ------------------------------------------------------------------------------------------------- random


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_random_rings(backend, topology, dtype):
    variables = backend.variables(MIXED, dtype)
    ring = rd.TensorRing.random(
        variables,
        3,
        order=[2, 0, 3, 1],
        topology=topology,
        rng=0,
        xp=backend.xp,
        dtype=backend.dtype(dtype),
        device=backend.device,
    )
    assert tuple(ring.order) == (2, 0, 3, 1), ring
    assert ring.is_train == (topology == "train"), ring
    assert sorted(ring.ranks) == ([3, 3, 3, 3] if topology == "ring" else [1, 3, 3, 3]), ring
    assert {core.dtype for core in ring.cores} == {backend.dtype(dtype)}, ring
    assert all((backend.numpy(core) >= 0).all() for core in ring.cores), ring
    assert np.isfinite(backend.numpy(ring.log_prob(ring.sample(3, rng=1)))).all(), ring


def test_random_rings_repeat_with_their_seed(backend):
    def make(rng):
        return rd.TensorRing.random(backend.variables(MIXED), 2, rng=rng, xp=backend.xp, device=backend.device)

    first = [backend.numpy(core) for core in make(7).cores]
    for a, b, c in zip(first, make(7).cores, make(8).cores, strict=True):
        np.testing.assert_array_equal(a, backend.numpy(b))
        assert not np.array_equal(a, backend.numpy(c))
    assert all(np.ptp(core) > 0 for core in first), "all-equal cores are a symmetric saddle"
    if backend.name == "jax":
        with pytest.raises(ValueError, match="rng"):
            make(None)
    else:
        assert not np.array_equal(backend.numpy(make(None).cores[0]), backend.numpy(make(None).cores[0]))


def test_random_rings_with_one_rank_per_bond():
    ring = rd.TensorRing.random([rd.Categorical(n) for n in (2, 3, 4)], [2, 3, 5], order=[1, 2, 0], rng=0)
    assert tuple(ring.ranks) == (2, 3, 5), ring
    assert [core.shape for core in ring.cores] == [(2, 5, 2), (3, 2, 3), (4, 3, 5)], ring


def test_random_rings_have_an_ordinary_normaliser_at_any_rank():
    for rank in (1, 8, 32):
        ring = rd.TensorRing.random([rd.Categorical(4)] * 300, rank, rng=0)
        assert abs(float(ring.log_normalizer())) < 50, (rank, ring.log_normalizer())


# ------------------------------------------------------------------------------------------- immutability


ATTRIBUTES = ["cores", "variables", "order", "ranks", "shape", "num_variables", "is_train"]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_rings_are_immutable(numpy_backend, name):
    ring = numpy_backend.ring(MIXED)
    with pytest.raises(AttributeError):
        setattr(ring, name, getattr(ring, name))
    with pytest.raises(AttributeError):
        delattr(ring, name)


def test_rings_take_no_new_attributes_and_their_parts_no_items(numpy_backend):
    ring = numpy_backend.ring(MIXED)
    with pytest.raises(AttributeError):
        ring.extra = 1
    for part in (ring.cores, ring.variables, ring.order):
        with pytest.raises(TypeError):
            part[0] = part[1]


def test_writing_to_the_callers_arrays_leaves_the_ring_as_it_is(numpy_backend):
    cores = [np.array(core) for core in MIXED.cores]
    ring = rd.TensorRing(cores, numpy_backend.ring(MIXED).variables, MIXED.order)
    nothing = np.full(len(cores), np.nan)
    before = ring.log_prob(nothing)
    cores[0] *= 5
    assert ring.log_prob(nothing) == before == pytest.approx(0)


# ------------------------------------------------------------------------------------------------ pickling


@over(MIXED, TABLE, TRAIN, case=cases(), examples=0.3)
def test_rings_pickle(backend, case):
    ring, x = backend.ring(case), backend.array(case.rows(6))
    again = pickle.loads(pickle.dumps(ring))
    assert repr(again) == repr(ring)
    np.testing.assert_array_equal(backend.numpy(again.log_prob(x)), backend.numpy(ring.log_prob(x)))


def test_rings_copy(backend):
    ring, x = backend.ring(MIXED), backend.array(MIXED.rows(6))
    for again in (copy.copy(ring), copy.deepcopy(ring)):
        assert_close(backend.numpy(again.log_prob(x)), backend.numpy(ring.log_prob(x)), again)


def test_nothing_of_a_ring_can_be_written_to(numpy_backend):
    """Neither through it nor through what it was made of."""
    core, means = np.ones((2, 1, 1)), np.array([0.0, 1.0])
    ring = rd.TensorRing([core], [rd.GaussianMixture(means, np.ones(2))])
    before = ring.log_prob(np.zeros((1, 1)))
    core[0], means[0] = 9.0, 50.0
    for array in (ring.cores[0], *ring.variables[0].arrays().values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0
    assert ring.log_prob(np.zeros((1, 1))) == before


def test_masked_entries_are_missing(numpy_backend):
    ring = numpy_backend.ring(MIXED)
    x = MIXED.possible_rows(6)
    masked = np.ma.masked_invalid(x)
    assert (ring.log_prob(masked) == ring.log_prob(x)).all()
    fits = [rd.fit_em(ring, rows, max_epochs=2).history["train"] for rows in (masked, x)]
    assert fits[0] == fits[1]


def test_answers_are_not_what_a_ring_remembers(backend):
    ring = backend.ring(MIXED)
    x = backend.array(MIXED.possible_rows(6))
    expected = backend.numpy(ring.log_prob(x)).copy()
    log_z = ring.log_normalizer()
    log_z += 5
    np.testing.assert_array_equal(backend.numpy(ring.log_prob(x)), expected)


def _writes(torch):
    """Ways to change the numbers of a tensor that a ring was made of, most of which PyTorch does not count."""

    def through_dlpack(core):
        np.from_dlpack(core)[...]  # shares its memory
        torch.utils.dlpack.from_dlpack(core).mul_(3.0)

    return {
        "in place": lambda core: core.mul_(3.0),
        "data": lambda core: core.data.mul_(3.0),
        "numpy": lambda core: np.multiply(core.numpy(), 3.0, out=core.numpy()),
        "dlpack": through_dlpack,
        "swap": lambda core: torch.utils.swap_tensors(core, core * 3.0),
    }


@pytest.mark.parametrize("write", ["in place", "data", "numpy", "dlpack", "swap"])
@pytest.mark.parametrize("made", ["itself", *COPIES])
def test_nothing_that_is_written_to_arrays_reaches_a_ring(made, write):
    """Neither to those it was made of nor to those it hands out; its normaliser and its samples stay its own."""
    torch = pytest.importorskip("torch")
    given = [torch.rand(3, 2, 2) for _ in range(4)]
    ring = rd.TensorRing(given, [rd.Categorical(3)] * 4)
    other = ring if made == "itself" else COPIES[made](ring)
    x, before = ring.sample(30, rng=0), ring.log_normalizer()
    expected = ring.log_prob(x)
    for core in (*given, *other.cores):
        _writes(torch)[write](core)
    torch.testing.assert_close(other.log_prob(x), expected)
    torch.testing.assert_close(other.log_normalizer(), before)
    torch.testing.assert_close(other.sample(30, rng=0), x)
    torch.testing.assert_close(other.to_dense().sum(), torch.tensor(1.0))


def test_a_ring_over_live_arrays_follows_them():
    """With `copy=False`, and where gradients are recorded: nothing is remembered."""
    torch = pytest.importorskip("torch")
    for options in ({"copy": False}, {}):
        cores = [torch.rand(3, 2, 2).requires_grad_(not options) for _ in range(4)]
        ring = rd.TensorRing(cores, [rd.Categorical(3)] * 4, **options)
        before = ring.log_normalizer().detach()
        with torch.no_grad():
            for core in cores:
                core.mul_(3.0)
        torch.testing.assert_close(ring.log_normalizer().detach(), before + 4 * np.log(3.0))


def test_pickles_hold_what_a_ring_is_made_of_and_nothing_else():
    ring = rd.TensorRing.random([rd.Categorical(3)] * 4, 2, rng=0)
    size = len(pickle.dumps(ring))
    ring.sample(3, rng=0)
    ring.log_normalizer()
    assert len(pickle.dumps(ring)) == size


def test_cores_of_all_numpy_rings_are_read_only(numpy_backend):
    ring = numpy_backend.ring(MIXED)
    fitted = rd.fit_em(ring, MIXED.possible_rows(20), max_epochs=1).ring
    for made in (fitted, ring.marginal([0, 1]), *(copied(ring) for copied in COPIES.values())):
        assert not any(core.flags.writeable for core in made.cores)


def test_one_odd_core_does_not_cost_the_memory_of_all_matrices(numpy_backend):
    ring = rd.TensorRing.random([rd.Categorical(3)] * 99 + [rd.Categorical(2)], 20, rng=0)
    tracemalloc.start()
    ring.log_prob(np.zeros((1000, 100)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1000 * 100 * 20**2 * 8 / 4, peak
