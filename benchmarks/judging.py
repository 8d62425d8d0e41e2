"""The classifier that judges generated images: its settings, and its training on real ones."""

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from . import training
from .measure import default_device


@dataclass(frozen=True, kw_only=True)
class Setting(training.Setting):
    classifier: tuple[int, tuple[int, ...], int]  # its features, channels and batches
    samples: int  # generated images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, help="generated images instead of the setting's own number")


class Judge:
    """Real images, and a classifier of their attributes that was trained on one split of them.

    With `--runs` it is kept in a folder of its own, NAME/classifier, and trained once.
    """

    def __init__(self, args: argparse.Namespace, name: str, setting: Setting, images: Any, split: str):
        from lightning.pytorch import seed_everything

        from adapters.models import AttributeClassifier
        from adapters.networks import ConvEncoder

        self.setting, self.images, self.samples = setting, images, args.samples or setting.samples
        self.device = default_device()
        images.setup()
        known = torch.cat([rows.attributes for rows in images.splits.values()]).nan_to_num(0)
        self.sizes = tuple(int(values.max()) + 1 for values in known.T)
        self.names = [name.replace("_", " ") for name in images.attribute_names]

        seen = copy.copy(images)
        seen.splits = images.splits | {"train": images.splits[split]}
        features, channels, batches = setting.classifier
        seed_everything(0, verbose=False)
        self.classifier = AttributeClassifier(ConvEncoder(images.image_shape, features, channels), features, self.sizes)
        with training.folder_or_scratch(args.runs and args.runs / name / "classifier") as folder:
            trainer = training.fit(self.classifier, seen, batches, folder)
        tested = trainer.test(self.classifier, images, verbose=False)[0]
        shares = ", ".join(f"{name} {tested[f'test_accuracy_{j}']:.4f}" for j, name in enumerate(self.names))
        self.classifier.to(self.device)
        print(f"classifier: test accuracy {tested['test_accuracy']:.4f} ({shares})", flush=True)


def shown(values: Mapping[str, float]) -> training.Row:
    """The values of real images, with the digits that `training.summary` gives those of the runs."""
    return {key: f"{value:.{2 if value >= 2 else 3}f}" for key, value in values.items()}
