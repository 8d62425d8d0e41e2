"""Checkpoints that the `ringdist` command is given: other ones, broken ones, hostile ones."""

import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import torch
import yaml

from adapters.checkpoints import foreign_names
from adapters.cli import main
from tests.adapters.command import COMMAND_LINE, CONFIGS, refused, tiny

pytestmark = COMMAND_LINE


def test_files_that_are_no_checkpoints(trained, tmp_path, capsys):
    text = tmp_path / "text.ckpt"
    text.write_text("hello")
    config = tiny(tmp_path / "run.yaml")
    assert "there is no such checkpoint" in refused(capsys, "fit", "--config", config, "--ckpt_path", "no.ckpt")
    assert "not a readable checkpoint" in refused(capsys, "fit", "--config", config, "--ckpt_path", str(text))
    torch.save({"weights": torch.zeros(2)}, text)
    assert "not a checkpoint of a training run" in refused(capsys, "test", "--config", config, "--ckpt_path", str(text))
    (tmp_path / "x.png").write_text("kept")
    assert "not a checkpoint" in refused(capsys, "sample", "--ckpt_path", str(text), "--output", "x.png")
    assert (tmp_path / "x.png").read_text() == "kept" and not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model(trained, tmp_path, capsys):
    checkpoint = trained / "checkpoints" / "step.ckpt"
    before = checkpoint.read_bytes()
    path = Path(tiny(tmp_path / "other.yaml"))
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["prior"]["init_args"]["rank"] = 4
    path.write_text(yaml.safe_dump(config))
    message = refused(capsys, "fit", "--config", str(path), "--ckpt_path", str(checkpoint))
    assert "a checkpoint of another model: prior." in message and "in the model" in message
    config["model"]["init_args"]["prior"] = {"class_path": "adapters.GaussianPrior", "init_args": {"num_latents": 8}}
    path.write_text(yaml.safe_dump(config))
    assert "the model has no prior." in refused(capsys, "fit", "--config", str(path), "--ckpt_path", str(checkpoint))
    assert checkpoint.read_bytes() == before and not (tmp_path / "other").exists()


def test_classes_named_in_a_checkpoint_are_not_imported(trained, tmp_path, capsys):
    content = torch.load(trained / "checkpoints" / "step.ckpt", weights_only=True)
    content["ringdist_config"] = content["ringdist_config"].replace(
        "adapters.networks.ConvEncoder", "elsewhere.Encoder"
    )
    torch.save(content, tmp_path / "odd.ckpt")
    message = refused(capsys, "sample", "--ckpt_path", str(tmp_path / "odd.ckpt"), "--output", "x.png")
    assert "elsewhere.Encoder" in message
    config = str(trained / "config.yaml")
    main(["sample", "--ckpt_path", str(tmp_path / "odd.ckpt"), "--run_config", config, "--output", "x.png", "--n", "1"])
    del content["ringdist_config"]
    torch.save(content, tmp_path / "odd.ckpt")
    message = refused(capsys, "sample", "--ckpt_path", str(tmp_path / "odd.ckpt"), "--output", "x.png")
    assert "does not say how to build its model" in message


# ---------------------------------------------------------------------------------- what a checkpoint may have imported


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> str:
    """The name of a module that can be imported, with an encoder and a function that makes priors."""
    (tmp_path / "elsewhere_on_path.py").write_text(
        "from torch import nn\nfrom adapters import Prior\n"
        "class Encoder(nn.Identity): pass\n"
        "def make(encoder: nn.Module) -> Prior: raise SystemError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "elsewhere_on_path", raising=False)
    return "elsewhere_on_path"


FOREIGN = {  # settings of a model by which jsonargparse would import `elsewhere`, or run what is not a network
    "short": {"encoder": "{}.Encoder"},
    "class path": {"encoder": {"class_path": "{}.Encoder"}},
    "in YAML": {"encoder": "class_path: {}.Encoder"},
    "in JSON": {"encoder": '{{"class_path": "{}.Encoder"}}'},
    "escaped": {"encoder": '{{"class_path": "{}\\u002eEncoder"}}'},
    "unreadable date": {"encoder": "{{class_path: {}.Encoder, init_args: {{a: 2020-13-45}}}}"},
    "dotted key": {"encoder.class_path": "{}.Encoder"},
    "function": {"prior": "{}.make"},
    "function of ours": {"prior": "adapters.cli.main"},
    "through our imports": {"prior": "adapters.checkpoints.importlib.import_module"},
    "through PyTorch's": {"encoder": "torch.nn.modules.module.torch.jit.ScriptModule"},
    "no network": {"encoder": {"class_path": "adapters.training_cli.RingdistCLI"}},
    "imported by us": {"encoder": {"class_path": "adapters.training_cli.LightningModule"}},
    "loaded, by its last name": {"encoder": "FrechetInceptionDistance"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_checkpoint_cannot_have_other_code_imported(case, trained, elsewhere, tmp_path, capsys):
    importlib.import_module("torchmetrics.image.fid")  # a network that is loaded and neither ours nor PyTorch's

    def filled(value):
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value.format(elsewhere)

    content = torch.load(trained / "checkpoints" / "step.ckpt", weights_only=True)
    config = yaml.safe_load(content["ringdist_config"])
    config["model"]["init_args"] |= filled(FOREIGN[case])
    torch.save(content | {"ringdist_config": yaml.safe_dump(config)}, tmp_path / "odd.ckpt")
    message = refused(capsys, "sample", "--ckpt_path", str(tmp_path / "odd.ckpt"), "--output", "x.png")
    assert "classes named in a checkpoint are not imported; give --run_config for" in message
    assert elsewhere not in sys.modules


def test_hyperparameters_in_a_checkpoint_cannot_have_other_code_imported(trained, elsewhere, tmp_path, capsys):
    content = torch.load(trained / "checkpoints" / "step.ckpt", weights_only=True)
    torch.save(content | {"hyper_parameters": {"_class_path": f"{elsewhere}.Encoder"}}, tmp_path / "odd.ckpt")
    message = refused(
        capsys, "test", "--config", tiny(tmp_path / "run.yaml"), "--ckpt_path", str(tmp_path / "odd.ckpt")
    )
    assert f"its hyperparameters name {elsewhere}.Encoder" in message and elsewhere not in sys.modules


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_checkpoints_of_all_configurations_are_taken(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert not foreign_names({part: config[part] for part in ("model", "data")})


def test_names_of_files_are_no_import_paths():
    assert not foreign_names(["attributes.csv", "data/mnist.npz", "runs/a.b", "../x.zip", "C:\\data.zip", "", "abs"])


def test_a_checkpoint_whose_configuration_cannot_be_used(trained, tmp_path, capsys):
    content = torch.load(trained / "checkpoints" / "step.ckpt", weights_only=True)
    path, config = tmp_path / "odd.ckpt", content["ringdist_config"]
    for found, message in (
        ("model: [", "the run's configuration cannot be read (while parsing"),
        (3, "the run's configuration cannot be read"),
        ("model", "the run's configuration must name model and data, found 'model'"),
        ("model: &model [*model]", "the run's model cannot be built (maximum recursion depth"),
        ("model: 3", "the run's model cannot be built ("),
        (config.replace("rank:", "ranks:"), "the run's model cannot be built ("),
        (config.replace("norm: null", "norm: odd", 1), "the run's model cannot be built ("),
        (config.replace("- 32", "- 0.5", 1), "the run's model cannot be built ("),
    ):
        torch.save(content | {"ringdist_config": found}, path)
        printed = refused(capsys, "sample", "--ckpt_path", str(path), "--output", "x.png")
        assert f"{path}: {message}" in printed and printed.count("\n") == 1, printed
    torch.save(content | {"state_dict": 3}, path)
    message = refused(capsys, "sample", "--ckpt_path", str(path), "--output", "x.png")
    assert "not a checkpoint of a training run" in message
