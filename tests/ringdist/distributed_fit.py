"""One process of the fit in test_distributed.py: its own rows of a table, under `python -m torch.distributed.run`."""

import sys
from pathlib import Path

import numpy as np
import torch.distributed

import ringdist as rd

SETTINGS = {"max_epochs": 6, "pseudocount": 0.1, "variance_floor": 0.02}


def problem(xp: str) -> tuple[rd.TensorRing, np.ndarray, np.ndarray]:
    """A starting ring, a table with missing entries, and weights."""
    variables = [rd.Categorical(3), rd.GaussianMixture([-1.0, 1e3], [50.0, 300.0]), rd.PoissonMixture([1.0, 6.0])]
    ring = rd.TensorRing.random(variables, 3, order=[2, 0, 1], rng=0)
    x = ring.sample(90, rng=1)
    x[np.random.default_rng(2).random(x.shape) < 0.2] = np.nan
    start = rd.TensorRing.random(variables, 3, order=[2, 0, 1], rng=3)
    return start.to(torch) if xp == "torch" else start, x, np.random.default_rng(4).random(90)


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    rows = slice(0, 31) if rank == 0 else slice(31, None)
    for xp in ("numpy", "torch"):
        ring, x, weight = problem(xp)
        fitted = rd.fit_em(ring, x[rows], sample_weight=weight[rows], reduce=rd.distributed.all_reduce, **SETTINGS)
        fitted.ring.save(folder / f"{xp}-{rank}")
        np.save(folder / f"{xp}-{rank}.npy", fitted.history["train"])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
