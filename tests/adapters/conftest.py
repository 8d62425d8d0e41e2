"""Fixtures of the adapters' tests: a trained classifier, and images with a table of attributes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint of a classifier after one epoch."""
    from tests.adapters.command import CONFIGS, main

    folder = tmp_path_factory.mktemp("classifier")
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.max_epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ringdist"])
        patch.setenv("PL_GLOBAL_SEED", "0")
        config = str(CONFIGS / "classifier_digits.yaml")
        main(["fit", "--config", config, f"--trainer.default_root_dir={folder}", *quiet])
    return str(folder / "version_0" / "checkpoints" / "best.ckpt")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder of images, 8x8, and its table of two attributes."""
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), 10 * i).save(folder / f"{i:02}.png")
    rows = "".join(f"{i:02}.png,{i % 10},{i % 2}\n" for i in range(20))
    (folder / "attributes.csv").write_text("image,age_group,gender\n" + rows)
    return folder / "attributes.csv"
