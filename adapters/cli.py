"""The `ringdist` command: `fit`, `validate` and `test` of Lightning's command line, and commands for trained models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch import Tensor, nn

from adapters import figures
from adapters.callbacks import SeededSteps
from adapters.checkpoints import (
    ATTRIBUTES,
    CONFIG,
    attribute_names,
    check_states,
    class_paths,
    foreign_names,
    load_data,
    load_generator,
    load_model,
    read_checkpoint,
)
from adapters.conditions import satisfaction
from adapters.data import ImageData
from adapters.errors import DivergenceError, InputError
from adapters.hopping import mode_hopping
from adapters.metrics import distances, evaluating, inception_features
from adapters.models import AttributeClassifier, AttributeVAE
from adapters.priors.base import Attribute, attribute_rows


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
    """Writes the configuration beside the logs, as Lightning does, and into every checkpoint too.

    Beside it go the names of the data's attributes, so that nobody needs the data to draw images with some of them.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration and the names."""
        checkpoint[CONFIG] = self.parser.dump(self.config, skip_none=False)
        data = getattr(trainer, "datamodule", None)
        checkpoint[ATTRIBUTES] = list(data.attribute_names) if isinstance(data, ImageData) else []


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
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if path is not None:  # Lightning builds the model that a checkpoint's hyperparameters name, if there are any
            known = class_paths(config.as_dict())
            found = foreign_names(read_checkpoint(path).get("hyper_parameters"))
            if foreign := [name for name in found if name not in known]:
                raise InputError(f"{path}: its hyperparameters name {foreign[0]}, which the configuration does not")

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; where a setting breaks a rule of ours, that rule is the error."""
        first: list[Exception] = []  # jsonargparse may try another meaning of the setting and end with its error

        def build(kind: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
            try:
                return kind(*args, **kwargs)
            except (TypeError, ValueError) as error:
                first.append(error)
                raise

        self.parser.add_instantiator(build, nn.Module, subclasses=True)
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            cause = first[0] if first else cause
            if not _raised_here(cause):
                raise
            raise InputError(f"the configuration cannot be used: {cause}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with two loggers that share one folder unless others are configured."""
        settings = self._get(self.config_init, "trainer")
        if settings.get("logger") is None:
            root = settings.get("default_root_dir") or "runs"
            table = CSVLogger(root, name="")
            kwargs["logger"] = [table, TensorBoardLogger(root, name="", version=table.version)]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Compare checkpoint and data with the model before anything is written."""
        path = self._get(self.config, "ckpt_path")
        if path is not None:
            check_states(path, read_checkpoint(path)["state_dict"], self.model.state_dict())
        model, data = self.model, self.datamodule
        # In one process, because it may have to fetch the data: what is wrong there is wrong in all of them.
        if isinstance(data, ImageData) and self.trainer.is_global_zero:
            if isinstance(model, AttributeVAE | AttributeClassifier):
                data.prepare_data()
                data.setup()
                check_attributes(data, model.attributes if isinstance(model, AttributeVAE) else model.sizes)

    before_validate = before_test = before_fit


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
    check_picture(output)
    if n < 1:
        raise InputError(f"n must be at least 1, found {n}")
    config = read_config(run_config)
    model = load_generator(ckpt_path, config)
    set_seed(seed)
    if attributes is None:
        images = model.sample(n)
    elif isinstance(model, AttributeVAE):
        images = sample_given(model, n, attributes, attribute_names(ckpt_path))
    else:
        raise InputError(f"{ckpt_path}: {type(model).__name__} has no attributes")
    write_picture(images, output)


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
    check_picture(output)
    model = load_generator(ckpt_path, read_config(run_config))
    set_seed(seed)
    try:
        walks = mode_hopping(model.prior, rows, steps, num_dimensions)
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"{ckpt_path}: {error}") from error
    write_picture(model.generate(walks.flatten(0, 1)), output, columns=steps + 1)


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

    Where a classifier of the model's attributes is the judge, also how many of those of test images it finds in images
    drawn for them.

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
    check_device(device)
    config = read_config(run_config)
    model, data = load_generator(ckpt_path, config).to(device), load_data(ckpt_path, config)
    network = load_features(features, weights).to(device)
    check_features(features, network, data.image_shape, device)
    set_seed(seed)
    real = (images.to(device) for images, _ in data.rows("test"))
    drawn = (model.sample(min(batch_size, n - first)) for first in range(0, n, batch_size))
    try:
        frechet, precision, recall = distances(real, drawn, network)
    except ValueError as error:
        raise InputError(f"{ckpt_path}: {error}") from error
    distance = "FID" if features == INCEPTION else f"Fréchet distance (features of {features})"
    table = {distance: f"{frechet:.4g}", "precision": f"{precision:.4f}", "recall": f"{recall:.4f}"}
    table |= {"real images": str(len(data.splits["test"].images)), "generated images": str(n)}
    if isinstance(network, AttributeClassifier) and network.sizes == tuple(getattr(model, "attributes", ())):
        table |= found_attributes(model, network, data, n, batch_size)
    width = max(map(len, table))
    print(*(f"{name:<{width}}  {value:>8}" for name, value in table.items()), sep="\n")


INCEPTION = "inception"
COMMANDS: dict[str, Callable[..., None]] = {"evaluate": evaluate, "hop": hop, "sample": sample}
COMMANDS_HELP = "Further commands: " + "; ".join(
    f"{name}: {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
)


def _raised_here(error: BaseException) -> bool:
    """Whether the error comes from our own code, and not from a class of the user's or a library."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in ("adapters", "ringdist")


def set_seed(seed: int) -> None:
    """Of all libraries; `InputError` if it is none."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be in 0..2^32 - 1, found {seed}")
    seed_everything(seed, verbose=False)


def sample_given(model: AttributeVAE, n: int, specification: str, names: Sequence[str]) -> Tensor:
    """n images with the attributes NAME=VALUE,...; `InputError` naming the part that is none, or its rule."""
    if len(names) != len(model.attributes):
        raise other_attributes(names, len(model.attributes))
    y = torch.full((len(names),), torch.nan, device=model.device)
    for part in specification.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in names:
            raise InputError(f"{part!r}: attributes are {', '.join(names)}")
        j = names.index(name)
        if not y[j].isnan():
            raise InputError(f"{part!r}: {name} is given twice")
        try:
            y[j] = float(value)
            attribute_rows(y, model.attributes)
        except ValueError as error:
            raise InputError(f"{part!r}: {error}") from error
        if y[j].isnan():
            raise InputError(f"{part!r}: an attribute that is left out is free")
    return model.sample(n, y)


def found_attributes(
    model: AttributeVAE, judge: AttributeClassifier, data: ImageData, n: int, batch_size: int
) -> dict[str, str]:
    """Which share of requested attributes, those of n test images, the judge finds in the images drawn for them."""
    known = data.splits["test"].attributes
    requests = known[torch.randint(len(known), (n,))].to(model.device)
    found = satisfaction(judge, ((model.sample(len(y), y), y) for y in requests.split(batch_size)))
    shares = dict(zip(("all", *data.attribute_names), (found.accuracy, *found.accuracies), strict=True))
    return {f"requested and found, {name}": f"{share:.4f}" for name, share in shares.items()}


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


def check_attributes(data: ImageData, kinds: Sequence[Attribute]) -> None:
    """`InputError` naming the first image whose attributes a model of these kinds does not have."""
    names = data.attribute_names
    for stage, split in data.splits.items():
        if split.attributes.shape[1] != len(kinds):
            raise other_attributes(names, len(kinds))
        for j, (values, kind) in enumerate(zip(split.attributes.unbind(1), kinds, strict=True)):
            if kind == "continuous":
                outside, rule = values.isinf(), "is a finite number"
            else:
                outside = ~(values.isnan() | torch.isin(values, torch.arange(kind)))
                rule = f"takes whole numbers 0..{kind - 1}"
            if bool(outside.any()):
                row = int(outside.nonzero()[0])
                name = names[j] if j < len(names) else f"attribute {j}"
                raise InputError(f"{data.origin(stage, row)}: {name} {rule} in the model, found {values[row].item():g}")


def other_attributes(names: Sequence[str], number: int) -> InputError:
    """The error of data whose attributes are not as many as the model's."""
    return InputError(f"the data has the attributes {', '.join(names) or '(none)'}, the model {number} of them")


def check_picture(path: Path) -> None:
    """`InputError` if a file's name does not end as that of a picture does."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path}: must end in .png, .jpg or the like to say how to write a picture")


def write_picture(images: Tensor, path: Path, columns: int | None = None) -> None:
    """`figures.save_grid`; `InputError` if the file cannot be written."""
    try:
        figures.save_grid(images, path, columns)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error


def check_device(name: str) -> None:
    """`InputError` if PyTorch has no such device here."""
    try:
        torch.zeros(1, device=name).item()
    except (AssertionError, RuntimeError) as error:  # the former where PyTorch is built without CUDA
        raise InputError(f"device {name!r} cannot be used here ({str(error).partition(chr(10))[0]})") from error


def read_config(path: Path | None) -> str | None:
    """The text of a configuration, if one is given; `InputError` if it cannot be read."""
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable configuration ({error})") from error


if __name__ == "__main__":
    main()
