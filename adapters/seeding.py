"""Random seeds as functions of the run's seed and a step, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import os

import numpy as np
from lightning.pytorch import Trainer


def run_seed() -> int:
    """The seed of the run, which `lightning.seed_everything` stores in the environment; 0 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def derived_seed(*place: int) -> int:
    """A seed for one place of the run, e.g. (process, step); the seeds of neighbouring places are unrelated.

    The length of the place is part of the sequence, because NumPy pads seed sequences with zeros: (0,) and (0, 0) get
    different seeds.
    """
    return int(np.random.SeedSequence([run_seed(), *place, len(place)]).generate_state(1)[0])


def epoch_of(trainer: Trainer) -> int:
    """The epoch that Lightning sets in samplers, in runs that are counted in epochs or in steps."""
    return int(trainer.fit_loop.epoch_progress.current.processed)
