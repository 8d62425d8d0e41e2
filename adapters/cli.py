"""The `ringdist` command: `fit`, `validate` and `test` of Lightning's command line, and commands for trained models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from jsonargparse import ArgumentParser, auto_cli
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn

from adapters import figures
from adapters.callbacks import SeededSteps
from adapters.data import ImageData
from adapters.errors import DivergenceError, InputError
from adapters.hopping import mode_hopping
from adapters.metrics import distances, evaluating, inception_features
from adapters.models import AttributeClassifier, AttributeVAE
from adapters.priors.base import attribute_rows


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; what is wrong with a user's files is told in one line, with exit status 2."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        if given and given[0] in COMMANDS:
            auto_cli(COMMANDS[given[0]], args=given[1:], as_positional=False)
        else:
            RingdistCLI(args)
    except (DivergenceError, InputError) as error:
        print(f"ringdist: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


class ConfigInCheckpoint(SaveConfigCallback):
    """Writes the configuration beside the logs, as Lightning does, and into every checkpoint too."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration."""
        checkpoint[CONFIG] = self.parser.dump(self.config, skip_none=False)


class RingdistCLI(LightningCLI):
    """Lightning's command line over any model and data module.

    Runs log to `trainer.default_root_dir`/version_N, as CSV and for TensorBoard, unless loggers are configured. All
    randomness of training is a function of `seed_everything`, the epoch and the step (`SeededSteps`), so that
    `fit --ckpt_path` ends where the unbroken run does.
    """

    def __init__(self, args: Sequence[str] | None = None):
        super().__init__(
            LightningModule,
            LightningDataModule,
            ConfigInCheckpoint,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={"callbacks": [SeededSteps()]},
            parser_kwargs={
                "prog": "ringdist",
                "description": "Train generative models with learnable priors.",
                "epilog": COMMANDS_HELP,
            },
            args=None if args is None else list(args),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and look at the checkpoint before anything is built or written."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None:
            read_checkpoint(path)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with two loggers that share one folder unless others are configured."""
        settings = self._get(self.config_init, "trainer")
        if settings.get("logger") is None:
            root = settings.get("default_root_dir") or "runs"
            table = CSVLogger(root, name="")
            kwargs["logger"] = [table, TensorBoardLogger(root, name="", version=table.version)]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Compare the checkpoint with the model before anything is written."""
        self._compare()

    def before_validate(self) -> None:
        """Compare the checkpoint with the model before anything is written."""
        self._compare()

    def before_test(self) -> None:
        """Compare the checkpoint with the model before anything is written."""
        self._compare()

    def _compare(self) -> None:
        path = self._get(self.config, "ckpt_path")
        if path is not None:
            check_states(path, read_checkpoint(path)["state_dict"], self.model.state_dict())


def sample(
    ckpt_path: str,
    output: Path,
    n: int = 64,
    attributes: str | None = None,
    seed: int = 0,
    run_config: Path | None = None,
) -> None:
    """Draw images from a trained model.

    Args:
        ckpt_path: a checkpoint that `ringdist fit` wrote.
        output: the picture to write, e.g. samples.png.
        n: number of images.
        attributes: what they shall be, e.g. digit=7,thickness=2, by the names of the run's data; all others are free.
        seed: of the draws.
        run_config: the run's config.yaml, for models with classes of your own, which a checkpoint cannot name.
    """
    config = None if run_config is None else run_config.read_text()
    model = load_model(ckpt_path, config)
    seed_everything(seed, verbose=False)
    if attributes is None:
        images = model.sample(n)
    elif isinstance(model, AttributeVAE):
        images = sample_given(model, n, attributes, load_data(ckpt_path, config).attribute_names)
    else:
        raise InputError(f"{ckpt_path}: {type(model).__name__} has no attributes")
    figures.save_grid(images, output)


def hop(
    ckpt_path: str,
    output: Path,
    rows: int = 8,
    steps: int = 9,
    num_dimensions: int = 5,
    seed: int = 0,
    run_config: Path | None = None,
) -> None:
    """Draw walks through the modes of a trained model's prior.

    Args:
        ckpt_path: a checkpoint that `ringdist fit` wrote.
        output: the picture to write, one row per walk, e.g. hops.png.
        rows: number of walks.
        steps: of each walk.
        num_dimensions: latent dimensions that are drawn anew, given all others, in each step.
        seed: of the draws.
        run_config: the run's config.yaml, for models with classes of your own, which a checkpoint cannot name.
    """
    model = load_model(ckpt_path, None if run_config is None else run_config.read_text())
    seed_everything(seed, verbose=False)
    try:
        walks = mode_hopping(model.prior, rows, steps, num_dimensions)
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"{ckpt_path}: {error}") from error
    figures.save_grid(model.generate(walks.flatten(0, 1)), output, columns=steps + 1)


def evaluate(
    ckpt_path: str,
    features: str,
    n: int = 10_000,
    batch_size: int = 100,
    seed: int = 0,
    weights: Path | None = None,
    device: str = "cpu",
    run_config: Path | None = None,
) -> None:
    """Compare images drawn from a trained model with the test images of its data.

    Args:
        ckpt_path: a checkpoint that `ringdist fit` wrote.
        features: whose features are compared: "inception" for the FID, or a checkpoint of an AttributeClassifier.
        n: number of images drawn.
        batch_size: images drawn at once; the draws depend on it.
        seed: of the draws.
        weights: torch-fidelity's file for Inception, where it cannot be fetched.
        device: of PyTorch, e.g. cuda.
        run_config: the run's config.yaml, for classes of your own, which a checkpoint cannot name.
    """
    if n < 2 or batch_size < 1:
        raise InputError(f"n must be at least 2 and batch_size at least 1, found {n} and {batch_size}")
    config = None if run_config is None else run_config.read_text()
    model, data = load_model(ckpt_path, config).to(device), load_data(ckpt_path, config)
    if not hasattr(model, "sample"):
        raise InputError(f"{ckpt_path}: {type(model).__name__} draws no images")
    network = load_features(features, weights).to(device)
    check_features(features, network, data.image_shape, device)
    seed_everything(seed, verbose=False)
    real = (images.to(device) for images, _ in data.rows("test"))
    drawn = (model.sample(min(batch_size, n - first)) for first in range(0, n, batch_size))
    try:
        frechet, precision, recall = distances(real, drawn, network)
    except ValueError as error:
        raise InputError(f"{ckpt_path}: {error}") from error
    distance = "FID" if features == INCEPTION else f"Fréchet distance (features of {features})"
    table = {distance: f"{frechet:.4g}", "precision": f"{precision:.4f}", "recall": f"{recall:.4f}"}
    table |= {"real images": str(len(data.splits["test"].images)), "generated images": str(n)}
    width = max(map(len, table))
    print(*(f"{name:<{width}}  {value:>8}" for name, value in table.items()), sep="\n")


CONFIG = "ringdist_config"  # the key in checkpoints
INCEPTION = "inception"
COMMANDS: dict[str, Callable[..., None]] = {"evaluate": evaluate, "hop": hop, "sample": sample}
COMMANDS_HELP = "Further commands: " + "; ".join(
    f"{name}: {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
)


def load_model(path: str, config: str | None = None) -> LightningModule:
    """The model in a checkpoint of `ringdist fit`, ready for use.

    Args:
        path: the checkpoint.
        config: the run's configuration as YAML; None: that in the checkpoint, whose classes must be this project's or
            PyTorch's, so that a checkpoint cannot have other code imported.

    Raises:
        InputError: if there is no such checkpoint or configuration in it, or it names other classes.
    """
    checkpoint = read_checkpoint(path)
    model = built(path, checkpoint, config, "model", LightningModule)
    check_states(path, checkpoint["state_dict"], model.state_dict())
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def load_data(path: str, config: str | None = None) -> ImageData:
    """The data module of a run, set up; arguments and errors as of `load_model`."""
    data = built(path, read_checkpoint(path), config, "data", LightningDataModule)
    if not isinstance(data, ImageData):
        raise InputError(f"{path}: the data must be an ImageData, found {type(data).__name__}")
    data.prepare_data()
    data.setup()
    return data


def sample_given(model: AttributeVAE, n: int, specification: str, names: Sequence[str]) -> Tensor:
    """n images with the attributes NAME=VALUE,...; `InputError` naming the part that is none, or its rule."""
    if len(names) != len(model.attributes):
        raise InputError(f"the data has the attributes {', '.join(names)}, the model {len(model.attributes)} of them")
    y = torch.full((len(names),), torch.nan, device=model.device)
    for part in specification.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in names:
            raise InputError(f"{part!r}: attributes are {', '.join(names)}")
        try:
            y[names.index(name)] = float(value)
            attribute_rows(y, model.attributes)
        except ValueError as error:
            raise InputError(f"{part!r}: {error}") from error
    return model.sample(n, y)


def load_features(name: str, weights: Path | None = None) -> nn.Module:
    """A feature network by its name; `InputError` if there is no such one.

    Args:
        name: "inception", or a checkpoint of an `AttributeClassifier`.
        weights: as of `inception_features`.
    """
    if name == INCEPTION:
        return inception_features(weights)
    network = load_model(name)
    if not isinstance(network, AttributeClassifier):
        raise InputError(f"{name}: features must be those of an AttributeClassifier, found {type(network).__name__}")
    return network


def check_features(name: str, network: nn.Module, image_shape: Sequence[int], device: str) -> None:
    """`InputError` if the network does not take images (C, H, W)."""
    try:
        with evaluating(network):
            network(torch.zeros(1, *image_shape, device=device))
    except RuntimeError as error:
        shape = "x".join(map(str, image_shape))
        raise InputError(f"{name}: the network takes no images of shape {shape} ({error})") from error


Part = TypeVar("Part")


def built(path: str, checkpoint: dict[str, Any], config: str | None, name: str, kind: type[Part]) -> Part:
    """The "model" or the "data" of a run; arguments and errors as of `load_model`."""
    if config is None and CONFIG not in checkpoint:
        raise InputError(
            f"{path}: the checkpoint does not say how to build its {name}; only `ringdist fit` writes that"
        )
    settings = yaml.safe_load(config or checkpoint[CONFIG]).get(name)
    if settings is None:
        raise InputError(f"{path}: the run's configuration names no {name}")
    foreign = [found for found in class_paths(settings) if not found.startswith(("adapters.", "torch.nn."))]
    if foreign and config is None:
        raise InputError(f"{path}: classes named in a checkpoint are not imported; give --run_config for {foreign[0]}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=kind)
    part: Part = parser.instantiate_classes(parser.parse_object({name: settings}))[name]
    return part


def class_paths(settings: Any) -> list[str]:
    """All classes that a configuration names."""
    if isinstance(settings, list):
        return [name for value in settings for name in class_paths(value)]
    if isinstance(settings, dict):
        own = [str(settings["class_path"])] if "class_path" in settings else []
        return own + class_paths(list(settings.values()))
    return []


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a Lightning checkpoint; `InputError` if the file is something else."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # fed with other bytes, an unpickler raises whatever it stumbles over
        raise InputError(f"{path}: not a readable checkpoint") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "pytorch-lightning_version"} <= checkpoint.keys():
        raise InputError(f"{path}: not a checkpoint of a training run")
    return checkpoint


def check_states(path: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """`InputError` naming the first entry by which a checkpoint does not fit the model."""
    for name in sorted(found.keys() | expected.keys()):
        ours, theirs = expected.get(name), found.get(name)
        if ours is None or theirs is None:
            where = "the model" if ours is None else "the checkpoint"
            raise InputError(f"{path}: a checkpoint of another model: {where} has no {name}")
        if getattr(ours, "shape", None) != getattr(theirs, "shape", None):
            raise InputError(
                f"{path}: a checkpoint of another model: {name} has shape {tuple(theirs.shape)} there and "
                f"{tuple(ours.shape)} in the model"
            )


if __name__ == "__main__":
    main()
