"""A new prior for a trained autoencoder: built like the run's model, fitted to its codes, saved as a checkpoint."""

from __future__ import annotations

import copy
import difflib
import inspect
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
import yaml
from lightning.pytorch import LightningModule
from torch import Tensor

import adapters
from adapters.checkpoints import CONFIG, Checkpoint, check_states, run_settings
from adapters.data import ImageData
from adapters.data.base import Stage
from adapters.errors import InputError, NotBuiltError, one_line
from adapters.models import VAE, ConditionalVAE
from adapters.priors import JointPrior, Prior
from adapters.priors.ring_prior import RingPrior
from ringdist.interop.atomic import write_atomically

KEPT_KEYS = "state_dict", "pytorch-lightning_version", "epoch", "global_step"  # of a checkpoint
KEPT_PREFIX = "ringdist_"


class Codes(NamedTuple):
    """One sample of q(z | x) for each of n images, (n, d), and the images' attributes (n, a)."""

    z: Tensor
    y: Tensor


def autoencoder(checkpoint: Checkpoint) -> VAE:
    """The model of a checkpoint; `InputError` unless it is a VAE with its prior as an argument."""
    model = checkpoint.model()
    if not isinstance(model, VAE):
        raise InputError(f"{checkpoint.path}: codes are those of a VAE's encoder, found {type(model).__name__}")
    if "prior" not in init_args(checkpoint.settings("model")):
        raise InputError(f"{checkpoint.path}: the prior of a {type(model).__name__} cannot be another one")
    return model


def init_args(settings: Any) -> dict[str, Any]:
    """The arguments in a model's settings."""
    arguments = settings.get("init_args") if isinstance(settings, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def specification(name: str | None, options: str | None, model: VAE) -> dict[str, Any]:
    """Class and arguments of a prior for the codes of a model; `InputError` if they are not valid.

    Args:
        name: a class of `adapters`, or a YAML file with `class_path` and `init_args`; None: `JointTRIP` for a model
            with a joint prior, `TRIP` for others.
        options: NAME=VALUE,... in YAML, further arguments of the class.
        model: the model, which determines latents and attributes.
    """
    joint = isinstance(model, ConditionalVAE)
    name = name or ("JointTRIP" if joint else "TRIP")
    given = arguments(options)
    if name.endswith((".yaml", ".yml")):
        found = from_file(Path(name))
        return found | {"init_args": init_args(found) | given}
    kinds = {label: getattr(adapters, label) for label in adapters.__all__ if is_prior(getattr(adapters, label))}
    if name not in kinds:
        raise InputError(f"prior must be a YAML file or one of {', '.join(kinds)}, found {name}")
    sizes: dict[str, Any] = {"num_latents": model.prior.num_latents}
    if joint:
        sizes["attributes"] = list(model.attributes)
    parameters = inspect.signature(kinds[name]).parameters
    sizes = {key: value for key, value in sizes.items() if key in parameters}
    check_arguments(name, parameters, sizes | given)
    return {"class_path": f"adapters.{name}", "init_args": sizes | given}


def check_arguments(name: str, parameters: Mapping[str, inspect.Parameter], given: dict[str, Any]) -> None:
    """`InputError` if a class does not have one of the given arguments, or needs another one."""
    kinds = {parameter.kind for parameter in parameters.values()}
    unknown = [] if inspect.Parameter.VAR_KEYWORD in kinds else [key for key in given if key not in parameters]
    if unknown:
        similar = difflib.get_close_matches(unknown[0], parameters, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        raise InputError(f"{name} has no argument {unknown[0]}, its arguments are {', '.join(parameters)}{hint}")
    required = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and key not in given
    ]
    if required:
        raise InputError(
            f"{name} needs {', '.join(required)}: give a YAML file with class_path and init_args instead of its name"
        )


def is_prior(value: object) -> bool:
    """Whether a value is a class of priors that is not abstract."""
    return inspect.isclass(value) and issubclass(value, Prior) and not inspect.isabstract(value)


def is_joint(prior: Prior) -> TypeGuard[JointPrior]:
    """Whether a prior has attributes; a flow has those of its base."""
    return isinstance(prior, JointPrior) and bool(prior.attributes)


def arguments(text: str | None) -> dict[str, Any]:
    """NAME=VALUE,... as a dictionary, with values in YAML; `InputError` naming the first invalid part."""
    found: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not name.isidentifier():
            raise InputError(f"{part!r}: options are NAME=VALUE, with commas between them; lists go into a YAML file")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"{part!r}: not a value in YAML ({one_line(error)})") from error
    return found


def from_file(path: Path) -> dict[str, Any]:
    """The specification in a YAML file."""
    try:
        found = run_settings(str(path), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable specification of a prior ({one_line(error)})") from error
    if not found.keys() <= {"class_path", "init_args"} or not isinstance(found.get("class_path"), str):
        raise InputError(f"{path}: a prior is given by class_path and init_args, found {', '.join(map(str, found))}")
    return found


def with_prior(checkpoint: Checkpoint, model: VAE, prior: dict[str, Any]) -> tuple[Checkpoint, LightningModule]:
    """The run with another prior in its configuration, and its model with the old networks and the unfitted prior."""
    config = checkpoint.content.get(CONFIG) if checkpoint.config is None else checkpoint.config
    settings = copy.deepcopy(run_settings(checkpoint.path, config))
    settings["model"]["init_args"]["prior"] = prior
    text = yaml.safe_dump(settings, sort_keys=False)
    kept = {
        name: value for name, value in checkpoint.content.items() if name in KEPT_KEYS or name.startswith(KEPT_PREFIX)
    }
    changed = Checkpoint(checkpoint.path, kept | {CONFIG: text}, None if checkpoint.config is None else text)
    try:
        fresh = changed.built("model", LightningModule)
    except NotBuiltError as error:  # the checkpoint's own model has been built, so the cause is the prior
        raise InputError(f"the prior {prior.get('class_path')} cannot be built ({error.reason})") from error
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("prior.")}
    state |= {name: value for name, value in fresh.state_dict().items() if name.startswith("prior.")}
    check_states(checkpoint.path, state, fresh.state_dict())
    if fresh.prior.num_latents != model.prior.num_latents:
        raise InputError(
            f"the prior must be over the model's {model.prior.num_latents} latents, found {fresh.prior.num_latents}"
        )
    if isinstance(model, ConditionalVAE) and model.conditional_decoder and fresh.attributes != model.attributes:
        raise InputError(
            f"the prior must be over the attributes {list(model.attributes)} that the decoder sees, found "
            f"{list(fresh.attributes)}"
        )
    fresh.load_state_dict(state)
    return changed, fresh.eval()


@torch.no_grad()
def codes_of(model: VAE, data: ImageData, stage: Stage, most: int | None = None) -> Codes:
    """One code for each image of a split, or for `most` random training images."""
    z, y, found = [], [], 0
    batches = data.rows(stage) if most is None else data.training_rows(most, 0)
    for images, attributes in batches:
        y.append(attributes.to(model.device))
        z.append(model.encode(images.to(model.device), y[-1])[0].sample())
        found += len(images)
    return Codes(torch.cat(z), torch.cat(y))


def fit_to_codes(prior: Prior, codes: Codes, **options: Any) -> None:
    """Re-initialise a prior from codes, and from attributes if it has any; by default, rings by EM with a new order.

    A prior that cannot be re-initialised is unchanged if no option is given, because it may be trained afterwards.

    Raises:
        InputError: if the prior cannot be re-initialised with these options, or the codes are not valid.
    """
    given = {name: value for name, value in options.items() if value is not None}
    innermost = prior
    while isinstance(base := getattr(innermost, "base", None), Prior):
        innermost = base
    if isinstance(innermost, RingPrior):
        given = {"method": "em", "order": "mutual_information"} | given
    if not given and type(innermost).reinitialize is Prior.reinitialize:
        return
    rows = codes if is_joint(prior) else codes[:1]
    try:
        inspect.signature(innermost.reinitialize).bind(*rows, **given)
        prior.reinitialize(*rows, **given)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise InputError(f"{type(prior).__name__} cannot be fitted to the codes: {one_line(error)}") from error


@torch.no_grad()
def log_likelihoods(prior: Prior, codes: Codes) -> dict[str, float]:
    """Mean log p(z) of codes in nats, and mean log p(y_observed | z) if the prior has attributes."""
    parts = zip(codes.z.split(1024), codes.y.split(1024), strict=True)
    log_prior, attributes = [], []
    for z, y in parts:
        log_prior.append(prior.log_prob(z))
        if is_joint(prior):
            attributes.append(prior.log_prob(z, y) - log_prior[-1])
    found = {"log p(z)": torch.cat(log_prior).mean().item()}
    return found | ({"log p(y | z)": torch.cat(attributes).mean().item()} if attributes else {})


def write_checkpoint(checkpoint: Checkpoint, model: LightningModule, path: Path) -> None:
    """Write the run with the model's weights to a file; `InputError` if this fails."""
    buffer = io.BytesIO()
    torch.save(checkpoint.content | {"state_dict": model.state_dict()}, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)})") from error
