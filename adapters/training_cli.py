"""Training from the command line: `fit`, `validate`, `test` and `predict` of Lightning, with checks before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from adapters.callbacks import SeededSteps
from adapters.checkpoints import (
    ATTRIBUTES,
    CATEGORIES,
    CONFIG,
    check_states,
    class_paths,
    errors_of_networks,
    foreign_names,
    read_checkpoint,
)
from adapters.data import ImageData
from adapters.errors import InputError
from adapters.inputs import check_attributes, check_shapes
from adapters.models import AttributeClassifier, AttributeVAE


class ConfigInCheckpoint(SaveConfigCallback):
    """Writes the configuration to the log folder, as Lightning does, and also into every checkpoint.

    Checkpoints also contain the names of the data's attributes and of their values, so that images with given
    attributes can be generated without the data.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration and the names."""
        checkpoint[CONFIG] = self.parser.dump(self.config, skip_none=False)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ImageData):
            checkpoint[ATTRIBUTES] = list(data.attribute_names)
            checkpoint[CATEGORIES] = {name: list(values) for name, values in data.categories.items()}
        else:
            checkpoint[ATTRIBUTES], checkpoint[CATEGORIES] = [], {}


class RingdistCLI(LightningCLI):
    """Lightning's command line for any model and data module.

    Runs log to `trainer.default_root_dir`/version_N, as CSV and for TensorBoard, unless loggers are configured. All
    random numbers of training are functions of `seed_everything`, the epoch and the step (`SeededSteps`), so that a run
    resumed by `fit --ckpt_path` repeats an uninterrupted one.

    Examples:
        >>> from adapters.training_cli import RingdistCLI
        >>> RingdistCLI(["fit", "--config", "adapters/configs/vae_digits.yaml"])  # doctest: +SKIP
    """

    checkpoint: Mapping[str, Any] = MappingProxyType({})  # the content of --ckpt_path, until it has been checked

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
            },
            args=None if args is None else list(args),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, and check the checkpoint before anything is built or written."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if path is not None:  # Lightning would build a model named in the checkpoint's hyperparameters
            known = class_paths(config.as_dict())
            self.checkpoint = read_checkpoint(path)
            found = foreign_names(self.checkpoint.get("hyper_parameters"))
            if self.config.subcommand == "fit" and "optimizer_states" not in self.checkpoint:
                raise InputError(f"{path}: holds no state of training that could be resumed, as `fit-prior` writes it")
            if foreign := [name for name in found if name not in known]:
                raise InputError(f"{path}: its hyperparameters name {foreign[0]}, which the configuration does not")

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; an `InputError` names the rule of this project that a setting breaks."""
        first = errors_of_networks(self.parser)
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
        """The trainer, by default with two loggers that share one folder."""
        settings = self._get(self.config_init, "trainer")
        if settings.get("logger") is None:
            root = settings.get("default_root_dir") or "runs"
            table = CSVLogger(root, name="")
            kwargs["logger"] = [table, TensorBoardLogger(root, name="", version=table.version)]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Compare checkpoint and data with the model before anything is written."""
        if self.checkpoint:
            check_states(self._get(self.config, "ckpt_path"), self.checkpoint["state_dict"], self.model.state_dict())
            self.checkpoint = {}  # Lightning reads the file itself
        model, data = self.model, self.datamodule
        # One process is enough, and it may have to download the data.
        if isinstance(data, ImageData) and self.trainer.is_global_zero:
            data.prepare_data()
            data.setup()
            if isinstance(model, AttributeVAE | AttributeClassifier):
                check_attributes(data, model.attributes if isinstance(model, AttributeVAE) else model.sizes)
            check_shapes(model, data)
            print(*data.summary(), sep="\n")

    before_validate = before_test = before_fit


def _raised_here(error: BaseException) -> bool:
    """Whether this project's code raised the error, and not a class of the user or a library."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in ("adapters", "ringdist")
