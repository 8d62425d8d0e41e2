"""`import ringdist` imports neither torch nor jax, changes nothing global, and works where they are missing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ringdist as rd

ROOT = Path(__file__).parents[2]

CONTRACT = (
    "Categorical",
    "GaussianMixture",
    "Interval",
    "PoissonMixture",
    "TensorRing",
    "Truncated",
    "Variable",
    "load",
)
METHODS = """log_prob log_normalizer probability component_posterior sample sample_given marginal condition mean
covariance cdf quantile mode mutual_information entropy inner to_dense to_train permute to
to_tensornetwork from_tensornetwork einsum save random cores variables order ranks shape num_variables
num_parameters is_train""".split()


def run(code: str) -> str:
    """What a fresh interpreter prints; warnings are errors there too."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_public_names():
    for name in CONTRACT:
        assert hasattr(rd, name), name
    ring = rd.TensorRing.random([rd.Categorical(2)], 1, rng=0)
    for name in METHODS:
        assert hasattr(ring, name), name
    assert rd.__version__ and rd.__doc__


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == rd.__version__
    assert f"\nversion: {rd.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{rd.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


HEAVY = "torch jax tensorflow tensornetwork matplotlib pandas scipy sklearn tqdm".split()


def test_import_leaves_heavy_libraries_alone():
    """They would be most of the time of an import."""
    heavy = (*HEAVY, "adapters", "lightning")
    code = f"import sys, ringdist; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize(
    ("library", "use"),
    [
        ("scipy", "ring.entropy(5, 0)"),
        ("sklearn", "rd.TensorRingDensity"),
        ("tensornetwork", "ring.to_tensornetwork()"),
        ("tqdm", "rd.fit_em(ring, ring.sample(9, rng=0), max_epochs=1)"),
    ],
)
def test_heavy_libraries_are_imported_where_they_are_needed(library, use):
    assert library in HEAVY
    code = f"""
import sys, ringdist as rd
ring = rd.TensorRing.random([rd.Categorical(3)] * 4, 2, rng=0)
before = {library!r} in sys.modules
{use}
print(before, {library!r} in sys.modules)
"""
    assert run(code).strip() == "False True"


def test_import_changes_nothing_global():
    code = """
import random, warnings, logging, numpy as np, scipy.special, numpy.exceptions
np.polyfit
before = (np.geterr(), np.get_printoptions(), random.getstate(), len(logging.root.handlers))
filters = list(warnings.filters)
state = np.random.get_state()[1].copy()
import ringdist
assert before == (np.geterr(), np.get_printoptions(), random.getstate(), len(logging.root.handlers))
assert (state == np.random.get_state()[1]).all()
assert [f for f in warnings.filters if f not in filters] == [], warnings.filters
"""
    run(code)


BLOCKED = """
import sys
class Missing:  # a None in sys.modules would do, but array-api-compat takes any entry there for an import
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "jax", "jaxlib", "tensorflow", "matplotlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import copy, pickle, tempfile, numpy as np, ringdist as rd
variables = [rd.Categorical(3, name="a"), rd.GaussianMixture([0., 1.], [1., 2.]), rd.PoissonMixture([1., 4.])]
ring = rd.TensorRing.random(variables, 3, rng=0)
x = ring.sample(20, rng=1)
x[::2, 1] = np.nan
values = [ring.log_prob(x, engine=e) for e in ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork")]
assert all(np.allclose(v, values[0]) for v in values)
ring.mean(x), ring.covariance(), ring.mode(x), ring.mutual_information(), ring.entropy(50, 0)
ring.sample_given(x, 2, rng=0), ring.condition({"a": 1}), ring.marginal([0, 2]), ring.to_train()
ring.quantile(1, 0.3, x), ring.component_posterior("a", x), ring.inner(ring), ring.to(dtype=np.float32)
ring.to_tensornetwork(), pickle.loads(pickle.dumps(ring)), copy.deepcopy(ring)
with tempfile.TemporaryDirectory() as folder:
    ring.save(folder + "/ring")
    assert np.array_equal(rd.load(folder + "/ring").log_prob(x), values[0])
print("done")
"""


def test_everything_works_where_torch_and_jax_are_missing():
    assert run(BLOCKED).strip() == "done"


def test_numpy_work_imports_no_other_backend():
    code = """
import sys, ringdist as rd
ring = rd.TensorRing.random([rd.Categorical(3)] * 4, 2, rng=0)
x = ring.sample(5, rng=0)
ring.log_prob(x), ring.mean(x), ring.to_train(), ring.einsum()
print([m for m in ("torch", "jax") if m in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_asking_for_a_backend_that_is_missing():
    """xp is a module of the caller's, so there is nothing to guess: only its name is wrong."""
    code = """
import ringdist as rd
try:
    rd.TensorRing.random([rd.Categorical(3)], 2, rng=0, xp="torch")
except TypeError as error:
    print("torch" in str(error))
"""
    assert run(code).strip() == "True"
