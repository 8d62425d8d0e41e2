"""The `ringdist` command: options, configurations and data that cannot be used."""

from pathlib import Path

import pytest

pytest.importorskip("lightning")

import torch
import yaml

from adapters.checkpoints import read_checkpoint
from adapters.cli import main
from adapters.data import Digits
from adapters.errors import InputError
from adapters.inputs import check_attributes
from tests.adapters.command import COMMAND_LINE, CONFIGS, refused, tiny

pytestmark = COMMAND_LINE


def test_a_configuration_with_an_unknown_key(tmp_path, capsys):
    path = Path(tiny(tmp_path / "wrong.yaml"))
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["prior"]["init_args"]["ranks"] = 3
    path.write_text(yaml.safe_dump(config))
    assert "ranks" in refused(capsys, "fit", "--config", str(path))
    config["model"]["init_args"]["prior"]["init_args"].pop("ranks")
    path.write_text(yaml.safe_dump(config | {"modle": 1}))
    assert "modle" in refused(capsys, "fit", "--config", str(path))
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--model.prior.rank=-2", "ranks must be at least 1, found -2"),
        (
            "--model.prior.mean_range=[3,-3]",
            "mean_range must be two finite numbers in ascending order, found (3.0, -3.0)",
        ),
        ("--model.val_samples=0", "val_samples must be at least 1, found 0"),
        ("--model.warm_up_steps=-1", "warm_up_steps must be at least 0, found -1"),
        ("--model.encoder.channels=[]", "channels must be positive numbers, one for each layer, found []"),
        ("--data.batch_size=0", "batch_size must be at least 1, found 0"),
    ],
)
def test_settings_that_break_a_rule(setting, message, tmp_path, capsys):
    config = tiny(tmp_path / "run.yaml")
    assert f"the configuration cannot be used: {message}" in refused(capsys, "fit", "--config", config, setting)
    assert not (tmp_path / "run").exists()


def test_errors_of_other_code_keep_their_traceback(tmp_path):
    """A class of the user's is for the user to mend."""
    path = Path(tiny(tmp_path / "run.yaml"))
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["encoder"] = {
        "class_path": "torch.nn.GroupNorm",
        "init_args": {"num_groups": 3, "num_channels": 4},
    }
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"num_channels \(4\) must be divisible by num_groups \(3\)") as raised:
        main(["fit", "--config", str(path)])
    assert not isinstance(raised.value, InputError)


@pytest.mark.parametrize("command", ["sample", "hop"])
def test_pictures_that_cannot_be_drawn(command, trained, classifier, tmp_path, capsys, monkeypatch):
    drawn = ["--ckpt_path", str(trained / "checkpoints" / "step.ckpt"), "--output"]
    message = refused(capsys, command, "--ckpt_path", classifier, "--output", "x.png")
    assert f"{classifier}: AttributeClassifier draws no images" in message
    message = refused(capsys, command, *drawn, "x.png", "--run_config", "no.yaml")
    assert "no.yaml: not a readable configuration" in message
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, command, *drawn, "file/x.png")
    with monkeypatch.context() as patch:
        patch.setattr("adapters.checkpoints.read_checkpoint", lambda path: pytest.fail("a model is loaded"))
        for name in ("x.foo", "x"):
            assert f"{name}: must end in .png" in refused(capsys, command, *drawn, name)
    number = {"sample": "--n", "hop": "--rows"}[command]
    for given in ("0", "-1"):
        message = refused(capsys, command, *drawn, "x.png", number, given)
        assert f"{number[2:]} must be at least 1, found {given}" in message
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("device", ["cuda:97", "toaster", "meta"])
def test_a_device_that_is_not_there(device, trained, classifier, capsys):
    arguments = ["--ckpt_path", str(trained / "checkpoints" / "step.ckpt"), "--features", classifier]
    message = refused(capsys, "evaluate", *arguments, "--device", device)
    assert f"device '{device}' cannot be used here (" in message


@pytest.mark.parametrize("name", ["conditional_digits", "classifier_digits"])
@pytest.mark.parametrize(
    "sizes, message",
    [
        ([9, 2], r"09.png: age_group takes integers 0..8 in the model, found 9"),
        ([10, 2], r"07.png: gender takes integers 0..1 in the model, found 12"),
        ([10], r"the data has the attributes age_group, gender, the model 1 of them"),
    ],
)
def test_attributes_that_the_model_does_not_have(name, sizes, message, table, tmp_path, capsys):
    table.write_text(table.read_text().replace("07.png,7,1", "07.png,7,12").replace("19.png,9", "19.png,"))
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    model = config["model"]["init_args"]
    if "prior" in model:
        model["prior"]["init_args"]["attributes"] = sizes
    else:
        model["sizes"] = sizes
    options = {"path": str(table.parent), "attributes": "attributes.csv", "mode": "L"}
    config["data"] = {"class_path": "adapters.data.ImageFolder", "init_args": options}
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    for command in ("fit", "test"):
        assert message in refused(capsys, command, "--config", str(tmp_path / "run.yaml"))
    assert not (tmp_path / "run").exists()


def with_table(path: Path, table: Path, **options) -> str:
    """A configuration of a conditional model of the images beside a table, written to a file."""
    settings = yaml.safe_load(Path(tiny(path, "conditional_digits", max_epochs=1)).read_text())
    settings["model"]["init_args"]["prior"]["init_args"]["attributes"] = [10, 2]
    options = {"path": str(table.parent), "attributes": table.name, "mode": "L", "batch_size": 4} | options
    settings["data"] = {"class_path": "adapters.data.ImageFolder", "init_args": options}
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_categories_with_names(table, tmp_path, capsys):
    rows = "".join(f"{i:02}.png,{i % 10},{'' if i == 4 else ('male', 'female')[i % 2]}\n" for i in range(20))
    table.write_text("image,age_group,gender\n" + rows)
    main(["fit", "--config", with_table(tmp_path / "run.yaml", table)])
    assert "attributes: age_group, gender (female = 0, male = 1)" in capsys.readouterr().out.splitlines()
    checkpoint = tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt"
    assert read_checkpoint(str(checkpoint))["ringdist_categories"] == {"gender": ["female", "male"]}
    pictures = []
    for given in ("gender=female", "gender=0", "gender=male"):
        main(["sample", str(checkpoint), "--output", "x.png", "--n", "4", "--attributes", given])
        pictures.append(Path("x.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    message = refused(capsys, "sample", str(checkpoint), "--output", "x.png", "--attributes", "gender=other")
    assert message == "ringdist: error: 'gender=other': categories are female = 0, male = 1\n"


def test_categories_that_the_model_does_not_have(table, tmp_path, capsys):
    table.write_text(table.read_text().replace(",0\n", ",male\n").replace(",1\n", ",female\n"))
    config = with_table(tmp_path / "run.yaml", table)
    setting = "--model.prior.init_args.attributes="
    message = refused(capsys, "fit", "--config", config, f"{setting}[10,continuous]")
    assert "gender is one of female, male, the model has a real number for it" in message
    message = refused(capsys, "fit", "--config", config, f"{setting}[10,1]")
    assert "00.png: gender takes integers 0..0 in the model, found 1 (male)" in message


def test_a_second_table_in_the_folder(table, tmp_path, capsys):
    (table.parent / "notes.csv").write_text("anything")
    main(["fit", "--config", with_table(tmp_path / "run.yaml", table)])
    expected = f"{table.parent}: the table is attributes.csv, not notes.csv; the data's option `attributes` chooses"
    assert expected in capsys.readouterr().out.splitlines()
    config = with_table(tmp_path / "other.yaml", table, attributes="notes.csv")
    assert "notes.csv: the first row must be image,ATTRIBUTE" in refused(capsys, "fit", "--config", config)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        (
            "vae_digits",
            "--model.prior.init_args.num_latents=5",
            "the encoder must give 2 x 5 outputs, means and standard deviations of the prior's 5 latents, found 16",
        ),
        (
            "vae_digits",
            "--model.decoder.init_args.num_inputs=6",
            "the decoder must map 8 inputs, 8 latents, to what the likelihood of images of shape 1x8x8 takes",
        ),
        (
            "vae_digits",
            "--model.decoder.init_args.image_shape=[2,12,12]",
            "the decoder must give images of the data's shape 1x8x8, found 1x12x12",
        ),
        (
            "vae_digits",
            "--model.encoder.init_args.image_shape=[3,8,8]",
            "the encoder does not accept inputs of shape 1x8x8 (",
        ),
        ("cvae_digits", "--model.num_latents=7", "the encoder must give 2 x 7 outputs"),
        ("cvae_digits", "--model.decoder.init_args.num_inputs=8", "24 inputs, 8 latents and 16 of attributes"),
        ("conditional_digits", "--model.conditional_decoder=true", "24 inputs, 8 latents and 16 of attributes"),
        (
            "wgan_gp_digits",
            "--model.prior.init_args.num_latents=5",
            "the generator does not accept inputs of shape 5 (",
        ),
        (
            "wgan_gp_digits",
            "--model.critic.init_args.num_outputs=2",
            "the critic must map 1x8x8 to 1 numbers, found 2",
        ),
    ],
)
def test_parts_of_a_model_that_do_not_fit(name, setting, message, tmp_path, capsys):
    found = refused(
        capsys,
        *("fit", "--config", str(CONFIGS / f"{name}.yaml"), setting),
        f"--trainer.default_root_dir={tmp_path / 'run'}",
    )
    line = found.splitlines()[-1]
    assert line.startswith("ringdist: error: ") and message in line and "Traceback" not in found
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_not_there(capsys):
    message = refused(capsys, "fit", "--config", "no.yaml")
    assert "no.yaml" in message and "Traceback" not in message


def test_a_continuous_attribute_that_is_infinite():
    data = Digits()
    data.setup()
    check_attributes(data, [10])
    check_attributes(data, ["continuous"])
    data.splits["val"].attributes[3, 0] = -torch.inf
    with pytest.raises(InputError, match="image 3 of val: digit is a finite number in the model, found -inf"):
        check_attributes(data, ["continuous"])


def test_data_that_cannot_be_read(tmp_path, capsys):
    path = Path(tiny(tmp_path / "data.yaml"))
    config = yaml.safe_load(path.read_text())
    config["data"] = {"class_path": "adapters.data.MNIST", "init_args": {"path": "nothing.npz"}}
    path.write_text(yaml.safe_dump(config))
    assert "nothing.npz: there is no such file" in refused(capsys, "fit", "--config", str(path))
