"""Which model draws images with the attributes asked for, when most attributes are unknown in training?

The VAE with a tensor ring over codes and attributes against CVAE, TELBO and JMVAE: the paper's Table 6.
"""

import argparse
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import judging, report, training
from .conditional_models import CONDITIONAL, Candidate, candidates, second_phase
from .conditional_settings import Setting, settings
from .measure import default_device

TEXT = """\
Images are generated for the attributes of test images. A classifier judges them; it was trained on real images that the
models never see. *Accuracy* is the share of requested attributes that the classifier finds, over all of them (*all*)
and for each. *Partial* is the same with each attribute left free with probability ½. *Free ...* is the entropy of the
classifier's predictions of a free attribute, within equal requests, relative to its maximum: a model with one image per
request has 0. *Fréchet distance* is the distance from training images over the classifier's features; lower is better.
It is not FID, whose features are Inception's. *Real* are test images that have the requested attributes: the best that
can be reached. *Missing* is the share of attribute entries hidden in training, each independently. Values are means
over seeds with their standard deviation.

All models have the same encoder, decoder (with more inputs where it sees attributes), likelihood, optimiser and
updates; *learned parameters* are those beyond encoder and decoder. VAE-TRIP is re-initialised from latent codes as in
the paper, in a random order, the given one (codes, then attributes) or by mutual information. *EM*: the ring is fitted
by exact EM to 2 000 codes every few epochs (10 000 on MNIST, 5 000 of faces), ordered by mutual information; between
the fits it learns at a tenth of the learning rate. *Weighted*: training also adds 50 log p(y | z), as TELBO and JMVAE
do. *Double rank*: 32 instead of 16 (40 instead of 20 at the paper's size).

*CP*: a train of CP cores with a Gaussian for every hidden state, the attributes spread between the codes. It is
refitted by EM, from a mixture of codes, as often as the paper's, and learns at three times its rate; 50 log p(y | z) is
added for each row that has labels. *Flow*: such a ring of rank 16 over codes that three coupling layers have changed.
Both are given as many parameters as TELBO and JMVAE have, and two phases. In the *second phase* support vector
machines, which learn from codes and pixels of labelled images, predict the unknown labels; training then goes on for as
many updates as before, with a label for every image. For the rings the second half of these updates is for the prior
alone, with 5 log p(y | z), on codes of the encoder as it is; a tenth of the training images chooses the epoch. Rivals
have such a phase too where their name says *two phases*; all of the model learns in it.

*Switching*: a train of CP cores with many more hidden states, which stay or are drawn anew from one column to the next.
It is given four fifths of these parameters, and starts from mixtures of codes, in which each known attribute counts
five times. Before the prior learns alone, the labels are predicted again, with the codes as they are then. The images
are left out that have one of the least sure fifth of the predictions of a label, and the prior starts from a mixture of
the codes of the others.

*Conditional decoder*: such a train with a decoder that sees codes and attributes, p(x | z, y), as CVAE's does. Unknown
attributes are drawn from p(y | z, y known). On the digits, of which there are few, codes are not made to repeat what
attributes say: log p(y | z) of rows that have labels has the weight 1 instead of 50. The prior learns alone for a
quarter of the second phase.

*Temperature* multiplies the standard deviations of the Gaussians that codes are drawn from: the components of VAE-TRIP,
the noise of CVAE, q(z | y) of TELBO and JMVAE. Below 1 images are not from the model's density; the tables above have
temperature 1."""


CHANGED = """\
One attribute changed ({model}): the upper row are training images as the model reconstructs them, below it the same
with each value of each attribute in turn."""
DRAWN = (CONDITIONAL, "VAE-TRIP, switching", "CVAE", "TELBO", "JMVAE")  # models whose images the page shows
TEMPERATURES = (0.85, 0.7, 0.5, 0.0)  # beside 1
FOUND, FRECHET = "all", "Fréchet distance"


Answer = Callable[[torch.Tensor], Iterator[tuple[torch.Tensor, torch.Tensor]]]  # requests to images and requests


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training.add_arguments(parser, settings(), datasets=["digits", "mnist"])
    judging.add_arguments(parser)
    parser.add_argument("--missing", nargs="+", type=float, default=[0.0, 0.9, 0.99], help="shares hidden in training")
    parser.add_argument("--models", nargs="+", help="only those with these names, or parts of them")


def main(args: argparse.Namespace) -> None:
    sections: dict[str, list[training.Row]] = {}
    curves: dict[str, list[training.Row]] = {}
    pictures = []
    for name in args.datasets:
        setting = settings()[name]
        judge = Judge(args, name, setting)
        for missing in args.missing:
            images = setting.images(args.data, missing)  # read once for all runs
            found = candidates(setting, judge.sizes, every_order=not missing)
            runs = {
                label: functools.partial(
                    _train, args, judge, images, candidate, picture(args.out, name, missing, label)
                )
                for label, candidate in found.items()
            }
            metrics = (*judge.metrics, *curve_metrics())
            rows = training.study(args, f"{name}-{missing:g}", runs, metrics, "model", args.models)
            if rows:
                title = f"{name}, missing {missing:.0%}"
                sections[title] = [judge.reference(), *map(without_curve, rows)]
                curves[f"{title}, temperature"] = [point for row in rows for point in curve(row)]
        pictures.append(gallery(args.out, name, setting.drawn, args.missing))
    env = report.environment(default_device())
    page = "\n\n".join(filter(None, pictures))
    curves = {title: rows for title, rows in curves.items() if rows}  # earlier runs have none
    drawn = figure(sections, curves)
    report.write(args.out, "conditional", "Conditional generation", TEXT, sections | curves, env, drawn, page)


def _train(
    args: argparse.Namespace,
    judge: "Judge",
    images: Any,
    candidate: Candidate,
    picture: Path,
    seed: int,
    folder: Path,
) -> training.Row:
    from adapters.callbacks import Reinitialize, draw_changes
    from adapters.models import ConditionalVAE

    setting = judge.setting
    options = {
        "likelihood": setting.likelihood(),
        "learning_rate": setting.learning_rate,
        "prior_learning_rate": setting.prior_learning_rate,
        "warm_up_steps": setting.warm_up,
    }
    model = candidate.make(images.image_shape, seed, options)
    callbacks = [] if candidate.reinitialize is None else [Reinitialize(**candidate.reinitialize)]
    updates, further = args.updates or setting.updates, 0.0
    training.fit(model, images, updates, folder, callbacks)
    if candidate.second_phase is not None:
        further = second_phase(model, images, updates, candidate.second_phase, setting.fits[2], folder / "second")
    if seed == 0:
        judge.draw(model, picture)
        if isinstance(model, ConditionalVAE):
            draw_changes(model, images, changes(picture))
    sizes = training.sizes(model, "encoder", "decoder")
    return judge.verdict(model) | judge.curve(model) | sizes | {"further seconds": further}


class Judge(judging.Judge):
    """Requests from the test images, and a classifier that says what images show: trained on the validation images."""

    def __init__(self, args: argparse.Namespace, name: str, setting: Setting):
        super().__init__(args, name, setting, setting.images(args.data, 0.0), "val")
        self.metrics = ("all", *self.names, "partial", *(f"free {name}" for name in self.names), FRECHET)

        generator = torch.Generator().manual_seed(0)
        test = self.images.splits["test"]
        self.drawn = test.rows(torch.randint(len(test.images), (self.samples,), generator=generator))
        hidden = torch.rand(self.drawn.attributes.shape, generator=generator) < 0.5
        self.partial = self.drawn.attributes.masked_fill(hidden, torch.nan)

    def reference(self) -> training.Row:
        """The images whose attributes are requested, as if they were generated."""

        def real(requests: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            parts = zip(self.drawn.images.split(500), requests.split(500), strict=True)
            for images, y in parts:
                yield images.to(self.device).float() / (self.images.levels - 1), y.to(self.device)

        shown = judging.shown(self._verdict(real))
        return {"model": "real", "seeds": None, **shown, "learned parameters": None, "of all": None, "s": None}

    @torch.no_grad()
    def verdict(self, model: Any) -> training.Row:
        """What a model makes of the requests."""
        return self._verdict(self._answers(model, 1.0))

    @torch.no_grad()
    def curve(self, model: Any) -> training.Row:
        """The share of requests found and the Fréchet distance at temperatures below 1."""
        from adapters.conditions import satisfaction

        found: training.Row = {}
        for temperature in TEMPERATURES:
            answers = self._answers(model, temperature)
            found[at(FOUND, temperature)] = satisfaction(self.classifier, answers(self.drawn.attributes)).accuracy
            found[at(FRECHET, temperature)] = self._distance(answers)
        return found

    def _answers(self, model: Any, temperature: float) -> Answer:
        model.to(self.device).eval()

        def generated(requests: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for y in requests.to(self.device).split(500):
                yield model.sample(len(y), y, temperature=temperature), y

        return generated

    @torch.no_grad()
    def draw(self, model: Any, path: Path, columns: int = 10) -> None:
        """A row of images for each of the setting's requests."""
        from adapters.figures import save_grid

        y = torch.full((len(self.setting.drawn), len(self.images.attribute_names)), torch.nan)
        for row, wanted in zip(y, self.setting.drawn, strict=True):
            for name, value in wanted.items():
                row[self.images.attribute_names.index(name)] = value
        model.to(self.device).eval()
        y = y.repeat_interleave(columns, 0).to(self.device)
        save_grid(model.sample(len(y), y), path, columns=columns)

    def _verdict(self, answer: Answer) -> training.Row:
        from adapters.conditions import satisfaction

        full = satisfaction(self.classifier, answer(self.drawn.attributes))
        partial = satisfaction(self.classifier, answer(self.partial))
        values = (full.accuracy, *full.accuracies, partial.accuracy, *partial.diversities, self._distance(answer))
        return dict(zip(self.metrics, values, strict=True))

    def _distance(self, answer: Answer) -> float:
        from adapters.metrics import frechet_distance

        real = (self.classifier.features(x.to(self.device)) for x in self.images.training_images(self.samples, 0))
        return frechet_distance(real, (self.classifier.features(x) for x, _ in answer(self.drawn.attributes)))


def at(metric: str, temperature: float) -> str:
    """The name of a metric at a temperature."""
    return f"{metric} at {temperature:g}"


def curve_metrics() -> list[str]:
    """Those of `Judge.curve`."""
    return [at(metric, temperature) for temperature in TEMPERATURES for metric in (FOUND, FRECHET)]


def without_curve(row: training.Row) -> training.Row:
    """A row of a study as the tables show it."""
    return {key: value for key, value in row.items() if key not in curve_metrics()}


def curve(row: training.Row) -> list[training.Row]:
    """One row per temperature, from 1 on; none of a run that was measured at 1 only."""
    if at(FOUND, TEMPERATURES[0]) not in row:
        return []
    points = {1.0: (row[FOUND], row[FRECHET])}
    points |= {t: (row[at(FOUND, t)], row[at(FRECHET, t)]) for t in TEMPERATURES}
    return [{"model": row["model"], "temperature": t, FOUND: a, FRECHET: b} for t, (a, b) in points.items()]


def picture(out: Path, name: str, missing: float, label: str) -> Path:
    """Where the images of the first run of a model go."""
    return out / "conditional" / f"{name}-{missing:g}-{training.file_name(label)}.png"


def changes(picture: Path) -> Path:
    """Where those with one attribute changed go."""
    return picture.with_stem(f"{picture.stem}-changes")


def gallery(out: Path, name: str, drawn: Iterable[dict[str, int]], missing: Iterable[float]) -> str:
    """The part of the page that shows them, as far as there are any: models beside, shares below each other."""

    def shown(path: Path) -> str:
        return f"![{path.stem}]({path.relative_to(out)})" if path.is_file() else ""

    rows = [
        {"missing": f"{share:.0%}"} | {label: shown(picture(out, name, share, label)) for label in DRAWN}
        for share in missing
    ]
    rows = [row for row in rows if any(row[label] for label in DRAWN)]
    if not rows:
        return ""
    requests = "; ".join(
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in wanted.items()) for wanted in drawn
    )
    parts = [
        f"## {name}, images",
        f"First seed. A row of each picture is one request: {requests}; all else is free.",
        report.table(rows),
    ]
    if changed := " ".join(shown(changes(picture(out, name, share, DRAWN[0]))) for share in missing).strip():
        parts += [CHANGED.format(model=DRAWN[0]), changed]
    return "\n\n".join(parts)


def figure(sections: dict[str, list[training.Row]], curves: dict[str, list[training.Row]]) -> Any:
    """A panel per data set, with a line per model over the shares of missing attributes; then the curves."""
    import matplotlib
    from matplotlib.figure import Figure

    models = [str(row["model"]) for rows in [*sections.values(), *curves.values()] for row in rows]
    known = dict.fromkeys(m for m in models if m != "real")
    colors = dict(zip(known, map(matplotlib.colors.to_hex, matplotlib.colormaps["tab20"].colors), strict=False))
    colors["real"] = "black"

    panels: dict[str, dict[str, list[training.Row]]] = {}
    for title, rows in sections.items():
        name, _, rest = title.partition(", missing ")
        share, _, edition = rest.partition(", ")
        panels.setdefault(f"{name}, {edition}" if edition else name, {})[share] = rows
    lines = math.ceil((len(panels) + len(curves)) / 2)
    fig = Figure(figsize=(11, 3.6 * lines), layout="constrained")
    axes = iter([fig.add_subplot(lines, 2, i + 1) for i in range(len(panels) + len(curves))])
    for title, shares in panels.items():
        draw_shares(panel := next(axes), shares, colors)
        panel.set_title(title)
    for title, rows in curves.items():
        draw_curves(panel := next(axes), rows, colors)
        panel.set_title(title)
    return fig


def draw_shares(axes: Any, shares: dict[str, list[training.Row]], colors: dict[str, str]) -> None:
    """A line per model over the shares of missing attributes, with the standard deviation over seeds."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for place, rows in enumerate(shares.values()):
        for row in rows:
            mean, _, deviation = str(row[FOUND]).partition(" ± ")
            found.setdefault(str(row["model"]), []).append((place, float(mean), float(deviation or 0)))
    for label, points in found.items():
        places, means, deviations = zip(*points, strict=True)
        line = ":" if label == "real" else "-"
        axes.errorbar(places, means, yerr=deviations, fmt="o" + line, color=colors[label], capsize=3, label=label)
    axes.set_xticks(range(len(shares)), shares)
    axes.set(xlabel="attributes missing in training", ylabel="requested attributes found")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_curves(axes: Any, rows: list[training.Row], colors: dict[str, str]) -> None:
    """A line per model, whose points are temperatures; temperature 1 has the large mark."""
    from matplotlib.ticker import LogFormatter

    points: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        point = tuple(float(str(row[metric]).split(" ± ")[0]) for metric in (FRECHET, FOUND))
        points.setdefault(str(row["model"]), []).append(point)
    for label, own in points.items():
        axes.plot(*zip(*own, strict=True), ".-", label=label, color=colors[label])
        axes.plot(*own[0], "o", color=colors[label])
    axes.set(xlabel="Fréchet distance", ylabel="requested attributes found", xscale="log")
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.tick_params(axis="x", which="both", labelsize="small")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
