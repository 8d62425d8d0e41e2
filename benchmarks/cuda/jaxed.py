"""The likelihood of JAX on the device against double precision on the CPU, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from . import rings
from .checks import TOLERANCES, Row, row
from .gradients import ALLOWED
from .rings import distance, relative_distance
from .session import Item, Session

NAMES = ("mixed families", "train")
SECONDS = 45.0  # most of them for the compiler


def items(session: Session) -> Iterable[Item]:
    """One item, where there is CUDA: PyTorch has the device too, so that JAX may not take all its memory."""
    if session.options.device == "cuda":
        yield Item("JAX", measured, SECONDS)


def measured() -> list[Row]:
    own = {"JAX_PLATFORMS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "benchmarks.cuda.jaxed"]
    found = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=SECONDS - 3)
    if found.returncode:
        raise RuntimeError(found.stderr[-500:])
    rows: list[Row] = json.loads(found.stdout.splitlines()[-1])
    return rows


def compared(name: str) -> list[Row]:
    """Values and gradients of compiled likelihoods."""
    import jax
    import jax.numpy as jnp

    case = rings.case(name, True)
    exact = case.on("cpu", torch.float64)
    ring, x = case.ring.to(jnp), jnp.asarray(case.x.numpy())
    kind = jax.devices()[0].platform

    def gradient() -> float:
        gradients: Any = jax.jit(jax.grad(lambda ring: ring.log_prob(x).mean()))(ring)
        there, parameters = rings.leaves(exact.ring)
        expected = torch.autograd.grad(there.log_prob(exact.x).mean(), parameters[: len(gradients.cores)])
        found = [torch.from_numpy(np.array(core)) for core in gradients.cores]
        return max(relative_distance(f, e) for f, e in zip(found, expected, strict=True))

    def value() -> float:
        found = jax.jit(lambda ring, x: ring.log_prob(x))(ring, x)
        return distance(torch.from_numpy(np.array(found)), exact.ring.log_prob(exact.x))

    return [
        row(f"JAX on {kind}, log_prob, {name}", "float32", value, TOLERANCES["float32"]),
        row(f"JAX on {kind}, gradient, {name}", "float32", gradient, ALLOWED["float32"]),
    ]


if __name__ == "__main__":
    print(json.dumps([row for name in NAMES for row in compared(name)]))
