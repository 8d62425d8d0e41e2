"""What an installation of the core must do: fit a small table, ask it, save it, load it, and start quickly."""

import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

import ringdist as rd

LIMIT = 0.5  # seconds of `import ringdist`, Python's own start included


def seconds_of_import() -> float:
    """The least of five (the first one compiles), in processor time, which other programs hardly change."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import ringdist"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


assert "site-packages" in rd.__file__, rd.__file__
assert rd.__version__ == version("ringdist")
assert not {"torch", "jax"} & sys.modules.keys()

rng = np.random.default_rng(0)
kind = rng.integers(2, size=500)
x = np.column_stack([kind, rng.normal(3.0 * kind), rng.poisson(1 + 4 * kind)]).astype(float)
families = [rd.Categorical, rd.GaussianMixture, rd.PoissonMixture]
ring = rd.fit_em(rd.initialize(x, families, 2, num_components=2, rng=0), x, max_epochs=20).ring
x[::2, 0] = np.nan
found = ring.component_posterior(0, x).argmax(axis=1)
assert np.mean(found == kind) > 0.9, np.mean(found == kind)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "ring.safetensors"
    ring.save(path)
    np.testing.assert_array_equal(rd.load(path).log_prob(x), ring.log_prob(x))
estimator = rd.TensorRingDensity(rank=2, num_components=2, max_epochs=5, random_state=0).fit(x)
assert np.isfinite(estimator.score_samples(x)).all()

seconds = seconds_of_import()
assert seconds < LIMIT, f"import ringdist: {seconds:.2f} s, more than {LIMIT} s"
print(f"ringdist {rd.__version__}: fits, answers, saves; import {seconds:.2f} s")
