"""Two minutes with a ring: digits and their labels, fitted, compared and completed from one half of the image."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import ringdist as rd
from benchmarks.report import table

RANK, COMPONENTS, EPOCHS = 8, 6, 30
CLUSTERS = 40  # of the train of bands
PRIOR_RANK = 100  # of the ring that sevens are drawn from
ATTRIBUTE_WEIGHT = 3.0  # of an attribute in its mixture of codes, so that few of its clusters mix digits
# What `make demo` draws, by the end of its path; of several runs the newest.
PICTURES = {
    "completions.png": "digits completed from their upper half by the ring, with the label",
    "samples.png": "digits that the ring draws for each label",
    "vae_digits/**/samples.png": "digits that the VAE with a TRIP prior draws",
    "vae_digits/**/reconstructions.png": "test digits, each beside what the VAE makes of its code",
    "vae_digits/**/prior.png": "the learned prior, and the codes of the training digits",
    "conditional/**/conditions.png": "digits drawn for each label by the conditional VAE",
    "conditional/**/changes.png": "one attribute of a digit changed at a time",
    "sevens.png": "sevens at temperature 0.7, from a ring fitted to the codes of the conditional VAE",
}
DONE = """
What was done: rings learned the digits and their labels together, and completed half-missing ones;
a TRIP learned the codes of a VAE as its prior; a joint TRIP over codes and attributes drew digits
with wanted attributes.
"""
NEXT = """
What to try next:
  a table of your own            docs/tutorials/tables.md
  other attributes               .venv/bin/ringdist sample --help
  a longer run, other priors     .venv/bin/ringdist fit --config adapters/configs/vae_digits.yaml --help
  what a ring brings, measured   .venv/bin/python -m benchmarks --help
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sevens", type=Path, help="a checkpoint of a conditional VAE of the digits, to draw sevens with"
    )
    parser.add_argument("--summary", action="store_true", help="learn nothing: say what `make demo` has left in --out")


def main(args: argparse.Namespace) -> None:
    if args.summary:
        print(summary(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if args.sevens is not None:
        sevens(args.sevens, args.out / "sevens.png", args.seed)
        return
    train, valid, test = digits(np.random.default_rng(args.seed))
    rows, fitted = [], {}
    for name, (start, options) in starts(train, args.seed).items():
        print(f"learning: {name}", flush=True)
        begin = time.perf_counter()
        ring = fitted[name] = rd.fit_em(start, train, validation=valid, progress=True, **options).ring
        rows.append(
            {
                "model": name,
                "parameters": ring.num_parameters,
                "test log-likelihood, nats": f"{ring.log_prob(test).mean():.2f}",
                "labels read off": f"{labels_read_off(ring, test):.1%}",
                "fit, s": f"{time.perf_counter() - begin:.0f}",
            }
        )
    best = max(fitted, key=lambda name: labels_read_off(fitted[name], valid))
    print(f"\n{table(rows)}\n")
    print(f"Pictures are of the {best}, which reads most labels off the validation images:\n{fitted[best]!r}\n")
    complete(fitted[best], test[:8], args.out / "completions.png", args.seed)
    generate(fitted[best], args.out / "samples.png", args.seed)


def starts(train: np.ndarray, seed: int) -> dict[str, tuple[rd.TensorRing, dict[str, Any]]]:
    """Where EM begins, and its options: a mixture of Gaussians for every pixel, or Gaussians of rows of pixels."""
    pixels = [rd.GaussianMixture] * 64 + [rd.Categorical]
    options = {"max_epochs": EPOCHS, "pseudocount": 0.02, "variance_floor": 1e-3, "patience": 5}
    initialize = functools.partial(rd.initialize, train, pixels, num_components=COMPONENTS, rng=seed)
    start = initialize(RANK)
    order = rd.ordering.mutual_information(train, start.variables)
    chain = rd.ordering.mutual_information(train, start.variables, "train")
    ring = initialize(RANK, order=order)
    same_size = rd.compare.matched_train_rank(ring)
    found = {
        "independent": initialize(1),
        f"train, rank {same_size}": initialize(same_size, order=chain, topology="train"),
        f"ring, rank {RANK}": ring,
        f"train of bands, rank {CLUSTERS}": bands(train, seed),
    }
    wide = options | {"variance_floor": 5e-3, "shrinkage": 1.0, "patience": 3}
    return {name: (model, wide if "bands" in name else options) for name, model in found.items()}


def bands(train: np.ndarray, seed: int) -> rd.TensorRing:
    """A train of four bands of two rows of pixels and the label: in each cluster a band has a full covariance."""
    names = [[f"pixel {i}" for i in range(start, start + 16)] for start in range(0, 64, 16)]
    families: list[Any] = [functools.partial(rd.MultivariateGaussianMixture, names=own) for own in names]
    return rd.initialize(
        train,
        [*families, rd.Categorical],
        CLUSTERS,
        num_components=CLUSTERS,
        topology="train",
        core="cp",
        method="mixture",
        spread=0.01,
        rng=seed,
    )


def labels_read_off(ring: rd.TensorRing, x: np.ndarray) -> float:
    """The share of rows whose most probable label given the pixels is right."""
    return float(np.mean(np.argmax(ring.component_posterior(64, hide_label(x)), axis=1) == x[:, 64]))


def sevens(checkpoint: Path, path: Path, seed: int, count: int = 64) -> None:
    """Draw sevens from a ring fitted to the codes of the trained encoder, and have them judged."""
    import torch
    from lightning.pytorch import seed_everything

    from adapters import JointTRIP
    from adapters.checkpoints import Checkpoint
    from adapters.figures import save_grid
    from adapters.refitting import codes_of

    run = Checkpoint.read(str(checkpoint))
    model, data = run.generator(), run.data()
    seed_everything(seed, verbose=False)
    with torch.no_grad():
        codes = codes_of(model, data, "train")
    options: dict[str, Any] = {"core": "switching", "private_components": True, "attribute_places": "spread"}
    model.prior = JointTRIP(codes.z.shape[1], model.attributes, rank=PRIOR_RANK, seed=seed, **options)
    model.prior.reinitialize(codes.z, codes.y, "mixture", attribute_weight=ATTRIBUTE_WEIGHT)
    print(f"A ring of rank {PRIOR_RANK}, a mixture of codes of the trained encoder, takes the place of the prior.")
    y = torch.tensor([7.0 if name == "digit" else torch.nan for name in data.attribute_names])
    judge, right = judge_of_digits(data)
    for temperature in (1.0, 0.7):
        images = model.sample(count, y, temperature=temperature)
        found = int((judge(images) == 7).sum())
        print(f"Of {count} sevens asked for at temperature {temperature:g}, the judge finds {found}.")
    save_grid(images, path, columns=8, title=f"7, all else free, at temperature {temperature:g}")
    print(f"The judge, a support vector classifier of real digits, is right about {right:.1%} of test images.")
    print(f"wrote {path}")


def judge_of_digits(data: Any) -> tuple[Callable[[Any], np.ndarray], float]:
    """A classifier of images (n, 1, 8, 8), which has learned from real ones, and its accuracy on test images."""
    from sklearn.svm import SVC

    def flat(images: Any) -> np.ndarray:
        return np.asarray(images.cpu()).reshape(len(images), -1)

    parts = {stage: data.splits[stage] for stage in ("train", "val", "test")}
    pixels = {stage: flat(part.images) / (data.levels - 1) for stage, part in parts.items()}
    labels = {stage: part.attributes[:, 0].numpy() for stage, part in parts.items()}
    learned = [stage for stage in parts if stage != "test"]
    judge = SVC(C=10.0).fit(*(np.concatenate([own[stage] for stage in learned]) for own in (pixels, labels)))
    return lambda images: judge.predict(flat(images)), float(judge.score(pixels["test"], labels["test"]))


def summary(folder: Path) -> str:
    """What was done, the pictures that are there, and what to try next."""
    newest = {what: max(folder.glob(end), key=_written, default=None) for end, what in PICTURES.items()}
    found = {path.as_posix(): what for what, path in newest.items() if path is not None}
    width = max(map(len, found), default=0)
    lines = [f"  {path:<{width}}  {what}" for path, what in found.items()]
    return "\n".join([DONE, f"Its pictures are in {folder}:", *(lines or ["  none"]), NEXT])


def _written(path: Path) -> float:
    return path.stat().st_mtime


def digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels in units of grey levels, dequantised, and the label; training, validation and test rows."""
    images, labels = load_digits(return_X_y=True)
    x = np.column_stack([images + rng.random(images.shape), labels])
    x = x[rng.permutation(len(x))]
    return x[:1200], x[1200:1400], x[1400:]


def hide_label(x: np.ndarray) -> np.ndarray:
    hidden = x.copy()
    hidden[:, 64] = np.nan
    return hidden


def complete(ring: rd.TensorRing, rows: np.ndarray, path: Path, seed: int, draws: int = 4) -> None:
    """The lower half and the label drawn given the upper half."""
    evidence = rows.copy()
    evidence[:, 32:] = np.nan
    drawn = ring.sample_given(evidence, draws, rng=seed)
    images = [rows, evidence, *drawn]
    titles = ["digit", "given", *[f"draw {i + 1}" for i in range(draws)]]
    figure, axes = plt.subplots(len(images), len(rows), figsize=(len(rows), len(images) + 0.5))
    for line, values, title in zip(axes, images, titles, strict=True):
        for axis, row in zip(line, values, strict=True):
            show(axis, row)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    save(figure, path)


def generate(ring: rd.TensorRing, path: Path, seed: int) -> None:
    """Digits drawn given their label only."""
    evidence = np.full((10, 65), np.nan)
    evidence[:, 64] = np.arange(10)
    figure, axes = plt.subplots(5, 10, figsize=(10, 5.5))
    for line, values in zip(axes, ring.sample_given(evidence, 5, rng=seed), strict=True):
        for axis, row in zip(line, values, strict=True):
            show(axis, row)
    save(figure, path)


def show(axis: plt.Axes, row: np.ndarray) -> None:
    colours = matplotlib.colormaps["gray_r"].with_extremes(bad="#9ecae1")
    axis.imshow(row[:64].reshape(8, 8), cmap=colours, vmin=0, vmax=17)
    axis.set_title("?" if np.isnan(row[64]) else f"{row[64]:.0f}", fontsize=8, pad=2)
    axis.set_xticks([])
    axis.set_yticks([])


def save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")
