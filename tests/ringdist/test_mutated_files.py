"""Thousands of damaged and forged files: each loads to a valid ring or is refused with a `ValueError`, in no time."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import ringdist as rd
from tests.families import LaplaceMixture
from tests.mutations import BYTES, CONTENTS, forged
from tests.oracle import MIXED, TABLE
from tests.safetensors_files import put_together, taken_apart, within

DATA = Path(__file__).parent / "data"
FEW, MANY = range(100), range(100, 2000)
SEEDS = [pytest.param(FEW, id="100"), pytest.param(MANY, id="2000", marks=pytest.mark.slow)]
SECONDS = 20  # for one file, on a busy machine; each takes milliseconds


def check_ring(ring):
    """A ring is what its class says, looked at without the class."""
    d = len(ring.cores)
    assert d >= 1 and len(ring.variables) == d and ring.validate is True
    assert sorted(ring.order) == list(range(d)) and all(type(k) is int for k in ring.order)
    names = [v.name for v in ring.variables if v.name is not None]
    assert len(set(names)) == len(names) and all(isinstance(name, str) for name in names)
    assert len({core.dtype for core in ring.cores}) == 1 and ring.cores[0].dtype in (np.float32, np.float64)
    for core, variable in zip(ring.cores, ring.variables, strict=True):
        assert core.ndim == 3 and np.isfinite(core).all() and (core >= 0).all() and core.any()
        assert core.shape[0] == variable.num_components
        arrays = variable.arrays()
        kinds = {
            rd.Categorical: set(),
            rd.GaussianMixture: {"means", "stds"},
            rd.PoissonMixture: {"rates"},
            LaplaceMixture: {"locations", "scales"},
        }
        assert arrays.keys() == kinds[type(variable)]
        assert all(a.shape == core.shape[:1] for a in arrays.values() if type(variable) is not LaplaceMixture)
        if type(variable) is rd.GaussianMixture:
            assert np.isfinite(arrays["means"]).all() and (arrays["stds"] > 0).all()
            assert np.isfinite(arrays["stds"]).all()
        if type(variable) is rd.PoissonMixture:
            assert np.isfinite(arrays["rates"]).all() and (arrays["rates"] >= 0).all()
    for left, right in zip(ring.order, ring.order[1:] + ring.order[:1], strict=True):
        assert ring.cores[left].shape[2] == ring.cores[right].shape[1]


def same(a, b):
    arrays = [[*ring.cores, *(x for v in ring.variables for x in v.arrays().values())] for ring in (a, b)]
    return (
        a.order == b.order
        and [(type(v), v.name) for v in a.variables] == [(type(v), v.name) for v in b.variables]
        and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(*arrays, strict=True))
    )


def check_estimator(model):
    check_ring(model.ring_)
    assert len(model.categories_) == model.n_features_in_ == len(model.ring_.cores)
    for categories, variable in zip(model.categories_, model.ring_.variables, strict=True):
        assert (categories is None) == isinstance(variable, rd.GaussianMixture)
        if categories is not None:
            assert categories.ndim == 1 and categories.size == variable.num_components
    assert all(type(v) is float for values in model.history_.values() for v in values)
    assert type(model.n_iter_) is int and type(model._frame) is bool
    names = [v.name for v in model.ring_.variables]
    assert names == (list(model.feature_names_in_) if hasattr(model, "feature_names_in_") else [None] * len(names))


def load(path):
    return rd.load(path, families=(LaplaceMixture,))


RINGS = SimpleNamespace(load=load, check=check_ring, same=same)
ESTIMATORS = SimpleNamespace(
    load=rd.TensorRingDensity.load,
    check=check_estimator,
    same=lambda a, b: same(a.ring_, b.ring_) and a.get_params() == b.get_params() and a.history_ == b.history_,
)


@pytest.fixture(scope="module")
def contents(numpy_backend, tmp_path_factory):
    """Files of rings and of estimators, of both versions."""
    folder = tmp_path_factory.mktemp("whole")
    numpy_backend.ring(MIXED).save(folder / "mixed")
    numpy_backend.ring(TABLE, "float32").save(folder / "table")
    frame = pd.DataFrame({"size": np.arange(12.0) ** 2, "kind": list("abcabbacabca"), "count": [0, 1, 2] * 4})
    small = {"rank": 2, "num_components": 2, "max_epochs": 2, "random_state": 0}
    rd.TensorRingDensity(**small, order=["kind", 0, 2]).fit(frame).save(folder / "frame")
    rd.TensorRingDensity(**small, validation_fraction=0.2).fit(np.eye(9, dtype=int)[:, :3]).save(folder / "array")
    rings = [folder / "mixed", folder / "table", DATA / "version1_ring.safetensors"]
    estimators = [folder / "frame", folder / "array", DATA / "version1_estimator.safetensors"]
    return {"ring": [p.read_bytes() for p in rings], "estimator": [p.read_bytes() for p in estimators]}


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("kind", ["ring", "estimator"])
def test_mutated_files(contents, tmp_path, kind, seeds):
    """Half of them damaged, which the checksum must tell, and half forged under a checksum that is right."""
    of, path, loaded, wrong = RINGS if kind == "ring" else ESTIMATORS, tmp_path / "file", 0, []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        content, other = (contents[kind][rng.integers(3)] for _ in range(2))
        damage = seed % 2 == 0
        mutate = BYTES[rng.integers(len(BYTES))] if damage else forged
        data = mutate(content, rng, other)
        path.write_bytes(data)
        try:
            with within(SECONDS):
                result = of.load(path)
                of.check(result)
            loaded += 1
        except ValueError as error:
            assert path.name in str(error), (seed, error)
            continue
        except BaseException as error:
            wrong.append((seed, mutate.__name__, f"{type(error).__name__}: {error}"[:200]))
            continue
        if damage:
            path.write_bytes(content)
            if not of.same(result, of.load(path)) and data != other:
                wrong.append((seed, mutate.__name__, "another ring under the old checksum"))
        else:
            result.save(path)
            if not of.same(of.load(path), result):
                wrong.append((seed, mutate.__name__, "another ring after saving it again"))
    assert not wrong, f"{len(wrong)} of {len(seeds)} files: {wrong[:5]}"
    assert loaded > 0.02 * len(seeds), "nothing gets as far as a ring"


def test_the_mutations_reach_every_check(contents):
    """Forged files have a right checksum and still differ."""
    rng = np.random.default_rng(0)
    content, other = contents["ring"][:2]
    for change in CONTENTS:
        before, after = taken_apart(content), taken_apart(content)
        for _ in range(5):
            change(after, rng, taken_apart(other))
        assert put_together(before) != put_together(after), change.__name__
