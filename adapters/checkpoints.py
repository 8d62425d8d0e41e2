"""Models and data rebuilt from checkpoints, in which nothing is trusted: no code but this project's and PyTorch's."""

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
from adapters.errors import InputError, one_line

CONFIG = "ringdist_config"  # keys in checkpoints
ATTRIBUTES = "ringdist_attributes"
CATEGORIES = "ringdist_categories"
OWN = "adapters.", "torch.nn."  # packages whose classes a checkpoint may name
KINDS = nn.Module, LightningDataModule  # and which: others, as `RingdistCLI`, might run what their arguments name
Part = TypeVar("Part")


class Checkpoint(NamedTuple):
    """A run of `ringdist fit` as its checkpoint tells it; the file is read once, whatever is asked.

    Args:
        path: the file, for messages.
        content: what it holds.
        config: the run's configuration as YAML; None: that in the checkpoint, whose classes must be this project's or
            PyTorch's (see `foreign_names`), so that a checkpoint cannot have other code imported.
    """

    path: str
    content: dict[str, Any]
    config: str | None = None

    @classmethod
    def read(cls, path: str, config: str | None = None) -> Checkpoint:
        """The checkpoint in a file; `InputError` if there is none."""
        return cls(path, read_checkpoint(path), config)

    def model(self) -> LightningModule:
        """The model, ready for use; errors as of `load_model`."""
        model = self.built("model", LightningModule)
        check_states(self.path, self.content["state_dict"], model.state_dict())
        model.load_state_dict(self.content["state_dict"])
        return model.eval()

    def generator(self) -> LightningModule:
        """The model, if it draws images; errors as of `load_generator`."""
        model = self.model()
        if not hasattr(model, "sample"):
            raise InputError(f"{self.path}: {type(model).__name__} draws no images")
        return model

    def data(self) -> ImageData:
        """The data module, set up; errors as of `load_data`."""
        data = self.built("data", LightningDataModule)
        if not isinstance(data, ImageData):
            raise InputError(f"{self.path}: the data must be an ImageData, found {type(data).__name__}")
        data.prepare_data()
        data.setup()
        return data

    def attribute_names(self) -> list[str]:
        """The names of the attributes of the run's data; `InputError` if the checkpoint does not tell them."""
        names: Any = self.content.get(ATTRIBUTES)
        if not is_names(names):
            raise InputError(
                f"{self.path}: the checkpoint does not name the attributes; only `ringdist fit` writes that"
            )
        return list(names)

    def categories(self) -> dict[str, list[str]]:
        """The names of the values of those attributes that have some; empty where a checkpoint does not tell them."""
        found: Any = self.content.get(CATEGORIES, {})
        if not isinstance(found, dict) or not is_names(list(found)) or not all(map(is_names, found.values())):
            raise InputError(f"{self.path}: {CATEGORIES} must map names of attributes to lists of names")
        return {name: list(values) for name, values in found.items()}

    def settings(self, name: str) -> Any:
        """The settings of the run's "model" or "data"; `InputError` if there are none."""
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
        """The "model" or the "data" of a run; errors as of `load_model`."""
        settings = self.settings(name)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=kind)
        first = errors_of_networks(parser)
        try:
            if self.config is None:
                refuse(self.path, foreign_names(settings))
            parsed = parser.parse_object({name: settings})
            if self.config is None:  # a class without dots was looked up among all that are loaded
                refuse(self.path, [found for found in class_paths(parsed.as_dict()) if not is_own(found)])
            part: Part = parser.instantiate_classes(parsed)[name]
        except InputError:
            raise
        except Exception as error:  # any that a constructor has for its arguments
            cause = first[0] if first else error
            raise InputError(f"{self.path}: the run's {name} cannot be built ({one_line(cause)})") from error
        return part


def load_model(path: str, config: str | None = None) -> LightningModule:
    """The model in a checkpoint of `ringdist fit`, ready for use.

    Args:
        path: the checkpoint.
        config: the run's configuration as YAML; None: that in the checkpoint, whose classes must be this project's or
            PyTorch's (see `foreign_names`), so that a checkpoint cannot have other code imported.

    Raises:
        InputError: if there is no such checkpoint or configuration in it, or it names other classes or none that can
            be built.
    """
    return Checkpoint.read(path, config).model()


def load_generator(path: str, config: str | None = None) -> LightningModule:
    """The same for a model that draws images; `InputError` also if it does not."""
    return Checkpoint.read(path, config).generator()


def load_data(path: str, config: str | None = None) -> ImageData:
    """The data module of a run, set up; arguments and errors as of `load_model`."""
    return Checkpoint.read(path, config).data()


def errors_of_networks(parser: ArgumentParser) -> list[Exception]:
    """The list to which errors of networks are added that the parser builds.

    Its first one is what is wrong: where a constructor fails, jsonargparse may try another meaning of the setting, and
    end with the error of that.
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
    """Whether it is a list of names."""
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def run_settings(path: str, config: Any) -> dict[str, Any]:
    """A run's configuration from YAML; `InputError` if it is none."""
    try:
        settings = yaml.safe_load(config)
    except (yaml.YAMLError, AttributeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: the run's configuration cannot be read ({one_line(error)})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: the run's configuration must name model and data, found {settings!r:.50}")
    return settings


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a Lightning checkpoint; `InputError` if the file is something else."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # fed with other bytes, an unpickler raises whatever it stumbles over
        raise InputError(f"{path}: not a readable checkpoint") from error
    marked = isinstance(checkpoint, dict) and {"state_dict", "pytorch-lightning_version"} <= checkpoint.keys()
    if not marked or not isinstance(checkpoint["state_dict"], dict):
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


# ---------------------------------------------------------------------------------- what a checkpoint may have imported


def refuse(path: str, names: Sequence[str]) -> None:
    """`InputError` for the first of the foreign names, if there are any."""
    if names:
        raise InputError(f"{path}: classes named in a checkpoint are not imported; give --run_config for {names[0]}")


def foreign_names(settings: Any) -> list[str]:
    """The strings in settings for which jsonargparse might import anything but the networks and data of `OWN`.

    It imports what `class_path` says, but also any import path where it wants a class or a function, and looks for both
    in YAML within strings. So no string may be YAML for anything but itself, and one that looks like an import path
    must be `is_own`, or begin with a name that no module has: that of the file attributes.csv does.
    """
    classes = [name for name in class_paths(settings) if "." in name and not is_own(name)]
    others = [text for text in strings(settings) if not is_plain(text) or (is_importable(text) and not is_own(text))]
    return classes + others


def is_own(name: str) -> bool:
    """Whether it is the import path of a network or data module of `OWN`, which is defined there, not just imported."""
    if not name.startswith(OWN) or not is_import_path(name):
        return False
    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError:  # also where the path goes on from a module that another one has imported
        return False
    return isinstance(found, type) and issubclass(found, KINDS) and found.__module__.startswith(OWN)


def is_importable(text: str) -> bool:
    """Whether it is an import path whose first part is a module, which is looked for without importing it."""
    try:
        return is_import_path(text) and importlib.util.find_spec(text.partition(".")[0]) is not None
    except ValueError:  # a loaded module that does not say where it is from
        return True


def is_import_path(text: str) -> bool:
    """Whether it is identifiers with dots between them."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def is_plain(text: str) -> bool:
    """Whether YAML reads a string as itself."""
    try:
        return not text or bool(yaml.load(text, yaml.BaseLoader) == text)
    except yaml.YAMLError:
        return False


def strings(settings: Any) -> list[str]:
    """All strings in a configuration but its keys."""
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
