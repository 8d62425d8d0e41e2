"""The models that `python -m benchmarks conditional` compares, on the same networks."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import training, vae
from .conditional_settings import Setting

WEIGHT = 50.0  # of log p(y | z), as TELBO and JMVAE have it
TRANSFORMS = 3  # layers of a flow
SECOND_WEIGHT = 5.0  # that of the second phase of a prior alone
HELD_OUT = 0.1  # the share of the training images by which it chooses its epoch

Make = Callable[[Any, int, dict[str, Any]], Any]  # from the images' shape, a seed and the options all models share


@dataclass(frozen=True)
class Candidate:
    """A model under a name, made anew for each seed, and what is done beyond gradient steps.

    Args:
        make: the model.
        reinitialize: how its prior is re-initialised from latent codes, if at all.
        second_phase: the share of the updates of `second_phase` in which all of it learns, if there is such a phase; in
            the others the prior learns alone.
    """

    make: Make
    reinitialize: dict[str, Any] | None = None
    second_phase: float | None = None


def candidates(setting: Setting, sizes: tuple[int, ...], *, every_order: bool) -> dict[str, Candidate]:
    """By name, for attributes of these sizes."""
    from adapters.models import CVAE, JMVAE, TELBO

    def baseline(kind: Any, inputs: int = 0) -> dict[str, Candidate]:
        def make(shape: Any, seed: int, options: dict[str, Any]) -> Any:
            parts = _networks(setting, shape, setting.latents + inputs, options)
            return kind(*parts, setting.latents, sizes, **options)

        return {kind.__name__: Candidate(make), f"{kind.__name__}, two phases": Candidate(make, second_phase=1.0)}

    rings = dense_rings(setting, sizes) | cp_rings(setting, sizes)
    orders = ("VAE-TRIP, order given", "VAE-TRIP, order by MI")
    chosen = {label: candidate for label, candidate in rings.items() if every_order or label not in orders}
    return chosen | baseline(CVAE, sum(sizes)) | baseline(TELBO) | baseline(JMVAE)


def dense_rings(setting: Setting, sizes: tuple[int, ...]) -> dict[str, Candidate]:
    """The paper's ring, and what EM and a weight of the attributes change."""
    from adapters import JointTRIP

    def ring(order: Any, again: dict[str, Any], rank: int = setting.rank, **changed: Any) -> Candidate:
        def prior(seed: int) -> Any:
            size = (setting.latents, sizes, setting.components, rank)
            return JointTRIP(*size, order, seed, nonnegative="abs", mean_range=(-3.0, 3.0))

        return Candidate(_conditional(setting, prior, **changed), again)

    first, every, codes = setting.fits
    fits = {"first": first, "every": every, "num_codes": codes, "method": "em", "order": "mutual_information"}
    learned: dict[str, Any] = {"prior_learning_rate": setting.prior_learning_rate / 10}
    weighted = learned | {"attribute_weight": WEIGHT}
    return {
        "VAE-TRIP (paper)": ring("random", setting.again(method="gmm")),
        "VAE-TRIP, order given": ring("given", setting.again(method="gmm")),
        "VAE-TRIP, order by MI": ring("random", setting.again(method="gmm", order="mutual_information")),
        "VAE-TRIP, EM": ring("random", fits, **learned),
        "VAE-TRIP, EM, weighted": ring("random", fits, **weighted),
        "VAE-TRIP, EM, weighted, double rank": ring("random", fits, 2 * setting.rank, **weighted),
    }


def cp_rings(setting: Setting, sizes: tuple[int, ...]) -> dict[str, Candidate]:
    """CP cores with private components, refitted by EM from a mixture of codes: with a flow, and without one.

    Both have about as many parameters as TELBO and JMVAE.
    """
    from adapters import FlowPrior, JointTRIP

    d, budget = setting.latents, head_parameters(setting, sizes)

    def ring(seed: int, rank: int) -> Any:
        options: dict[str, Any] = {"core": "cp", "private_components": True, "attribute_places": "spread"}
        return JointTRIP(d, sizes, None, rank, seed=seed, **options)

    def flow(base: Any, width: int) -> Any:
        return FlowPrior(base, "coupling", transforms=TRANSFORMS, hidden_features=(width, width))

    alone = vae.nearest(range(4, 200, 2), lambda rank: vae.parameters(ring(0, rank)), budget)
    width = vae.nearest(range(4, 200, 2), lambda width: vae.parameters(flow(ring(0, setting.flow_rank), width)), budget)
    again = setting.again(method="em") | {"num_codes": setting.fits[2]}
    options: dict[str, Any] = {"attribute_weight": WEIGHT, "weight_per_label": True}
    options |= {"prior_learning_rate": 3 * setting.prior_learning_rate}

    def candidate(prior: Callable[[int], Any]) -> Candidate:
        return Candidate(_conditional(setting, prior, **options), again, second_phase=0.5)

    return {
        "VAE-TRIP, CP": candidate(lambda seed: ring(seed, alone)),
        "VAE-TRIP, flow": candidate(lambda seed: flow(ring(seed, setting.flow_rank), width)),
    }


def head_parameters(setting: Setting, sizes: Sequence[int]) -> int:
    """Of TELBO and JMVAE beyond encoder and decoder."""
    from torch import nn

    from adapters.models import TELBO

    model = TELBO(nn.Identity(), nn.Identity(), setting.latents, tuple(sizes))
    return vae.parameters(model)


def second_phase(model: Any, images: Any, updates: int, joint: float, folder: Path) -> float:
    """Further updates with a label for every image, and their seconds.

    Unknown labels are predicted from the codes, see `complete_labels`. In the share `joint` of the updates all of the
    model learns, in the others its prior alone. No image or label takes part that it has not seen in training.
    """
    from adapters.prior_phase import fit_prior
    from adapters.pseudo_labels import complete_labels

    begin = time.perf_counter()
    seen, border = copy.copy(images), round((1 - HELD_OUT) * len(images.splits["train"].images))
    held_out = images.splits["train"].rows(torch.arange(border, len(images.splits["train"].images)))
    seen.splits, seen.missing = images.splits | {"val": held_out}, 0.0  # their labels are hidden by now
    seen = complete_labels(model, seen)
    model.warm_up_steps = 0
    training.fit(model, seen, round(joint * updates), folder)
    if joint < 1:
        seen.splits |= {"train": seen.splits["train"].rows(torch.arange(border))}
        epochs = math.ceil((1 - joint) * updates / len(seen.train_dataloader()))
        fit = fit_prior(model, seen, epochs, attribute_weight=SECOND_WEIGHT)
        losses = ", ".join(f"{loss:.2f}" for loss in fit.history["validation"])
        print(f"the prior alone: {losses}; kept after {fit.best_epoch} epochs", flush=True)
    return time.perf_counter() - begin


def _conditional(setting: Setting, prior: Callable[[int], Any], **changed: Any) -> Make:
    def make(shape: Any, seed: int, options: dict[str, Any]) -> Any:
        from adapters.models import ConditionalVAE

        parts = _networks(setting, shape, setting.latents, options)
        return ConditionalVAE(*parts, prior(seed), **options | changed)

    return make


def _networks(setting: training.Setting, shape: Any, num_inputs: int, options: dict[str, Any]) -> tuple[Any, Any]:
    """Encoder, and decoder of so many inputs."""
    from adapters.networks import ConvDecoder, ConvEncoder

    outputs = (options["likelihood"].num_channels(shape[0]), *shape[1:])
    encoder = ConvEncoder(shape, 2 * setting.latents, setting.channels)
    return encoder, ConvDecoder(num_inputs, outputs, setting.channels)
