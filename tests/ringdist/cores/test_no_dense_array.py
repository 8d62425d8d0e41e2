"""No query forms the dense array of a CP core."""

import pickle
import tracemalloc

import numpy as np
import pytest

import ringdist as rd
from tests.families import LaplaceMixture
from tests.ringdist.cores.cases import queries
from tests.structured import STRUCTURED, TABLES

pytestmark = pytest.mark.slow_on("jax")


@pytest.fixture
def no_dense_array(monkeypatch):
    """CP cores whose array cannot be formed."""

    def dense(self):
        raise AssertionError("the array of a CP core was formed")

    monkeypatch.setattr(rd.CPCore, "dense", dense)


CP_ONLY = [name for name, s in STRUCTURED.items() if all(kind == "cp" for kind, _ in s.parts)]


@pytest.mark.parametrize("name", CP_ONLY)
def test_no_query_forms_the_array_of_a_cp_core(backend, no_dense_array, diagonal_files, tmp_path, name):
    structured = STRUCTURED[name]
    case, ring, d = structured.case, structured.ring(backend), structured.case.d
    x, full = backend.array(case.rows(4)), backend.array(case.rows(4, missing=0.0))
    for engine in ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        ring.log_prob(x, engine=engine)
    queries(ring, x, full)
    ring.sample(5, rng=0), ring.sample_given(x, rng=0), ring.entropy(10, rng=0)
    ring.marginal([0]), ring.marginal(range(d)), ring.permute(range(d)), ring.to(dtype="float32")
    if d > 1:
        ring.condition({0: float(full[0, 0])})
        ring.marginal(range(d - 1))
    ring.einsum(), ring.to_tensornetwork(), ring.to_tensornetwork(x[0])
    ring.save(tmp_path / "ring")
    rd.load(tmp_path / "ring", xp=backend.xp, families=(LaplaceMixture,))
    pickle.loads(pickle.dumps(ring))
    rd.compare.kl(ring, ring, full)
    if LaplaceMixture not in map(type, ring.variables):
        rd.fit_em(ring, backend.numpy(full), max_epochs=1)


@pytest.mark.parametrize("name", ["full", "shared components", "copies", "train"])
def test_no_table_forms_the_array_of_a_cp_core(backend, no_dense_array, name):
    ring = TABLES[name].ring(backend)
    (
        ring.to_dense(),
        ring.entropy(),
        ring.mode(),
        rd.fit_em(ring, TABLES[name].case.possible_rows(5), max_epochs=1, rng=0),
    )


def test_memory_of_a_wide_train(numpy_backend):
    """d = 50, N = 1000, rank 64: 54 MB in factors, 1.6 GB in dense arrays."""
    d, n, m = 50, 1000, 64
    ring = rd.TensorRing.random([rd.Categorical(n)] * d, m, topology="train", core="cp", rng=0)
    x = np.random.default_rng(0).integers(0, n, (4, d)).astype(np.float64)
    x[:, 7] = np.nan
    tracemalloc.start()
    ring.log_prob(x), ring.mean(x), ring.component_posterior(7, x), ring.sample_given(x, rng=0)
    ring.condition(dict.fromkeys(range(d - 2), 0)), ring.marginal([0, 10, 49])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6, f"{peak / 1e6:.0f} MB beside the parameters' {8e-6 * ring.num_parameters:.0f} MB"
