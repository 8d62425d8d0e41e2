"""The `ringdist` command: `fit`, `validate` and `test` of Lightning's command line, and commands for trained models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import auto_cli
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from adapters.callbacks import SeededSteps
from adapters.checkpoints import ATTRIBUTES, CONFIG, check_states, class_paths, foreign_names, read_checkpoint
from adapters.commands import evaluate, hop, sample
from adapters.data import ImageData
from adapters.errors import DivergenceError, InputError
from adapters.inputs import check_attributes
from adapters.models import AttributeClassifier, AttributeVAE

COMMANDS: dict[str, Callable[..., None]] = {"evaluate": evaluate, "hop": hop, "sample": sample}
COMMANDS_HELP = "Further commands: " + "; ".join(
    f"{name}: {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
)


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


def _raised_here(error: BaseException) -> bool:
    """Whether the error comes from our own code, and not from a class of the user's or a library."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in ("adapters", "ringdist")


if __name__ == "__main__":
    main()
