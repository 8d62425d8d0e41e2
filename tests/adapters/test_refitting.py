"""`ringdist fit-prior`: another prior for a trained autoencoder."""

import math
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import torch
import yaml

from adapters import TRIP, GaussianPrior, prior_phase, refitting
from adapters.checkpoints import load_data, load_model
from adapters.cli import main
from tests.adapters.command import COMMAND_LINE, CONFIGS, refused, states, tiny

pytestmark = COMMAND_LINE


@pytest.fixture
def checkpoint(trained) -> str:
    return str(trained / "checkpoints" / "step.ckpt")


def table(printed: str) -> dict[str, list[float]]:
    """The rows that were printed, by their names."""
    rows = {}
    for line in printed.splitlines():
        if line.startswith(("N(0, I)", "new ")) or " of the checkpoint" in line:
            values = [word for word in line.split() if word.replace("-", "").replace(".", "").isdigit()]
            rows[line[: line.index(values[0])].strip()] = [float(value) for value in values]
    return rows


def with_model(folder: Path, checkpoint: Path) -> str:
    """A configuration of the model in a checkpoint."""
    config = yaml.safe_load(Path(tiny(folder / "tiny.yaml")).read_text())
    config["model"] = yaml.safe_load(torch.load(checkpoint, weights_only=True)["ringdist_config"])["model"]
    (folder / "changed.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "changed.yaml")


def test_a_ring_is_fitted_to_the_codes(checkpoint, tmp_path, capsys):
    output = tmp_path / "new" / "model.ckpt"
    arguments = ["--prior_args", "num_components=5,rank=4", "--max_epochs", "5", "--samples", "x.png"]
    main(["fit-prior", checkpoint, "--output", str(output), *arguments])
    rows = table(capsys.readouterr().out)
    assert list(rows) == ["N(0, I)", "TRIP of the checkpoint", "new TRIP"]
    assert rows["new TRIP"][0] > rows["N(0, I)"][0] and (tmp_path / "x.png").is_file()
    old, new = load_model(checkpoint), load_model(str(output))
    assert isinstance(new.prior, TRIP) and new.prior.num_components == 5 and new.prior.ring.ranks == (4,) * 8
    before, after = old.state_dict(), new.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("prior."))
    torch.manual_seed(0)
    x = torch.cat([images for images, _ in load_data(checkpoint).rows("test")])
    z = new.encode(x)[0].sample()
    for label, prior in (("N(0, I)", GaussianPrior(8)), ("TRIP of the checkpoint", old.prior), ("new TRIP", new.prior)):
        assert rows[label][0] == pytest.approx(prior.log_prob(z).mean().item(), abs=0.3), label  # other draws
    main(["sample", str(output), "--output", "y.png", "--n", "4"])
    config = with_model(tmp_path, output)
    main(["test", "--config", config, "--ckpt_path", str(output)])
    message = refused(capsys, "fit", "--config", config, "--ckpt_path", str(output))
    assert "model.ckpt: holds no state of training that could be resumed, as `fit-prior` writes it" in message


def test_the_same_seed_fits_the_same_prior(checkpoint, tmp_path):
    found = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        path = tmp_path / f"{name}.ckpt"
        options = ["--output", str(path), "--seed", seed, "--prior_args", "num_components=3,rank=2"]
        main(["fit-prior", checkpoint, *options])
        found.append(states(path))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["prior.means"], found[2]["prior.means"])


@pytest.mark.parametrize(
    ("prior", "options"),
    [
        ("GaussianPrior", []),
        ("GaussianMixturePrior", ["--prior_args", "num_components=7"]),
        ("TRIP", ["--prior_args", "num_components=3,rank=2,topology=train", "--method", "gmm"]),
    ],
)
def test_other_priors(prior, options, checkpoint, trained, capsys):
    main(["fit-prior", checkpoint, "--prior", prior, *options, "--num_codes", "400"])
    rows, path = table(capsys.readouterr().out), trained / "checkpoints" / f"step-{prior}.ckpt"
    assert math.isfinite(rows[f"new {prior}"][0]) and type(load_model(str(path)).prior).__name__ == prior
    path.unlink()


def test_a_prior_from_a_file(checkpoint, tmp_path, capsys):
    base = {"class_path": "adapters.TRIP", "init_args": {"num_latents": 8, "num_components": 3, "rank": 2}}
    spec = {"class_path": "adapters.FlowPrior", "init_args": {"base": base}}
    (tmp_path / "flow.yaml").write_text(yaml.safe_dump(spec))
    arguments = ["fit-prior", checkpoint, "--prior", "flow.yaml", "--output", "flow.ckpt"]
    main([*arguments, "--prior_args", "flow=maf"])
    assert "new FlowPrior" in table(capsys.readouterr().out)
    (tmp_path / "flow.yaml").write_text(yaml.safe_dump(spec | {"class_path": "elsewhere.Prior"}))
    assert "classes named in a checkpoint are not imported; give --run_config for" in refused(capsys, *arguments)
    base["init_args"]["num_latents"] = 5
    (tmp_path / "flow.yaml").write_text(yaml.safe_dump(base))
    assert "the prior must be over the model's 8 latents, found 5" in refused(capsys, *arguments)
    (tmp_path / "flow.yaml").write_text("rank: 3")
    message = refused(capsys, *arguments)
    assert "flow.yaml: a prior is given by class_path and init_args, found rank" in message


def test_gradient_steps_after_the_fit(checkpoint, capsys):
    found = []
    for epochs in ("0", "4"):
        options = ["--prior_args", "num_components=4,rank=3", "--method", "gmm", "--epochs", epochs]
        main(["fit-prior", checkpoint, "--output", f"{epochs}.ckpt", *options, "--learning_rate", "0.02"])
        found.append(capsys.readouterr().out)
    assert table(found[0])["TRIP of the checkpoint"] == table(found[1])["TRIP of the checkpoint"]  # the same codes
    before, after = (table(printed)["new TRIP"][0] for printed in found)
    assert after > before + 0.05 and "gradient steps: the best epoch of" in found[1]
    old, new = states("0.ckpt"), states("4.ckpt")
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all(name.startswith("prior.") for name in changed)


def test_a_prior_over_codes_and_attributes(tmp_path, capsys):
    """That of a conditional decoder, which can only see the attributes that it knows."""
    decoder = ["--model.conditional_decoder=true", "--model.decoder.init_args.num_inputs=24"]
    main(["fit", "--config", tiny(tmp_path / "run.yaml", "conditional_digits", max_epochs=1), *decoder])
    checkpoint = str(tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt")
    capsys.readouterr()
    options = ["--prior_args", "num_components=4,rank=6", "--max_epochs", "5"]
    main(["fit-prior", checkpoint, "--output", "new.ckpt", *options])
    rows = table(capsys.readouterr().out)
    old, new = rows["JointTRIP of the checkpoint"], rows["new JointTRIP"]
    assert len(old) == len(new) == 2 and len(rows["N(0, I)"]) == 1
    assert new[1] > old[1] and new[1] > -math.log(10 * 3 * 3)
    main(["sample", "new.ckpt", "--output", "x.png", "--n", "4", "--attributes", "digit=7,slant=left"])
    sizes = {"num_latents": 8, "attributes": [10, 3, 4], "num_components": 4, "rank": 2}
    Path("prior.yaml").write_text(yaml.safe_dump({"class_path": "adapters.JointTRIP", "init_args": sizes}))
    message = refused(capsys, "fit-prior", checkpoint, "--output", "other.ckpt", "--prior", "prior.yaml")
    assert "the attributes [10, 3, 3] that the decoder sees, found [10, 3, 4]" in message


def test_labels_that_are_unknown_are_completed(tmp_path, monkeypatch):
    path = Path(tiny(tmp_path / "run.yaml", "conditional_digits", max_epochs=1))
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["missing"] = 0.9
    path.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(path)])
    checkpoint = str(tmp_path / "run" / "version_0" / "checkpoints" / "step.ckpt")
    fitted, trained = [], []
    plain, phase = refitting.fit_to_codes, prior_phase.fit_prior
    monkeypatch.setattr(refitting, "fit_to_codes", lambda p, codes, **kw: (fitted.append(codes), plain(p, codes, **kw)))
    monkeypatch.setattr(prior_phase, "fit_prior", lambda *a, **kw: (trained.append((a[1], kw)), phase(*a, **kw))[1])
    options = ["--prior_args", "num_components=4,rank=4", "--epochs", "1", "--attribute_weight", "5"]
    for name, completed in (("few", []), ("all", ["--complete_labels", "true"])):
        main(["fit-prior", checkpoint, "--output", f"{name}.ckpt", *options, *completed])
    assert 0.8 < fitted[0].y.isnan().float().mean() < 1 and not fitted[1].y.isnan().any()
    assert not trained[1][0].splits["train"].attributes.isnan().any() and trained[1][1]["attribute_weight"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prior", "Other"], "prior must be a YAML file or one of TRIP, "),
        (["--prior", "no.yaml"], "no.yaml: not a readable specification of a prior"),
        (["--prior_args", "rank"], "'rank': options are NAME=VALUE"),
        (["--prior_args", "rank=[2"], "'rank=[2': not a value in YAML"),
        (["--prior_args", "ranks=3"], "error: TRIP has no argument ranks, its arguments are num_latents, "),
        (["--prior_args", "ranks=3"], "mean_range, std; did you mean rank?"),
        (["--prior_args", "xyz=3", "--prior", "GaussianPrior"], "GaussianPrior has no argument xyz, its arguments are"),
        (["--prior_args", "rank=0"], "the prior adapters.TRIP cannot be built (ranks must be at least 1, found 0)"),
        (["--prior", "FlowPrior"], "FlowPrior needs base: give a YAML file with class_path and init_args"),
        (["--prior", "VampTRIP"], "VampTRIP needs encoder, input_shape: give a YAML file"),
        (["--prior_args", "num_components=5000"], "TRIP cannot be fitted to the codes: "),
        (["--method", "best"], "TRIP cannot be fitted to the codes: method must be one of"),
        (["--prior", "GaussianPrior", "--method", "em"], "GaussianPrior cannot be fitted to the codes: "),
        (["--num_codes", "1"], "num_codes must be at least 2 and max_epochs 1, found 1 and None"),
        (["--epochs", "-1"], "epochs must be at least 0 and learning_rate positive, found -1 and 0.005"),
        (["--prior", "GaussianPrior", "--epochs", "1"], "GaussianPrior: a prior that is not trainable cannot be"),
        (["--samples", "x.foo"], "x.foo: must end in .png"),
        (["--output", "file/x.ckpt", "--prior", "GaussianPrior"], "file/x.ckpt: cannot be written ("),
    ],
)
def test_what_cannot_be_fitted_is_told_in_one_line(options, message, checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    printed = refused(capsys, "fit-prior", checkpoint, *options)
    assert message in printed and printed.splitlines()[-1].startswith("ringdist: error: ")
    assert "Traceback" not in printed


def test_models_without_codes_or_without_a_prior_of_their_own(tmp_path, capsys):
    for name, message in (
        ("wgan_gp_digits", "codes are those of a VAE's encoder, found WGAN"),
        ("cvae_digits", "the prior of a CVAE cannot be another one"),
    ):
        config = yaml.safe_load(Path(tiny(tmp_path / "base.yaml")).read_text())
        own = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        config["model"], config["data"] = own["model"], own["data"]
        config["trainer"] |= {"default_root_dir": str(tmp_path / name), "max_epochs": 1}
        config["trainer"]["callbacks"] = config["trainer"]["callbacks"][1:]
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        main(["fit", "--config", str(tmp_path / f"{name}.yaml")])
        path = str(tmp_path / name / "version_0" / "checkpoints" / "step.ckpt")
        assert message in refused(capsys, "fit-prior", path)
