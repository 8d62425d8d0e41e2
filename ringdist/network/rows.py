"""Rows of data as queries take them: checked, in the dtype of the cores, and their entries at a site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ringdist.backend import Array, astype, indices, is_array, is_concrete, like, namespace, stack, take
from ringdist.network.checks import check_device
from ringdist.network.structure import Network


def as_rows(ring: Network, x: Any) -> tuple[Array, tuple[int, ...]]:
    """x (..., d) as rows (b, d) in the dtype of the cores, checked, and its leading shape.

    Raises:
        TypeError: if x is of another backend, on another device or not numeric.
        ValueError: if the last axis is not d long, or an observed value is outside its variable's support.
    """
    table, shape = as_table(ring, x)
    return checked(ring, table), shape


def as_table(ring: Network, x: Any) -> tuple[Array, tuple[int, ...]]:
    """x (..., d) as rows (b, d) in its own dtype, without checking values, and its leading shape."""
    core = ring.prototype
    x = plain(ring, x)
    if not is_array(x):
        x = np.asarray(x)
        if x.dtype.kind not in "buif":
            remedy = "; write NaN for a missing entry" if x.dtype.kind == "O" else ""
            raise TypeError(f"x must hold real numbers, found dtype {x.dtype}{remedy}")
        x = like(x, core)
    xp = namespace(core, x)
    check_device((x,), core, "x")
    if not xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
        raise TypeError(f"x must hold real numbers, found dtype {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != ring.num_columns:
        raise ValueError(f"x must have shape (..., {ring.num_columns}), one entry per column, found {tuple(x.shape)}")
    return x if x.ndim == 2 else xp.reshape(x, (-1, ring.num_columns)), tuple(x.shape[:-1])


def checked(ring: Network, table: Array) -> Array:
    """Rows in the dtype of the cores; `ValueError` if an observed value is outside its variable's support."""
    rows = astype(table, ring.prototype.dtype)
    if ring.validate and is_concrete(ring.prototype, rows):
        check_values(ring, rows)
    return rows


def plain(ring: Network, x: Any) -> Any:
    """A pandas frame as an array with its columns in the order of the ring's, and a masked array as `unmasked`.

    Raises:
        ValueError: if the columns of the frame are not those of a ring whose columns have names, or two have one name.
    """
    if not (hasattr(x, "iloc") and hasattr(x, "columns")):
        return unmasked(x)
    names, own = list(ring.layout.names), list(x.columns)
    if None not in names and any(isinstance(name, str) for name in own):
        if sorted(map(str, own)) != sorted(map(str, names)):
            raise ValueError(f"a frame must have the columns of the ring, {names}, in any order, found {own}")
        x = x[names]
    try:
        return x.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(f"x must hold real numbers, codes for categories, but a column of the frame: {error}") from None


def unmasked(x: Any) -> Any:
    """A NumPy masked array with NaN where it is masked; anything else unchanged."""
    return np.ma.filled(x.astype(np.float64), np.nan) if isinstance(x, np.ma.MaskedArray) else x


def check_values(ring: Network, rows: Array) -> None:
    """Raise `ValueError` naming the column unless every observed entry is in its variable's support."""
    xp = namespace(rows)
    for sites in ring.groups:
        families = [ring.families[i] for i in sites]
        values = values_of(ring, rows, sites)
        if not is_concrete(values):  # within `jax.jit` results of constants are traced too
            return
        if families[0].stacks and families[0].tells_support:
            if bool(xp.all(families[0].stack(families).in_support(values))):
                continue
        for i in sites:
            for k in ring.columns[i]:
                observed = rows[~xp.isnan(rows[:, k]), k]
                try:
                    ring.variables[i].check(observed)
                except ValueError as error:
                    raise ValueError(f"{ring.describe(k)}: {error}") from None


def values_of(ring: Network, rows: Array, sites: Sequence[int]) -> Array:
    """The entries of rows (b, d) at some sites, (g, b); of one site with a wide variable (1, b, width)."""
    if ring.layout.is_plain:
        if tuple(sites) == tuple(range(rows.shape[1])):
            return rows.T
        return take(rows, indices(list(sites), rows), axis=1).T
    columns = [ring.columns[i] for i in sites]
    if len(columns[0]) > 1:
        return site_values(ring, rows, sites[0])[None]
    return take(rows, indices([k for own in columns for k in own], rows), axis=1).T


def site_values(ring: Network, rows: Array, i: int) -> Array:
    """The entries of rows (b, d) at one site, (b,), or (b, width) of a wide variable."""
    columns = ring.columns[i]
    if len(columns) == 1:
        return rows[:, columns[0]]
    if columns == tuple(range(columns[0], columns[0] + len(columns))):
        return rows[:, columns[0] : columns[-1] + 1]
    return take(rows, indices(list(columns), rows), axis=1)


def side_by_side(ring: Network, values: Sequence[Array]) -> Array:
    """Rows (b, d) from the entries at every site, as `site_values` gives them."""
    if ring.layout.is_plain:
        return stack(values, axis=1)
    rows = namespace(values[0]).concat([own if own.ndim == 2 else own[:, None] for own in values], axis=1)
    order = ring.layout.in_order
    return rows if order is None else take(rows, indices(list(order), rows), axis=1)
