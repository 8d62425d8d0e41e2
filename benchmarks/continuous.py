"""How well do rings model continuous columns, beside scikit-learn's mixture of Gaussians?

8x8 patches of CIFAR-10 images and the measurements of the breast-cancer table. The peer's number of components and
every choice of the rings are made on validation rows.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture

import ringdist as rd

from . import data, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, default=data.SHARED / "cifar10_images.zip")
    parser.add_argument("--patches", type=int, default=6000, help="patches to learn from and to choose by")
    parser.add_argument("--epochs", type=int, default=20)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    tables = {
        "breast cancer": data.split(data.breast_cancer(), np.random.default_rng(0), (0.2, 0.2)),
        "8x8 patches": data.patches(args.images, args.patches // 10, 10, np.random.default_rng(0)),
    }
    sections: dict[str, list[dict[str, Any]]] = {"Chosen on validation": []}
    for name, rows in tables.items():
        sections[name] = study(name, rows, args.epochs)
        for model in dict.fromkeys(row["model"] for row in sections[name]):
            group = [row for row in sections[name] if row["model"] == model]
            sections["Chosen on validation"].append({"data": name, **max(group, key=lambda r: float(r["validation"]))})
    env = report.environment()
    report.write(args.out, "continuous", "Continuous tables", TEXT, sections, env, figure(sections))


TEXT = """\
Mean log-density per row in nats, in the units of the data whatever coordinates the model works in. *Gaussian mixture*
is scikit-learn's with full covariances. *Ring* and *train* have mixtures of one-dimensional Gaussians as columns, in
the order by mutual information. *From mixture*: exact EM starts near a mixture of products, `rd.initialize(...,
method="mixture")`; otherwise it starts from random cores. *Principal axes* first maps the columns to the principal
components of the training rows. This map is linear and invertible, and its log-determinant is added. A mixture with
full covariances is invariant to such a map; a ring is not. *One Gaussian* is the mixture of one component. Seconds are
processor seconds.

Given the states of the bonds, the columns of a ring are independent. Linear correlation therefore needs many states:
for two columns of correlation 0.99, about as many as there are conditional standard deviations in the range of a
column. A covariance needs one number. This is why rings lose in raw coordinates. In principal axes the correlation is
removed; heavy tails, a common scale and clusters remain, which rings model well.

The number of rows is small (80 % of `--patches`, 341 of the breast-cancer table). This limits a mixture with full
covariances: each component has d²/2 numbers, and validation selects only few components. With many more rows their
number would grow. On the patches validation selected eight components, the most that were tried."""


class Coordinates(NamedTuple):
    """z = (x − mean) axes, and log |det axes|."""

    mean: np.ndarray
    axes: np.ndarray
    log_volume: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) @ self.axes


def standardised(x: np.ndarray) -> Coordinates:
    scale = x.std(axis=0)
    return Coordinates(x.mean(axis=0), np.diag(1 / scale), -float(np.log(scale).sum()))


def principal(x: np.ndarray) -> Coordinates:
    """Principal components of the standardised columns, each of unit variance."""
    scale = x.std(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x / scale, rowvar=False))
    axes = (vectors / np.sqrt(values)) / scale[:, None]
    return Coordinates(x.mean(axis=0), axes, float(np.linalg.slogdet(axes)[1]))


def study(name: str, rows: data.Split, epochs: int) -> list[dict[str, Any]]:
    small = len(rows.train) < 1000
    found: list[dict[str, Any]] = []
    plain = standardised(rows.train)
    scaled = data.Split(*(plain(part) for part in rows))
    for count in (1, 2, 3, 4, 6) if small else (1, 2, 4, 8):
        for floor in (1e-6, 1e-3, 1e-2):
            begin = time.process_time()
            peer = GaussianMixture(count, reg_covar=floor, random_state=0).fit(scaled.train)
            parameters = count * (1 + scaled.train.shape[1] * (scaled.train.shape[1] + 3) // 2) - 1
            found.append(
                entry(
                    "one Gaussian" if count == 1 else "Gaussian mixture", scaled, peer.score_samples, plain.log_volume
                )
                | {"components": count, "floor": floor, "parameters": parameters, "seconds": since(begin)}
            )
        print(report.table(found[-3:]), flush=True)
    grid = [("ring", 4), ("train", 8)]
    for suffix, coordinates in {"": plain, ", principal axes": principal(rows.train)}.items():
        turned = data.Split(*(coordinates(part) for part in rows))
        settings: list[tuple[str, int, int, bool]] = [
            (t, m, n, False) for t, m in grid for n in ((4, 8) if small else (6,))
        ]
        settings += [("train", m, 8, True) for m in ((4, 8, 16) if small else (8, 16, 32))]
        settings += [("ring", m, 8, True) for m in ((4, 8) if small else (4,))]
        for topology, rank, components, mixture in settings:
            begin = time.process_time()
            start = started(turned.train, topology, rank, components, "mixture" if mixture else "quantile")
            ring = fitted(start, turned, epochs)
            label = topology + (" from mixture" if mixture else "") + suffix
            found.append(
                entry(label, turned, ring.log_prob, coordinates.log_volume)
                | {"rank": rank, "components": components, "parameters": ring.num_parameters, "seconds": since(begin)}
            )
            print(report.table(found[-1:]), flush=True)
    return found


def started(x: np.ndarray, topology: Any, rank: int, components: int, method: Any) -> rd.TensorRing:
    """Components at the columns' quantiles, cores random or near a mixture, the order by mutual information."""
    variables = rd.initialize(x, [rd.GaussianMixture] * x.shape[1], 1, num_components=components, rng=0).variables
    order = rd.ordering.mutual_information(x, variables, topology=topology)
    return rd.initialize(x, variables, rank, order=order, topology=topology, method=method, rng=0)


def fitted(start: rd.TensorRing, rows: data.Split, epochs: int) -> rd.TensorRing:
    return rd.fit_em(
        start,
        rows.train,
        validation=rows.validation,
        max_epochs=epochs,
        pseudocount=0.01,
        variance_floor=1e-2,
        patience=5,
    ).ring


def entry(model: str, rows: data.Split, log_prob: Any, log_volume: float) -> dict[str, Any]:
    values = {part: f"{np.mean(log_prob(x)) + log_volume:.2f}" for part, x in rows._asdict().items()}
    return {"model": model, "rank": None, "components": None, "floor": None, **values}


def since(begin: float) -> float:
    return time.process_time() - begin


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    tables = [name for name in sections if name != "Chosen on validation"]
    fig = Figure(figsize=(5 * len(tables), 4))
    for axes, name in zip(fig.subplots(1, len(tables)), tables, strict=True):
        best = sorted(
            (row for row in sections["Chosen on validation"] if row["data"] == name), key=lambda row: float(row["test"])
        )
        values = [float(row["test"]) for row in best]
        axes.barh([row["model"] for row in best], np.subtract(values, min(values)))
        axes.set(title=name, xlabel=f"test log-density above {min(values):.1f}, nats")
    fig.tight_layout()
    return fig
