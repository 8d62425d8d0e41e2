"""The mutual information of every pair of columns, estimated from data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import is_array, special, to_numpy
from ringdist.network.layout import Columns, Layout
from ringdist.network.rows import unmasked
from ringdist.variables import Variable, as_family

_SAMPLED_ROWS = 2**14  # rows that place the bins and ranks; all rows are counted
_FINE_BINS = 2**10  # ranks are told apart to one part in so many
_FEWEST_BINS, _MOST_BINS = 4, 8  # equally frequent bins of a column that is not categorical, and
_MOST_LEVELS = 512  # of a categorical column that is taken by its values; the values of another are binned
_ROWS_PER_CELL = 3  # as many of them as leave so many rows per cell of a pair's table
_READ_ENTRIES = 2**22  # of data at a time (32 MiB)
_INDICATOR_ENTRIES = 2**23  # of one block of indicators (32 MiB)
_JOINT_ENTRIES = 2**24  # of one strip of joint counts (128 MiB)
_TABLE_ENTRIES = 2**20  # of the counts turned into information at a time


def dependence(x: Any, variables: Sequence[Variable], columns: Columns | None = None) -> np.ndarray:
    r"""Mutual information of every pair of columns, in nats, estimated from data.

    A pair is estimated from the $n$ rows in which both its entries are observed (pairwise complete).

    *Counts*, for every pair: a categorical column is represented by its values, any other column by equally frequent
    bins (8, down to 4 below 192 rows; equal values share a bin). From the counts $n_{ab}$,

    $$ \hat I = \frac1n \sum_{ab} \left( n_{ab} \log n_{ab} - E[n_{ab} \log n_{ab}] \right), $$

    where the expectation is over independent columns with the same margins (hypergeometric counts). This is the
    plug-in estimate less its expectation under independence (Vinh, Epps & Bailey 2010), which for large counts is
    Miller's (1955) correction $(N_x - 1)(N_y - 1) / 2n$; in a sparse table, where Miller's fails in either direction,
    it errs towards independence.

    *Normal scores*, for pairs of continuous columns: with $\rho$ the correlation of the columns' normal scores,
    $\hat I = -\tfrac12 \log(1 - \rho^2)$ less its expectation under independence, at most $\log n$ (what n ranks can
    tell). It is the sharper of the two for monotone dependence, and blind to $y = x^2$; the greater of the two counts.

    Estimates below 0 are 0. All pairs are products of indicator blocks, `O(n L²)` for `L` values and bins in all, in
    chunks of rows and columns: beside the result, memory does not grow with n (a memmap works), nor with `L²`. With
    more than 16 384 rows, bins and ranks are placed by that many evenly spaced rows.

    Args:
        x: (n, d) real numbers, NaN = missing; an array of any backend or nested lists. Not written to.
        variables: the d columns' families; one that is wide stands for all of its columns. Those with `integer = True`
            hold integers; where all of these are below `num_components`, as a categorical column's are, every value is
            a level of its own, else (counts, and categories that are more than 512) they are binned.
        columns: of every variable its columns of x, as in `TensorRing`; by default they follow each other.

    Returns:
        (d, d) float64, symmetric, finite, not negative. The diagonal is the entropy of the column's values or bins,
        with Miller's correction. A pair never observed together has 0. Where variables are wide, rows and columns of
        the result are variables: the greatest among the columns of both.

    Raises:
        TypeError: if x does not hold real numbers.
        ValueError: if x is not of shape (n, d) with n >= 1, an entry is infinite or outside its variable's support, or
            columns do not fit the variables.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = np.random.default_rng(0).integers(2, size=(2, 1000))
        >>> information = dependence(np.stack([a, b, a], axis=1), [rd.Categorical(2)] * 3)
        >>> information.round(2)  # log 2 = 0.69 nats between the equal columns
        array([[0.69, 0.  , 0.69],
               [0.  , 0.69, 0.  ],
               [0.69, 0.  , 0.69]])
    """
    x = real_array(x, "x")
    layout = Layout(variables, columns)
    if x.ndim != 2 or x.shape[1] != layout.num_columns or 0 in x.shape:
        raise ValueError(
            f"x must have shape (n, {layout.num_columns}), rows by columns, one per column of a variable and n >= 1, "
            f"found {x.shape}"
        )
    owned = [_columns(variable) for variable in variables]
    variables = [owned[i][place] for i, place in layout.places]
    scales = _scales(x, variables)
    information = _binned_information(x, scales)
    continuous = [k for k, v in enumerate(variables) if not as_family(v).integer]
    if len(continuous) > 1:
        block = np.ix_(continuous, continuous)
        scored = _score_information(x, continuous, [scales[k] for k in continuous])
        np.fill_diagonal(scored, 0.0)
        information[block] = np.maximum(information[block], scored)
    if layout.is_plain:
        by_variable = [k for (k,) in layout.columns]
        return information[np.ix_(by_variable, by_variable)]
    by_variable = [k for own in layout.columns for k in own]
    first = np.cumsum([0, *map(len, layout.columns[:-1])])
    information = information[np.ix_(by_variable, by_variable)]
    return np.maximum.reduceat(np.maximum.reduceat(information, first, axis=0), first, axis=1)


def _columns(variable: Variable) -> list[Variable]:
    """The variables of each column of one that may be wide."""
    family = as_family(variable)
    return [family.marginal([place]).variable for place in range(family.width)]


def real_array(value: Any, label: str) -> np.ndarray:
    """A NumPy view where possible: arrays of other backends are copied to the host, memmaps stay on disk."""
    value = unmasked(value)
    array = to_numpy(value) if is_array(value) else np.asarray(value)
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{label} must hold real numbers, found dtype {array.dtype}")
    return array


def _describe(k: int, variable: Variable) -> str:
    return f"column {k}" if variable.name is None else f"column {k} ({variable.name!r})"


# ----------------------------------------------------------------------------------------------- scales


class _Scale(NamedTuple):
    """The bins of one column: the level of a value is the number of edges that are not above it."""

    edges: np.ndarray  # (N - 1,) between levels, ascending
    fine_edges: np.ndarray  # (F - 1,) between fine bins, ascending; none for a categorical column
    scores: np.ndarray  # (F,) normal score of each fine bin

    @property
    def num_levels(self) -> int:
        return len(self.edges) + 1


def _scales(x: np.ndarray, variables: Sequence[Variable]) -> list[_Scale]:
    """Check all values; then place levels and ranks, from a bounded number of evenly spaced rows."""
    n, d = x.shape
    lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
    for columns in _chunks(x, max(1, _READ_ENTRIES // d)):
        _check_values(columns, variables)
        lowest = np.fmin(lowest, np.fmin.reduce(columns, axis=1))
        highest = np.fmax(highest, np.fmax.reduce(columns, axis=1))
    sample = x[np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_ROWS)).astype(np.int64))]
    bins = int(np.clip(np.sqrt(n / _ROWS_PER_CELL), _FEWEST_BINS, _MOST_BINS))
    scales = []
    for k, variable in enumerate(variables):
        is_integer = as_family(variable).integer and lowest[k] >= 0
        if is_integer and highest[k] < variable.num_components <= _MOST_LEVELS:
            scales.append(_categories(variable.num_components))
        else:
            scales.append(_ranks(np.asarray(sample[:, k], dtype=np.float64), bins))
    return scales


def _check_values(columns: np.ndarray, variables: Sequence[Variable]) -> None:
    """Raise `ValueError` unless every entry of columns (d, b) is missing, or finite and in its variable's support."""
    for k, (values, variable) in enumerate(zip(columns, variables, strict=True)):
        observed = values[~np.isnan(values)]
        try:
            variable.check(observed)
        except ValueError as error:
            raise ValueError(f"{_describe(k, variable)}: {error}") from None
        if not np.isfinite(observed).all():
            found = observed[~np.isfinite(observed)][0]
            raise ValueError(f"{_describe(k, variable)}: values must be finite, found {found:g}")


def _categories(count: int) -> _Scale:
    return _Scale(np.arange(1.0, count), np.empty(0), np.zeros(1))


def _ranks(values: np.ndarray, bins: int) -> _Scale:
    """Bins of equal frequency, with equal values in one bin: by the middle rank of each distinct value."""
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(distinct) == 0:
        return _categories(1)
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()  # in (0, 1)
    coarse, fine = (np.flatnonzero(np.diff(np.floor(m * middle), prepend=-1.0)) for m in (bins, _FINE_BINS))
    middle = np.add.reduceat(middle * counts, fine) / np.add.reduceat(counts, fine)
    return _Scale(distinct[coarse[1:]], distinct[fine[1:]], special("ndtri", middle))


def _chunks(x: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The columns (d, b) of at most `size` rows at a time, copied, in float64."""
    for start in range(0, x.shape[0], size):
        yield np.array(x[start : start + size].T, dtype=np.float64, order="C")


def _levels(columns: np.ndarray, scales: Sequence[_Scale]) -> np.ndarray:
    """(d, b) int32: the level of every entry, -1 where it is missing."""
    levels = np.empty(columns.shape, dtype=np.int32)
    for k, scale in enumerate(scales):
        levels[k] = np.searchsorted(scale.edges, columns[k], side="right")
    levels[np.isnan(columns)] = -1
    return levels


def _scores(columns: np.ndarray, scales: Sequence[_Scale]) -> np.ndarray:
    """(d, b): the normal score of every entry, 0 where it is missing."""
    scores = np.empty(columns.shape)
    for k, scale in enumerate(scales):
        scores[k] = scale.scores[np.searchsorted(scale.fine_edges, columns[k], side="right")]
    scores[np.isnan(columns)] = 0.0
    return scores


# ------------------------------------------------------------------------------------------ counts of levels


def _binned_information(x: np.ndarray, scales: Sequence[_Scale]) -> np.ndarray:
    """(d, d) information of all pairs of columns from the counts of their levels; entropies on the diagonal."""
    d = len(scales)
    sizes = np.array([scale.num_levels for scale in scales])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    information = np.zeros((d, d))
    for first, last in _groups(sizes, _JOINT_ENTRIES // starts[-1]):
        joint = _joint_counts(x, scales, starts, first, last)
        offsets = starts - starts[first]  # of the columns in this strip of the table
        for k in range(first, last):
            own = slice(offsets[k], offsets[k + 1])
            information[k, k] = _entropy(np.diagonal(joint[own, own]))
        for i, j in _groups(sizes[first:last], _TABLE_ENTRIES // joint.shape[1]):
            i, j = i + first, j + first
            right = offsets[first:-1]
            shared = _information(joint[offsets[i] : offsets[j]], offsets[i:j] - offsets[i], right)
            information[i:j, first:] += np.where(np.arange(i, j)[:, None] < np.arange(first, d), shared, 0.0)
    return information + np.triu(information, 1).T


def _groups(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive columns first..last-1 with at most `limit` levels together, or one column."""
    first, total = 0, 0
    for k, size in enumerate(sizes.tolist()):
        if k > first and total + size > limit:
            yield first, k
            first, total = k, 0
        total += size
    yield first, len(sizes)


def _joint_counts(x: np.ndarray, scales: Sequence[_Scale], starts: np.ndarray, first: int, last: int) -> np.ndarray:
    """Joint counts of the levels of columns first..last-1 and of columns first..d-1, over rows with both observed."""
    column = np.repeat(np.arange(len(scales) - first), np.diff(starts[first:]))
    level = np.concatenate([np.arange(scale.num_levels, dtype=np.int32) for scale in scales[first:]])
    strip = starts[last] - starts[first]
    joint = np.zeros((strip, len(level)))
    for columns in _chunks(x[:, first:], max(1, _INDICATOR_ENTRIES // len(level))):
        levels = _levels(columns, scales[first:])
        indicator = (levels[column] == level[:, None]).astype(np.float32)  # (L, b); its counts are exact below 2^24
        joint += indicator[:strip] @ indicator.T
    return joint


def _information(joint: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(d_left, d_right): plug-in information of each pair's table less its expectation under independence.

    `joint` holds the tables side by side; `left` and `right` say at which rows and columns they start.
    """
    rows, columns = _lengths(left, joint.shape[0]), _lengths(right, joint.shape[1])
    a = np.add.reduceat(joint, right, axis=1)  # (L_left, d_right): counts of the left level where both are observed
    b = np.add.reduceat(joint, left, axis=0)  # (d_left, L_right)
    n = np.add.reduceat(a, left, axis=0)  # (d_left, d_right)
    expected = _expected_log_counts(
        np.repeat(a, columns, axis=1), np.repeat(b, rows, axis=0), np.repeat(np.repeat(n, rows, 0), columns, 1)
    )
    excess = joint * np.log(np.maximum(joint, 1.0)) - expected
    excess = np.add.reduceat(np.add.reduceat(excess, right, axis=1), left, axis=0)
    return np.maximum(excess, 0.0) / np.maximum(n, 1.0)


def _lengths(starts: np.ndarray, total: int) -> np.ndarray:
    return np.diff(np.append(starts, total))


def _expected_log_counts(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> np.ndarray:
    """E[C log C] of C ~ Hypergeometric(n, a, b), the count of a cell with margins a, b in a table of independence.

    It is (a b / n) E[log(1 + C')] with C' ~ Hypergeometric(n-1, a-1, b-1), of mean μ: a count weighted by its own
    size. log(1 + μ) exceeds E[log(1 + C')] by δ(μ) if C' is Poisson, here a rational function with the true limits
    μ (1 - log 2) and 1 / 2μ, fitted to 0.7 %; and by its share of the Poisson's variance otherwise.
    """
    n = np.maximum(n, 2.0)
    mean = np.maximum((a - 1) * (b - 1) / (n - 1), 0.0)
    deficit = mean * (1 + 0.9135 * mean) / (1 / (1 - np.log(2)) + mean * (7.072 + mean * (3.717 + mean * 1.827)))
    return a * b / n * (np.log1p(mean) - (1 - a / n) * (1 - b / n) * deficit)


def _entropy(counts: np.ndarray) -> float:
    """Plug-in entropy plus Miller's (1955) (N - 1) / 2n for the N levels that occur."""
    counts = counts[counts > 0]
    if len(counts) == 0:
        return 0.0
    n = counts.sum()
    return float(np.log(n) - (counts * np.log(counts)).sum() / n + (len(counts) - 1) / (2 * n))


# --------------------------------------------------------------------------------------------- normal scores


def _score_information(x: np.ndarray, which: Sequence[int], scales: Sequence[_Scale]) -> np.ndarray:
    """Information of all pairs of the columns `which`, as if their normal scores were jointly Gaussian."""
    n, sums, squares, products = (np.zeros((len(which), len(which))) for _ in range(4))
    for columns in _chunks(x, max(1, _READ_ENTRIES // x.shape[1])):
        columns = columns[list(which)]
        observed = (~np.isnan(columns)).astype(np.float64)
        scores = _scores(columns, scales)
        n += observed @ observed.T
        sums += scores @ observed.T  # of column i over the rows in which column j is observed too
        squares += scores**2 @ observed.T
        products += scores @ scores.T
    rows = np.maximum(n, 1.0)
    variance = squares - sums**2 / rows
    covariance = products - sums * sums.T / rows
    scale = variance * variance.T
    square = np.divide(covariance**2, scale, out=np.zeros_like(scale), where=scale > 1e-12 * rows**2)
    information = -np.log(np.maximum(1 - square, 1 / rows**2)) / 2
    # Of independent columns the square is Beta(1/2, (n-2)/2): this is the mean of -log(1 - square) / 2.
    known = np.maximum(n, 3.0)
    information -= (special("digamma", (known - 1) / 2) - special("digamma", (known - 2) / 2)) / 2
    return np.where(n > 2, np.maximum(information, 0.0), 0.0)
