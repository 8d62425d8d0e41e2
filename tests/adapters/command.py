"""The `ringdist` command as tests call it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from adapters.checkpoints import read_checkpoint
from adapters.cli import main
from tests.lightning_warnings import IGNORED

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "adapters" / "configs"

COMMAND_LINE = [  # of modules whose tests call it
    pytest.mark.usefixtures("command_line"),
    *IGNORED,
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),  # resumed runs write to new folders
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),  # of Lightning
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization:UserWarning"),  # see test_wgan.py
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists:UserWarning"),  # the configuration is in it
]


def tiny(path: Path, name: str = "vae_digits", **trainer) -> str:
    """A configuration for the digits, smaller, written to a file."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    model = config["model"]["init_args"]
    prior = model["prior"]["init_args"]
    prior = prior["base"]["init_args"] if "base" in prior else prior  # of a flow
    prior |= {"num_components": 3, "rank": 2}
    model |= {"val_samples": 2, "test_samples": 3} if name == "vae_digits" else {}
    config["data"]["init_args"] |= {"batch_size": 100, "validation": 0.5}
    step = {"every_n_train_steps": 2, "save_top_k": 1, "filename": "step", "enable_version_counter": False}
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": step}
    reinitialize = {"class_path": "adapters.callbacks.Reinitialize"}
    callbacks = [reinitialize, every] if name == "vae_digits" else [every]
    config["trainer"] |= {"callbacks": callbacks, "enable_progress_bar": False, "max_epochs": 2}
    config["trainer"] |= {"enable_model_summary": False, "default_root_dir": str(path.parent / path.stem)} | trainer
    path.write_text(yaml.safe_dump(config))
    return str(path)


def states(checkpoint: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(str(checkpoint))["state_dict"]


def refused(capsys, *arguments: str) -> str:
    """What the command says before it ends with status 2."""
    with pytest.raises(SystemExit) as ending:
        main(list(arguments))
    assert ending.value.code == 2
    return capsys.readouterr().err
