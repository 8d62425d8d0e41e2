"""Models and data rebuilt from untrusted checkpoints: only classes of this project and of PyTorch are imported."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from adapters.data import ImageData
from adapters.errors import InputError, NotBuiltError, one_line

CONFIG = "ringdist_config"  # keys in checkpoints
ATTRIBUTES = "ringdist_attributes"
CATEGORIES = "ringdist_categories"
OWN = "adapters.", "torch.nn."  # packages whose classes a checkpoint may name
KINDS = nn.Module, LightningDataModule  # base classes of these; others, as `RingdistCLI`, might execute arguments
Part = TypeVar("Part")


class Checkpoint(NamedTuple):
    """A run of `ringdist fit` from its checkpoint, whose file is read once.

    Args:
        path: the file, for messages.
        content: the content of the file.
        config: the run's configuration as YAML; None: that in the checkpoint, whose classes must be this project's or
            PyTorch's (see `foreign_names`), so that a checkpoint cannot import other code.
    """

    path: str
    content: dict[str, Any]
    config: str | None = None

    @classmethod
    def read(cls, path: str, config: str | None = None) -> Checkpoint:
        """The checkpoint in a file; `InputError` if it is not one."""
        return cls(path, read_checkpoint(path), config)

    def model(self) -> LightningModule:
        """The model, ready for use; errors as `load_model`."""
        model = self.built("model", LightningModule)
        check_states(self.path, self.content["state_dict"], model.state_dict())
        model.load_state_dict(self.content["state_dict"])
        return model.eval()

    def generator(self) -> LightningModule:
        """The model, if it generates images; errors as `load_generator`."""
        model = self.model()
        if not hasattr(model, "sample"):
            raise InputError(f"{self.path}: {type(model).__name__} draws no images")
        return model

    def data(self) -> ImageData:
        """The data module, set up; errors as `load_data`."""
        data = self.built("data", LightningDataModule)
        if not isinstance(data, ImageData):
            raise InputError(f"{self.path}: the data must be an ImageData, found {type(data).__name__}")
        data.prepare_data()
        data.setup()
        return data

    def attribute_names(self) -> list[str]:
        """The names of the attributes of the run's data; `InputError` if the checkpoint does not contain them."""
        names: Any = self.content.get(ATTRIBUTES)
        if not is_names(names):
            raise InputError(
                f"{self.path}: the checkpoint does not name the attributes; only `ringdist fit` writes that"
            )
        return list(names)

    def categories(self) -> dict[str, list[str]]:
        """The names of the values of attributes; empty if the checkpoint does not contain them."""
        found: Any = self.content.get(CATEGORIES, {})
        if not isinstance(found, dict) or not is_names(list(found)) or not all(map(is_names, found.values())):
            raise InputError(f"{self.path}: {CATEGORIES} must map names of attributes to lists of names")
        return {name: list(values) for name, values in found.items()}

    def settings(self, name: str) -> Any:
        """The settings of the run's "model" or "data"; `InputError` if there are none in the configuration."""
        if self.config is None and CONFIG not in self.content:
            raise InputError(
                f"{self.path}: the checkpoint does not say how to build its {name}; only `ringdist fit` writes that"
            )
        config = self.content[CONFIG] if self.config is None else self.config
        settings = run_settings(self.path, config).get(name)
        if settings is None:
            raise InputError(f"{self.path}: the run's configuration names no {name}")
        return settings

    def built(self, name: str, kind: type[Part]) -> Part:
        """The "model" or the "data" of a run; errors as `load_model`."""
        settings = self.settings(name)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=kind)
        first = errors_of_networks(parser)
        try:
            if self.config is None:
                refuse(self.path, foreign_names(settings))
            parsed = parser.parse_object({name: settings})
            if self.config is None:  # jsonargparse looks up a class without dots among all imported classes
                refuse(self.path, [found for found in class_paths(parsed.as_dict()) if not is_own(found)])
            part: Part = parser.instantiate_classes(parsed)[name]
        except InputError:
            raise
        except Exception as error:  # constructors may raise any kind of error
            cause = first[0] if first else error
            raise NotBuiltError(f"{self.path}: the run's {name} cannot be built", one_line(cause)) from error
        return part


def load_model(path: str, config: str | None = None) -> LightningModule:
    """The model in a checkpoint of `ringdist fit`, ready for use.

    Args:
        path: the checkpoint.
        config: the run's configuration as YAML; None: that in the checkpoint, whose classes must be this project's or
            PyTorch's (see `foreign_names`), so that a checkpoint cannot import other code.

    Raises:
        InputError: if there is no such checkpoint, it contains no configuration, or a class in it is not allowed or
            cannot be built.

    Examples:
        >>> from adapters.checkpoints import load_model
        >>> model = load_model("runs/vae_digits/version_0/checkpoints/best.ckpt")  # doctest: +SKIP
    """
    return Checkpoint.read(path, config).model()


def load_generator(path: str, config: str | None = None) -> LightningModule:
    """As `load_model`, with an `InputError` also if the model does not generate images.

    Examples:
        >>> from adapters.checkpoints import load_generator
        >>> model = load_generator("runs/vae_digits/version_0/checkpoints/best.ckpt")  # doctest: +SKIP
        >>> model.sample(4).shape  # doctest: +SKIP
        torch.Size([4, 1, 8, 8])
    """
    return Checkpoint.read(path, config).generator()


def load_data(path: str, config: str | None = None) -> ImageData:
    """The data module of a run, set up; arguments and errors as `load_model`.

    Examples:
        >>> from adapters.checkpoints import load_data
        >>> load_data("runs/vae_digits/version_0/checkpoints/best.ckpt").image_shape  # doctest: +SKIP
        (1, 8, 8)
    """
    return Checkpoint.read(path, config).data()


def errors_of_networks(parser: ArgumentParser) -> list[Exception]:
    """A list to which the parser adds the errors of networks that it builds.

    The first one is the cause: after an error in a constructor, jsonargparse may try another interpretation of the
    setting, and report the error of that.
    """
    found: list[Exception] = []

    def build(kind: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        try:
            return kind(*args, **kwargs)
        except (TypeError, ValueError) as error:
            found.append(error)
            raise

    parser.add_instantiator(build, nn.Module, subclasses=True)
    return found


def is_names(value: Any) -> bool:
    """Whether a value is a list of names."""
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def run_settings(path: str, config: Any) -> dict[str, Any]:
    """A run's configuration from YAML; `InputError` if it is not one."""
    try:
        settings = yaml.safe_load(config)
    except (yaml.YAMLError, AttributeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: the run's configuration cannot be read ({one_line(error)})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: the run's configuration must name model and data, found {settings!r:.50}")
    return settings


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a Lightning checkpoint; `InputError` if the file is not one."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises errors of many kinds for other files
        raise InputError(f"{path}: not a readable checkpoint") from error
    has_keys = isinstance(checkpoint, dict) and {"state_dict", "pytorch-lightning_version"} <= checkpoint.keys()
    if not has_keys or not isinstance(checkpoint["state_dict"], dict):
        raise InputError(f"{path}: not a checkpoint of a training run")
    return checkpoint


def check_states(path: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise `InputError` naming the first entry of a state dict that does not fit the model."""
    for name in sorted(found.keys() | expected.keys()):
        in_model, in_file = expected.get(name), found.get(name)
        if in_model is None or in_file is None:
            where = "the model" if in_model is None else "the checkpoint"
            raise InputError(f"{path}: a checkpoint of another model: {where} has no {name}")
        if getattr(in_model, "shape", None) != getattr(in_file, "shape", None):
            raise InputError(
                f"{path}: a checkpoint of another model: {name} has shape {tuple(in_file.shape)} there and "
                f"{tuple(in_model.shape)} in the model"
            )


# ----------------------------------------------------------------------------------- classes that a checkpoint may name


def refuse(path: str, names: Sequence[str]) -> None:
    """Raise `InputError` for the first of the foreign names, if there are any."""
    if names:
        raise InputError(f"{path}: classes named in a checkpoint are not imported; give --run_config for {names[0]}")


def foreign_names(settings: Any) -> list[str]:
    """The strings in settings for which jsonargparse might import other code than the networks and data of `OWN`.

    jsonargparse imports the class of a `class_path`, and any import path where it expects a class or a function. It
    looks for both in strings that are YAML. Therefore no string may be YAML for anything except itself. A string that
    looks like an import path must be `is_own`, or its first part not the name of a module, as in attributes.csv.
    """
    classes = [name for name in class_paths(settings) if "." in name and not is_own(name)]
    others = [text for text in strings(settings) if not is_plain(text) or (is_importable(text) and not is_own(text))]
    return classes + others


def is_own(name: str) -> bool:
    """Whether a name is the import path of a network or data module that is defined, not only imported, in `OWN`."""
    if not name.startswith(OWN) or not is_import_path(name):
        return False
    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError:  # also if the path continues from a module that another one has imported
        return False
    return isinstance(found, type) and issubclass(found, KINDS) and found.__module__.startswith(OWN)


def is_importable(text: str) -> bool:
    """Whether a string is an import path whose first part is a module; the module is not imported."""
    try:
        return is_import_path(text) and importlib.util.find_spec(text.partition(".")[0]) is not None
    except ValueError:  # an imported module without a specification
        return True


def is_import_path(text: str) -> bool:
    """Whether a string consists of identifiers separated by dots."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def is_plain(text: str) -> bool:
    """Whether YAML reads a string as itself."""
    try:
        return not text or bool(yaml.load(text, yaml.BaseLoader) == text)
    except yaml.YAMLError:
        return False


def strings(settings: Any) -> list[str]:
    """All strings in a configuration except its keys."""
    if isinstance(settings, dict | list | tuple):
        values = settings.values() if isinstance(settings, dict) else settings
        return [text for value in values for text in strings(value)]
    return [settings] if isinstance(settings, str) else []


def class_paths(settings: Any) -> list[str]:
    """All classes that a configuration names."""
    if isinstance(settings, list):
        return [name for value in settings for name in class_paths(value)]
    if isinstance(settings, dict):
        own = [str(settings["class_path"])] if "class_path" in settings else []
        return own + class_paths(list(settings.values()))
    return []
