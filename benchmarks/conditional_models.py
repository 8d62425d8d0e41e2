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
from .conditional_settings import WEIGHT, Setting

TRANSFORMS = 3  # layers of a flow
SWITCHING_SHARE = 0.8  # of TELBO's parameters, in a ring of switching cores, which has many states and little else
SECOND_WEIGHT = 5.0  # that of a prior alone in the second phase, and of attributes in a mixture of codes
DROPPED = 0.2  # share of the predictions of every label whose rows a prior alone does not learn from
HELD_OUT = 0.1  # the share of the training images by which it chooses its epoch
CONDITIONAL = "VAE-TRIP, conditional decoder"

Make = Callable[[Any, int, dict[str, Any]], Any]  # from the images' shape, a seed and the options all models share


@dataclass(frozen=True)
class SecondPhase:
    """What `second_phase` does.

    Args:
        joint: the share of the updates in which all of the model learns; in the others the prior learns alone.
        again: whether the labels are predicted again for the prior alone, from the codes as they are then, which leaves
            out rows with `DROPPED` predictions, and the prior starts from a mixture of these codes.
    """

    joint: float = 1.0
    again: bool = False


@dataclass(frozen=True)
class Candidate:
    """A model under a name, made anew for each seed, and what is done beyond gradient steps.

    Args:
        make: the model.
        reinitialize: how its prior is re-initialised from latent codes, if at all.
        second_phase: what follows the first one, if anything does.
    """

    make: Make
    reinitialize: dict[str, Any] | None = None
    second_phase: SecondPhase | None = None


def candidates(setting: Setting, sizes: tuple[int, ...], *, every_order: bool) -> dict[str, Candidate]:
    """By name, for attributes of these sizes."""
    from adapters.models import CVAE, JMVAE, TELBO

    def baseline(kind: Any, inputs: int = 0) -> dict[str, Candidate]:
        def make(shape: Any, seed: int, options: dict[str, Any]) -> Any:
            parts = _networks(setting, shape, setting.latents + inputs, options)
            return kind(*parts, setting.latents, sizes, **options)

        return {
            kind.__name__: Candidate(make),
            f"{kind.__name__}, two phases": Candidate(make, second_phase=SecondPhase()),
        }

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
    """CP cores with private components, refitted from a mixture of codes.

    With transitions that switch, also under a decoder that sees attributes, and with full ones that EM refines: with a
    flow, and without one. All have about as many parameters as TELBO and JMVAE.
    """
    from adapters import FlowPrior, JointTRIP

    d, budget, first = setting.latents, head_parameters(setting, sizes), setting.flow_rank

    def ring(seed: int, rank: int, core: Any = "cp") -> Any:
        options: dict[str, Any] = {"private_components": True, "attribute_places": "spread"}
        return JointTRIP(d, sizes, None, rank, seed=seed, core=core, **options)

    def flow(base: Any, width: int) -> Any:
        return FlowPrior(base, "coupling", transforms=TRANSFORMS, hidden_features=(width, width))

    def nearest(prior: Callable[[int], Any], largest: int, share: float = 1.0) -> int:
        return vae.nearest(range(4, largest, 2), lambda size: vae.parameters(prior(size)), round(share * budget))

    alone, width = nearest(lambda rank: ring(0, rank), 200), nearest(lambda width: flow(ring(0, first), width), 200)
    switching = nearest(lambda rank: ring(0, rank, "switching"), 1000, SWITCHING_SHARE)
    options: dict[str, Any] = {"attribute_weight": WEIGHT, "weight_per_label": True}
    options |= {"prior_learning_rate": 3 * setting.prior_learning_rate}

    def candidate(prior: Callable[[int], Any], phase: SecondPhase, again: dict[str, Any], **changed: Any) -> Candidate:
        refits = setting.again(**again) | {"num_codes": setting.fits[2]}
        return Candidate(_conditional(setting, prior, **options | changed), refits, phase)

    def switches(seed: int) -> Any:
        return ring(seed, switching, "switching")

    by_em, by_mixture = {"method": "em"}, {"method": "mixture", "attribute_weight": SECOND_WEIGHT}
    half = SecondPhase(joint=0.5)
    sees: dict[str, Any] = {"seen": sizes, "attribute_weight": setting.seen_weight}
    return {
        "VAE-TRIP, CP": candidate(lambda seed: ring(seed, alone), half, by_em),
        "VAE-TRIP, flow": candidate(lambda seed: flow(ring(seed, first), width), half, by_em),
        "VAE-TRIP, switching": candidate(switches, SecondPhase(joint=0.5, again=True), by_mixture),
        CONDITIONAL: candidate(switches, SecondPhase(joint=0.75, again=True), by_mixture, **sees),
    }


def head_parameters(setting: Setting, sizes: Sequence[int]) -> int:
    """Of TELBO and JMVAE beyond encoder and decoder."""
    from torch import nn

    from adapters.models import TELBO

    model = TELBO(nn.Identity(), nn.Identity(), setting.latents, tuple(sizes))
    return vae.parameters(model)


def second_phase(model: Any, images: Any, updates: int, phase: SecondPhase, num_codes: int, folder: Path) -> float:
    """Further updates with a label for every image, and their seconds.

    Unknown labels are predicted, see `complete_labels`. No image or label takes part that the model has not seen in
    training.
    """
    from adapters.pseudo_labels import complete_labels

    begin = time.perf_counter()
    hidden, border = copy.copy(images), round((1 - HELD_OUT) * len(images.splits["train"].images))
    held_out = images.splits["train"].rows(torch.arange(border, len(images.splits["train"].images)))
    hidden.splits, hidden.missing = images.splits | {"val": held_out}, 0.0  # their labels are hidden by now
    seen = complete_labels(model, hidden)
    model.warm_up_steps = 0
    training.fit(model, seen, round(phase.joint * updates), folder)
    if phase.joint < 1:
        seen = complete_labels(model, hidden, drop=DROPPED) if phase.again else seen
        _fit_prior(model, seen, round((1 - phase.joint) * updates), num_codes if phase.again else None)
    return time.perf_counter() - begin


def _fit_prior(model: Any, images: Any, updates: int, num_codes: int | None) -> None:
    """Updates of the prior alone, from a mixture of so many codes if they are given, on all but the last images."""
    from adapters.callbacks import latent_codes
    from adapters.prior_phase import fit_prior

    rows = images.splits["train"]
    learned, chosen_by = torch.arange(len(rows.images)).split(round((1 - HELD_OUT) * len(rows.images)))
    images.splits |= {"train": rows.rows(learned), "val": rows.rows(chosen_by)}
    if num_codes is not None:
        codes = latent_codes(model, images, num_codes, seed=0)
        model.prior.reinitialize(*codes, method="mixture", attribute_weight=SECOND_WEIGHT)
    fit = fit_prior(model, images, math.ceil(updates / len(images.train_dataloader())), attribute_weight=SECOND_WEIGHT)
    losses = ", ".join(f"{loss:.2f}" for loss in fit.history["validation"])
    print(f"the prior alone: {losses}; kept after {fit.best_epoch} epochs", flush=True)


def _conditional(setting: Setting, prior: Callable[[int], Any], seen: tuple[int, ...] = (), **changed: Any) -> Make:
    """A `ConditionalVAE`, with a conditional decoder if the sizes of the attributes that it sees are given."""

    def make(shape: Any, seed: int, options: dict[str, Any]) -> Any:
        from adapters.models import ConditionalVAE

        parts = _networks(setting, shape, setting.latents + sum(seen), options)
        return ConditionalVAE(*parts, prior(seed), conditional_decoder=bool(seen), **options | changed)

    return make


def _networks(setting: training.Setting, shape: Any, num_inputs: int, options: dict[str, Any]) -> tuple[Any, Any]:
    """Encoder, and decoder of so many inputs."""
    from adapters.networks import ConvDecoder, ConvEncoder

    outputs = (options["likelihood"].num_channels(shape[0]), *shape[1:])
    encoder = ConvEncoder(shape, 2 * setting.latents, setting.channels)
    return encoder, ConvDecoder(num_inputs, outputs, setting.channels)
