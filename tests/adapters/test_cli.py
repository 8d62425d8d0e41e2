"""The `ringdist` command: training, interruption, checkpoints, samples."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from PIL import Image

import adapters
from adapters import commands
from adapters.checkpoints import class_paths, read_checkpoint
from adapters.cli import COMMANDS, TRAINING, main
from tests.adapters.command import COMMAND_LINE, CONFIGS, ROOT, refused, states, tiny

pytestmark = COMMAND_LINE


@pytest.fixture
def one_thread():
    """As many threads as `launched` processes have: other numbers of them round sums differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def launched(*arguments: str) -> subprocess.Popen:
    """The command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "adapters.cli", *arguments]
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_fit_leaves_logs_configuration_and_checkpoint(trained):
    names = {file.name for file in trained.iterdir()}
    assert {"metrics.csv", "config.yaml", "checkpoints"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (trained / "checkpoints" / "step.ckpt").is_file()


def test_test_and_validate(trained, tmp_path, capsys):
    config = tiny(tmp_path / "again.yaml")
    for command in ("validate", "test"):
        main([command, "--config", config, "--ckpt_path", str(trained / "checkpoints" / "step.ckpt")])
    assert "test_iwae" in capsys.readouterr().out


def test_sample(trained, tmp_path):
    arguments = ["--ckpt_path", str(trained / "checkpoints" / "step.ckpt"), "--n", "9"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(["sample", *arguments, "--seed", str(seed), "--output", str(tmp_path / "new" / f"{name}.png")])
    pictures = [Image.open(tmp_path / "new" / f"{name}.png").tobytes() for name in "abc"]
    assert pictures[0] == pictures[1] != pictures[2]


def test_sample_with_attributes(trained, tmp_path, capsys):
    main(["fit", "--config", tiny(tmp_path / "run.yaml", "conditional_digits", max_epochs=1)])
    checkpoint = str(tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt")
    arguments = ["--ckpt_path", checkpoint, "--n", "9", "--output", "x.png", "--attributes"]
    pictures = []
    for given in ("digit=7, thickness=2", "digit=7,thickness=thick", "digit=7,thickness=thin"):
        main(["sample", *arguments, given])
        pictures.append(Path("x.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    for given, message in (
        ("digit=7,colour=2", "'colour=2': attributes are digit, thickness, slant"),
        ("digit=12", "'digit=12': attribute 0 takes integers 0..9, found 12"),
        ("slant=steep", "'slant=steep': categories are left = 0, upright = 1, right = 2"),
        ("digit=many", "'digit=many': could not convert string to float"),
        ("digit", "'digit': could not convert"),
        ("", "'': attributes are digit"),
        ("digit=7,digit=3", "'digit=3': digit is given twice"),
        ("digit=7,slant=nan", "'slant=nan': an attribute that is left out is free"),
    ):
        assert message in refused(capsys, "sample", *arguments, given)
    assert "seed must be in 0..2^32 - 1, found -1" in refused(capsys, "sample", *arguments, "digit=7", "--seed", "-1")
    arguments[1] = str(trained / "checkpoints" / "step.ckpt")
    assert "VAE has no attributes" in refused(capsys, "sample", *arguments, "digit=7")
    content = torch.load(checkpoint, weights_only=True)
    arguments[1] = str(tmp_path / "other.ckpt")
    for changed, message in (
        ({"ringdist_attributes": ["digit"]}, "the data has the attributes digit, the model 3 of them"),
        ({"ringdist_attributes": [[]]}, "the checkpoint does not name the attributes"),
        ({"ringdist_categories": {"slant": 3}}, "ringdist_categories must map names of attributes to lists of names"),
    ):
        torch.save(content | changed, arguments[1])
        assert message in refused(capsys, "sample", *arguments, "digit=7")
    del content["ringdist_categories"]  # of older versions
    torch.save(content, arguments[1])
    main(["sample", *arguments, "digit=7,slant=1"])


def test_sample_with_attributes_from_a_flow_over_a_ring(tmp_path):
    main(["fit", "--config", tiny(tmp_path / "run.yaml", "conditional_digits_flow", max_epochs=1)])
    checkpoint = str(tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt")
    main(["sample", "--ckpt_path", checkpoint, "--n", "4", "--output", "x.png", "--attributes", "digit=7"])
    assert Path("x.png").is_file()


def test_nobody_needs_the_data_to_draw_images_with_some_attributes(table, tmp_path):
    settings = yaml.safe_load(Path(tiny(tmp_path / "run.yaml", "conditional_digits", max_epochs=1)).read_text())
    settings["model"]["init_args"]["prior"]["init_args"]["attributes"] = [10, 2]
    options = {"path": str(table.parent), "attributes": "attributes.csv", "mode": "L", "batch_size": 4}
    settings["data"] = {"class_path": "adapters.data.ImageFolder", "init_args": options}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    main(["fit", "--config", str(tmp_path / "run.yaml")])
    table.parent.rename(tmp_path / "elsewhere")
    checkpoint = str(tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt")
    main(["sample", "--ckpt_path", checkpoint, "--output", "x.png", "--n", "4", "--attributes", "gender=1"])
    assert Path("x.png").is_file()


def test_hop(trained, tmp_path, capsys):
    arguments = ["--ckpt_path", str(trained / "checkpoints" / "step.ckpt"), "--rows", "3", "--steps", "2"]
    main(["hop", *arguments, "--num_dimensions", "1", "--output", str(tmp_path / "hops.png")])
    with Image.open(tmp_path / "hops.png") as picture:
        size = picture.size
    assert size[0] > 3 * 74 + 2 and size[1] > 3 * 74 + 2  # pixels of 9 by 9, frames, labels
    message = refused(capsys, "hop", *arguments, "--num_dimensions", "9", "--output", str(tmp_path / "no.png"))
    assert "num_dimensions must be at most 8, found 9" in message and not (tmp_path / "no.png").exists()


def test_evaluate(trained, classifier, capsys):
    arguments = ["--ckpt_path", str(trained / "checkpoints" / "step.ckpt"), "--features", classifier, "--n", "50"]
    for seed in ("1", "1", "2"):
        main(["evaluate", *arguments, "--batch_size", "40", "--seed", seed])
    table = capsys.readouterr().out.splitlines()
    assert table[:5] == table[5:10] and table[0] != table[10]
    assert table[0].startswith(f"Fréchet distance (features of {classifier})") and float(table[0].split()[-1]) > 0
    assert [row.split()[-1] for row in table[3:5]] == ["359", "50"]
    assert all(0 <= float(row.split()[-1]) <= 1 for row in table[1:3])


def test_evaluate_asks_for_attributes(classifier, tmp_path, capsys):
    main(["fit", "--config", tiny(tmp_path / "run.yaml", "conditional_digits", max_epochs=1)])
    judge = yaml.safe_load((CONFIGS / "classifier_digits.yaml").read_text())
    judge["model"]["init_args"]["sizes"] = [10, 3, 3]
    judge["data"]["init_args"]["strokes"] = True
    judge["trainer"] |= {"max_epochs": 1, "default_root_dir": str(tmp_path / "judge"), "enable_progress_bar": False}
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(judge))
    main(["fit", "--config", str(tmp_path / "judge.yaml")])
    checkpoint = str(tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt")
    (last,) = (tmp_path / "judge").rglob("last.ckpt")
    arguments = ["evaluate", "--ckpt_path", checkpoint, "--n", "50", "--features"]
    capsys.readouterr()
    main([*arguments, str(last)])
    rows = [line.rpartition(",")[2].split() for line in capsys.readouterr().out.splitlines() if "found" in line]
    assert [name for name, _ in rows] == ["all", "digit", "thickness", "slant"]
    shares = [float(share) for _, share in rows]
    assert all(0 <= share <= 1 for share in shares) and shares[0] == pytest.approx(sum(shares[1:]) / 3, abs=1e-4)
    main([*arguments, classifier])  # which knows the digit only
    assert "requested" not in capsys.readouterr().out


def test_evaluate_refuses_what_does_not_fit(trained, classifier, tmp_path, capsys):
    model = str(trained / "checkpoints" / "step.ckpt")
    assert "found VAE" in refused(capsys, "evaluate", "--ckpt_path", model, "--features", model)
    message = refused(capsys, "evaluate", "--ckpt_path", classifier, "--features", classifier)
    assert "AttributeClassifier draws no images" in message
    message = refused(capsys, "evaluate", "--ckpt_path", model, "--features", classifier, "--n", "1")
    assert "n must be at least 2" in message
    message = refused(capsys, "evaluate", "--ckpt_path", model, "--features", classifier, "--n", "3")
    assert "at least 4 generated rows, found 3" in message
    message = refused(capsys, "evaluate", "--ckpt_path", model, "--features", "inception", "--weights", "no.pth")
    assert "no.pth: there is no such file" in message
    content = torch.load(classifier, weights_only=True)
    content["ringdist_config"] = content["ringdist_config"].replace("- 8\n", "- 12\n")
    content["state_dict"]["network.5.weight"] = torch.zeros(64, 64 * 9)
    torch.save(content, tmp_path / "wide.ckpt")
    message = refused(capsys, "evaluate", "--ckpt_path", model, "--features", str(tmp_path / "wide.ckpt"))
    assert "wide.ckpt: the network takes no images of shape 1x8x8" in message
    content = torch.load(model, weights_only=True)
    content["ringdist_config"] = content["ringdist_config"].replace("adapters.data.Digits", "elsewhere.Data")
    torch.save(content, tmp_path / "odd.ckpt")
    message = refused(capsys, "evaluate", "--ckpt_path", str(tmp_path / "odd.ckpt"), "--features", classifier)
    assert "elsewhere.Data" in message


def test_help_names_all_commands(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["--help"])
    printed = capsys.readouterr().out
    assert ending.value.code == 0 and all(f"  {command} " in printed for command in TRAINING | COMMANDS)
    for command, line in COMMANDS.items():
        assert getattr(commands, command.replace("-", "_")).__doc__.splitlines()[0] == line and line in printed
    assert {"fit", "validate", "test", "predict"} == LightningCLI.subcommands().keys() == TRAINING.keys()


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), ([], 2), (["smaple", "--n", "3"], 2)])
def test_help_imports_neither_torch_nor_lightning(arguments, code):
    program = f"""
import sys
from adapters.cli import main
try:
    main({arguments})
except SystemExit as end:
    heavy = [name for name in ("torch", "lightning", "jsonargparse", "numpy") if name in sys.modules]
    print(end.code, heavy)
"""
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == f"{code} []"
    assert ("there is no command 'smaple'" in found.stderr) == ("smaple" in arguments)


def test_public_names_are_imported_when_they_are_asked_for():
    assert set(adapters.__all__) <= set(dir(adapters))
    assert all(getattr(adapters, name).__name__ == name for name in adapters.__all__)
    with pytest.raises(AttributeError, match="module 'adapters' has no attribute 'Other'"):
        adapters.Other  # noqa: B018


@pytest.mark.parametrize("command", ["sample", "hop", "evaluate"])
def test_a_checkpoint_is_read_once(command, trained, classifier, tmp_path, monkeypatch):
    path = str(trained / "checkpoints" / "step.ckpt")
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda name, **options: loads.append(str(name)) or load(name, **options))
    options = {
        "sample": ["--output", "x.png", "--n", "4"],
        "hop": ["--output", "x.png", "--rows", "2", "--steps", "1"],
        "evaluate": ["--features", classifier, "--n", "10"],
    }
    main([command, path, *options[command]])  # the checkpoint needs no --ckpt_path
    assert loads == [path, *([classifier] if command == "evaluate" else [])]


def test_a_resumed_checkpoint_is_read_once_before_the_run(trained, tmp_path, monkeypatch):
    path, reads = str(trained / "checkpoints" / "step.ckpt"), []
    read = lambda name: reads.append(name) or read_checkpoint(name)  # noqa: E731
    monkeypatch.setattr("adapters.training_cli.read_checkpoint", read)
    main(["test", "--config", tiny(tmp_path / "again.yaml"), "--ckpt_path", path])
    assert reads == [path]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_configuration_is_understood(name, capsys):
    with pytest.raises(SystemExit) as ending:
        main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), "--print_config"])
    assert ending.value.code == 0
    assert all(
        path.startswith(("adapters.", "lightning.")) for path in class_paths(yaml.safe_load(capsys.readouterr().out))
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_epochs_of_configurations_are_as_many_updates_as_they_say(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    config = yaml.safe_load(text)
    said = re.search(r"max_epochs: (\d+) +# ([\d ]+) (?:updates|batches)", text)
    if said is None:
        assert "max_epochs" in text and not re.search(r"max_epochs: \d+ *#", text)
        return
    images = {"MNIST": 60_000, "CIFAR10": 50_000, "CelebA": 162_770, "ImageFolder": 21_255}  # not for testing
    kind = config["data"]["class_path"].rpartition(".")[2]
    options = config["data"]["init_args"]
    held_out = 0 if kind == "CelebA" else options.get("validation", 0.1)
    training = images[kind] - (held_out if held_out >= 1 else round(held_out * images[kind]))
    batches = int(said[1]) * -(-training // options["batch_size"])
    assert 0 <= batches / int(said[2].replace(" ", "")) - 1 < 0.01, batches


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae_digits", "wgan_gp_digits"])
def test_a_killed_run_ends_as_the_unbroken_one(name, tmp_path, one_thread):
    epochs = {"name": name, "max_epochs": 8}
    main(["fit", "--config", tiny(tmp_path / "unbroken.yaml", **epochs)])
    checkpoint = tmp_path / "killed" / "version_0" / "checkpoints" / "step.ckpt"
    with launched("fit", "--config", tiny(tmp_path / "killed.yaml", **epochs)) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stdout.read()
    step = read_checkpoint(str(checkpoint))["global_step"]
    assert step < 8 * (8 if name == "vae_digits" else 10)  # a WGAN's generator takes steps of its own
    main(["fit", "--config", str(tmp_path / "killed.yaml"), "--ckpt_path", str(checkpoint)])
    resumed = states(tmp_path / "killed" / "version_1" / "checkpoints" / "step.ckpt")
    unbroken = states(tmp_path / "unbroken" / "version_0" / "checkpoints" / "step.ckpt")
    assert all(torch.equal(resumed[name], value) for name, value in unbroken.items()), step


@pytest.mark.slow
def test_two_processes_hold_the_same_model(tmp_path):
    config = tiny(tmp_path / "ddp.yaml", strategy="ddp", devices=2)
    with launched("fit", "--config", config) as process:
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "MEMBER: 2/2" in output
    checkpoint = read_checkpoint(str(tmp_path / "ddp" / "version_0" / "checkpoints" / "step.ckpt"))
    assert checkpoint["global_step"] == 2 * 4  # 719 images in batches of 2 times 100
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
