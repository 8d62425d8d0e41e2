"""Two minutes with a ring: digits and their labels, fitted, compared and completed from one half of the image."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import ringdist as rd
from benchmarks.report import table

RANK, COMPONENTS, EPOCHS = 8, 6, 30
# What `make demo` draws, by the end of its path; of several runs the newest.
PICTURES = {
    "completions.png": "digits completed from their upper half by the ring, with the label",
    "samples.png": "digits that the ring draws for each label",
    "vae_digits/**/samples.png": "digits that the VAE with a TRIP prior draws",
    "vae_digits/**/reconstructions.png": "test digits, each beside what the VAE makes of its code",
    "vae_digits/**/prior.png": "the learned prior, and the codes of the training digits",
    "conditional/**/conditions.png": "digits drawn for each label by the conditional VAE",
    "conditional/**/changes.png": "one attribute of a digit changed at a time",
    "sevens.png": "sevens with thick strokes",
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
    parser.add_argument("--summary", action="store_true", help="learn nothing: say what `make demo` has left in --out")


def main(args: argparse.Namespace) -> None:
    if args.summary:
        print(summary(args.out))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    train, valid, test = digits(rng)
    families = [rd.GaussianMixture] * 64 + [rd.Categorical]
    start = rd.initialize(train, families, RANK, num_components=COMPONENTS, rng=args.seed)
    order = rd.ordering.mutual_information(train, start.variables)
    chain = rd.ordering.mutual_information(train, start.variables, "train")
    ring = rd.initialize(train, families, RANK, num_components=COMPONENTS, order=order, rng=args.seed)
    same_size = rd.compare.matched_train_rank(ring)
    rivals = {
        "independent": rd.initialize(train, families, 1, num_components=COMPONENTS, rng=args.seed),
        f"train, rank {same_size}": rd.initialize(
            train, families, same_size, num_components=COMPONENTS, order=chain, topology="train", rng=args.seed
        ),
        f"ring, rank {RANK}": ring,
    }
    rows, fitted = [], ring
    for name, model in rivals.items():
        print(f"learning: {name}", flush=True)
        begin = time.perf_counter()
        fitted = rd.fit_em(
            model,
            train,
            validation=valid,
            max_epochs=EPOCHS,
            pseudocount=0.02,
            variance_floor=1e-3,
            patience=5,
            progress=True,
        ).ring
        seconds = time.perf_counter() - begin
        score = fitted.log_prob(test).mean()
        label = np.argmax(fitted.component_posterior(64, hide_label(test)), axis=1)
        accuracy = np.mean(label == test[:, 64])
        rows.append(
            {
                "model": name,
                "parameters": fitted.num_parameters,
                "test log-likelihood, nats": f"{score:.2f}",
                "labels read off": f"{accuracy:.1%}",
                "fit, s": f"{seconds:.0f}",
            }
        )
    print(f"\n{fitted!r}\n")
    print(table(rows))
    complete(fitted, test[:8], args.out / "completions.png", args.seed)
    generate(fitted, args.out / "samples.png", args.seed)


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
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"wrote {path}")
