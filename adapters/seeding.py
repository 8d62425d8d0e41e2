"""Randomness as a function of (seed, place in the run): what makes a resumed run end where the unbroken one does."""

from __future__ import annotations

import os

import numpy as np
from lightning.pytorch import Trainer


def run_seed() -> int:
    """The seed of the run, as `lightning.seed_everything` leaves it in the environment; 0 where it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def derived_seed(*place: int) -> int:
    """A seed for one place of the run, e.g. (process, step): neighbouring places have unrelated seeds.

    Their number is part of it, because a seed sequence is padded with zeros: (0,) and (0, 0) are two places.
    """
    return int(np.random.SeedSequence([run_seed(), *place, len(place)]).generate_state(1)[0])


def epoch_of(trainer: Trainer) -> int:
    """The epoch as Lightning tells it to samplers, whether the run is counted in epochs or in steps."""
    return int(trainer.fit_loop.epoch_progress.current.processed)
