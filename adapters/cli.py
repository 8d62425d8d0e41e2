"""The `ringdist` command: `fit`, `validate` and `test` of Lightning's command line, and commands for trained models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, auto_cli
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from adapters import figures
from adapters.callbacks import SeededSteps
from adapters.errors import InputError


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; what is wrong with a user's files is told in one line, with exit status 2."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        if given and given[0] in COMMANDS:
            auto_cli(COMMANDS[given[0]], args=given[1:], as_positional=False)
        else:
            RingdistCLI(args)
    except InputError as error:
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


def sample(ckpt_path: str, output: Path, n: int = 64, seed: int = 0, run_config: Path | None = None) -> None:
    """Draw images from a trained model.

    Args:
        ckpt_path: a checkpoint that `ringdist fit` wrote.
        output: the picture to write, e.g. samples.png.
        n: number of images.
        seed: of the draws.
        run_config: the run's config.yaml, for models with classes of your own, which a checkpoint cannot name.
    """
    model = load_model(ckpt_path, None if run_config is None else run_config.read_text())
    seed_everything(seed, verbose=False)
    figures.save_grid(model.sample(n), output)


CONFIG = "ringdist_config"  # the key in checkpoints
COMMANDS: dict[str, Callable[..., None]] = {"sample": sample}
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
    if config is None and CONFIG not in checkpoint:
        raise InputError(f"{path}: the checkpoint does not say how to build its model; only `ringdist fit` writes that")
    settings = yaml.safe_load(config or checkpoint[CONFIG])["model"]
    foreign = [name for name in class_paths(settings) if not name.startswith(("adapters.", "torch.nn."))]
    if foreign and config is None:
        raise InputError(f"{path}: classes named in a checkpoint are not imported; give --run_config for {foreign[0]}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=LightningModule)
    model: LightningModule = parser.instantiate_classes(parser.parse_object({"model": settings})).model
    check_states(path, checkpoint["state_dict"], model.state_dict())
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


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
