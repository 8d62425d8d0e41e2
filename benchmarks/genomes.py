"""How well does a train impute the untyped sites of genomes, beside copies of known haplotypes?

A genotyping array reads some of the sites. The alleles at the others are imputed from a panel of haplotypes that are
known at all sites. Here half of the sites are hidden: the *same sites* of all test haplotypes, as with an array, or
*random sites* of each. Panel, validation and test haplotypes are from different people.

*Train*: the most probable allele under the exact conditional distribution of each hidden site given all typed sites,
from one sweep per haplotype. The model is not told which sites will be hidden. *Most frequent allele*: that of the
panel at each site. *Nearest haplotype*: a copy of the panel's haplotype with the fewest mismatches at the typed sites.
*Vote of the k nearest*: k is chosen on validation rows. *Copying model* of Li and Stephens (2003), the basis of the
usual imputation programs: a hidden Markov model whose state is the panel haplotype that is being copied. The state
changes with probability ρ between sites, and an allele is miscopied with probability ε; both are chosen on validation
rows. It visits every haplotype of the panel at every site.

*Right* is the share of hidden alleles imputed correctly. *r²* is the squared correlation of true alleles and imputed
dosages (expected numbers of minor alleles), over all hidden alleles of the sites in a bin of minor-allele frequency.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ringdist as rd

from . import data, report

BUDGET = 110.0  # seconds for the fit
BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # of minor-allele frequency
NEIGHBOURS = (5, 10, 20, 50, 100, 200, 400, 800)
CHANGES, ERRORS = (0.003, 0.01, 0.03, 0.1, 0.3), (0.1, 0.2, 0.3, 0.4)  # ρ and ε
TUNING_ROWS = 48  # of validation, for ρ and ε
Row = dict[str, Any]
Imputer = Callable[[np.ndarray], np.ndarray]  # rows with NaN where hidden -> probabilities of allele 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=data.SHARED / "genomes" / "snp805.npz")
    parser.add_argument("--hidden", type=float, default=0.5, help="share of the sites that are hidden")
    parser.add_argument("--seed", type=int, default=0, help="of the hidden sites")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    split = data.genomes(args.data)
    begin = time.perf_counter()
    model = fit(split.train, split.validation)
    seconds = time.perf_counter() - begin
    likelihoods = {
        part: f"{np.mean(model.log_prob(rows.astype(np.float32))):.2f}"
        for part, rows in zip(("validation", "test"), (split.validation, split.test), strict=True)
    }
    sections: dict[str, list[Row]] = {"Model": [{"model": repr(model), **likelihoods, "fit, s": seconds}]}
    frequency = split.train.mean(axis=0)
    for name, hide in PATTERNS.items():
        rng = np.random.default_rng(args.seed)
        held_out, test = (hide(rows, args.hidden, rng) for rows in (split.validation, split.test))
        if name == "same sites":  # those of the array, also when k is chosen
            held_out = np.where(np.isnan(test[:1]), np.nan, split.validation)
        rows, by_frequency = [], []
        for method, imputer in imputers(model, split, held_out).items():
            begin = time.perf_counter()
            dosages = imputer(test)
            seconds = time.perf_counter() - begin
            hidden = np.isnan(test)
            rows.append({"method": method, **accuracy(split.test, dosages, hidden, frequency), "impute, s": seconds})
            by_frequency.append({"method": method, **correlations(split.test, dosages, hidden, frequency)})
            print(report.table(rows), flush=True)
        sections[f"Hidden: {name}"] = rows
        sections[f"r² by minor-allele frequency, {name}"] = by_frequency
    report.write(
        args.out, "genomes", "Imputation of genomes", __doc__ or "", sections, report.environment(), figure(sections)
    )


def fit(train: np.ndarray, validation: np.ndarray) -> Any:
    """The model: what the library chooses within a budget."""
    return rd.autofit(train, [rd.Categorical(2)] * train.shape[1], validation=validation, budget=BUDGET, rng=0).ring


# --- what is hidden -------------------------------------------------------------------------------------------------


def hide_same_sites(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Rows without the same sites in each."""
    sites = rng.permutation(x.shape[1])[: round(share * x.shape[1])]
    found = x.astype(np.float32)
    found[:, sites] = np.nan
    return found


def hide_random_sites(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Rows without as many sites, others in each."""
    ranks = rng.random(x.shape).argsort(axis=1).argsort(axis=1)
    return np.where(ranks < round(share * x.shape[1]), np.float32(np.nan), x.astype(np.float32))


PATTERNS = {"same sites": hide_same_sites, "random sites": hide_random_sites}


# --- how it is imputed ----------------------------------------------------------------------------------------------


def imputers(model: Any, split: data.Split, held_out: np.ndarray) -> dict[str, Imputer]:
    """All methods; what they have to choose they choose on validation rows with hidden entries, `held_out`."""
    panel = split.train.astype(np.float32)

    def right(imputer: Imputer, rows: int) -> float:
        hidden = np.isnan(held_out[:rows])
        return float(np.mean((imputer(held_out[:rows]) > 0.5)[hidden] == split.validation[:rows][hidden]))

    best = max(NEIGHBOURS, key=lambda k: right(lambda rows: vote(panel, rows, k), len(held_out)))
    pairs = [(change, error) for change in CHANGES for error in ERRORS]
    change, error = max(pairs, key=lambda pair: right(lambda rows: copying(panel, rows, *pair), TUNING_ROWS))
    return {
        "train": lambda rows: np.asarray(model.mean(rows)),
        "most frequent allele": lambda rows: np.broadcast_to(panel.mean(axis=0), rows.shape),
        "nearest haplotype": lambda rows: vote(panel, rows, 1),
        f"vote of the {best} nearest": lambda rows: vote(panel, rows, best),
        f"copying model, ρ = {change:g}, ε = {error:g}": lambda rows: copying(panel, rows, change, error),
    }


def vote(panel: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Share of allele 1 among the k haplotypes of the panel with the fewest mismatches at a row's typed sites."""
    typed = ~np.isnan(rows)
    ones, zeros = (typed & (rows == allele) for allele in (1, 0))
    mismatches = ones.astype(np.float32) @ (1 - panel).T + zeros.astype(np.float32) @ panel.T
    nearest = np.argsort(mismatches, axis=1, kind="stable")[:, :k]
    return np.stack([panel[chosen].mean(axis=0) for chosen in nearest])


def copying(panel: np.ndarray, rows: np.ndarray, change: float, error: float, block: int = 16) -> np.ndarray:
    """Posterior share of allele 1 among the copied haplotypes, by the forward and backward sums of that chain."""
    found = [
        _copying(panel, rows[first : first + block], np.float32(change), np.float32(error))
        for first in range(0, len(rows), block)
    ]
    return np.concatenate(found)


def _copying(panel: np.ndarray, rows: np.ndarray, change: np.float32, error: np.float32) -> np.ndarray:
    size, sites = panel.shape
    forward = np.empty((sites, len(rows), size), np.float32)

    def moved(state: np.ndarray) -> np.ndarray:
        """Before or behind a step of the chain, which is symmetric."""
        return (1 - change) * state + change * state.mean(axis=1, keepdims=True)

    def met(state: np.ndarray, site: int) -> np.ndarray:
        """With the evidence of a site, the sum of each row at 1."""
        values = rows[:, site, None]
        state = state * np.where(np.isnan(values), 1, np.where(values == panel[:, site], 1 - error, error))
        return state / state.sum(axis=1, keepdims=True)

    state = np.full((len(rows), size), 1 / size, np.float32)
    for site in range(sites):
        forward[site] = met(moved(state) if site else state, site)
        state = forward[site]
    found = np.empty(rows.shape, np.float32)
    behind = np.ones_like(state)
    for site in reversed(range(sites)):
        posterior = forward[site] * behind
        found[:, site] = posterior @ panel[:, site] / posterior.sum(axis=1)
        behind = moved(met(behind, site))
    return found


# --- how right it is ------------------------------------------------------------------------------------------------


def accuracy(truth: np.ndarray, dosages: np.ndarray, hidden: np.ndarray, frequency: np.ndarray) -> Row:
    right = np.mean((dosages > 0.5)[hidden] == truth[hidden])
    return {"right": f"{100 * right:.2f}%", "r²": f"{correlation(*minor(truth, dosages, frequency), hidden):.3f}"}


def correlations(truth: np.ndarray, dosages: np.ndarray, hidden: np.ndarray, frequency: np.ndarray) -> Row:
    """r² of each bin that has hidden alleles."""
    truth, dosages = minor(truth, dosages, frequency)
    rarest = np.minimum(frequency, 1 - frequency)
    found = {}
    for low, high in itertools.pairwise(BINS):
        chosen = hidden & ((rarest > low) & (rarest <= high))
        value = correlation(truth, dosages, chosen)
        found[f"{low:g}-{high:g}"] = "" if np.isnan(value) else f"{value:.3f}"
    return found


def minor(truth: np.ndarray, dosages: np.ndarray, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both counted in the alleles that are rarer in the panel."""
    swapped = frequency > 0.5
    return np.where(swapped, 1 - truth, truth), np.where(swapped, 1 - dosages, dosages)


def correlation(truth: np.ndarray, dosages: np.ndarray, chosen: np.ndarray) -> float:
    """Squared, NaN where one of the two does not vary."""
    x, y = (values[chosen].astype(np.float64) for values in (truth, dosages))
    if x.size == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def figure(sections: Mapping[str, Sequence[Row]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 3.8))
    panels = fig.subplots(1, 3)
    for i, name in enumerate(PATTERNS):
        rows = sections[f"Hidden: {name}"]
        values = [float(row["right"].rstrip("%")) for row in rows]
        panels[0].barh(np.arange(len(rows)) + 0.4 * i, values, height=0.38, label=name)
        panels[0].set(yticks=np.arange(len(rows)) + 0.2, yticklabels=[row["method"].partition(",")[0] for row in rows])
        for row in sections[f"r² by minor-allele frequency, {name}"]:
            bins = {head: float(value) for head, value in row.items() if head != "method" and value}
            panels[1 + i].plot(list(bins), list(bins.values()), "o-", label=row["method"].partition(",")[0])
        panels[1 + i].set(title=f"hidden: {name}", xlabel="minor-allele frequency", ylabel="r²")
        panels[1 + i].tick_params("x", labelsize=7)
    panels[0].set(xlabel="alleles right, %")
    panels[0].set_xlim(left=50)
    panels[0].invert_yaxis()
    panels[0].legend(fontsize=8)
    panels[2].legend(bbox_to_anchor=(1.2, 1), loc="upper left").set_in_layout(False)
    fig.tight_layout()
    return fig
