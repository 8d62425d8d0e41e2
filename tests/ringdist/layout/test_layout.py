"""Variables whose columns are anywhere in x: what a layout says, and what is refused."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.network.layout import Layout
from tests.backends import assert_close, load_backend
from tests.ringdist.layout.cases import COLUMNS, D, pair, rows, variables

pytestmark = pytest.mark.slow_on("jax")


def test_what_a_layout_says():
    layout = Layout(variables(), COLUMNS)
    assert layout.columns == COLUMNS
    assert [layout.columns[i][j] for i, j in layout.places] == list(range(D))
    assert layout.names == ("b", "kind", None, "c", "e", None, "a")
    assert not layout.is_consecutive
    consecutive = Layout(variables())
    assert consecutive.columns == ((0, 1, 2), (3,), (4, 5), (6,))
    assert consecutive.is_consecutive
    assert consecutive.in_order is None
    assert Layout(variables(), consecutive.columns).is_consecutive


def test_columns_of_a_ring():
    ring, plain = pair(load_backend("numpy"))
    assert ring.columns == COLUMNS
    assert ring.num_columns == plain.num_columns == D
    assert ring.order == plain.order
    assert ring.place("c") == (0, 2)
    assert ring.column("c") == 3
    assert ring.describe_site(0) == "columns 6, 0, 3 ('a', 'b', 'c')"
    assert rd.TensorRing(ring.cores, ring.variables, ring.order, ring.columns).columns == ring.columns
    named = rd.TensorRing.random(variables(), 2, order=["e", "b", 2, "kind"], columns=COLUMNS, rng=0)
    assert named.order == (3, 0, 2, 1)
    assert named.columns == COLUMNS


def test_an_index_stands_for_one_column():
    ring = rd.TensorRing.random(variables(), 2, columns=[np.array([6, 0, 3]), 1, [5, 2], np.int64(4)], rng=0)
    assert ring.columns == COLUMNS
    assert all(type(k) is int for own in ring.columns for k in own)


def test_variables_of_one_column_each_are_sorted():
    """There sites are columns: variables[k] is the variable of column k."""
    given = [rd.Categorical(2, name="a"), rd.Categorical(3, name="b"), rd.Categorical(4, name="c")]
    plain = rd.TensorRing.random(given, [2, 3, 4], order=[1, 0, 2], rng=0)
    ring = rd.TensorRing(plain.cores, plain.variables, plain.order, [2, 0, 1])
    assert [variable.name for variable in ring.variables] == ["b", "c", "a"]
    assert ring.columns == ((0,), (1,), (2,))
    assert ring.order == (0, 2, 1)
    assert ring.ranks == plain.ranks
    assert_close(ring.to_dense(), np.transpose(plain.to_dense(), (1, 2, 0)), ring)
    drawn = rd.TensorRing.random(given, 2, order=["c", 0, "b"], columns=[2, 0, 1], rng=0)
    assert [variable.name for variable in drawn.variables] == ["b", "c", "a"]
    assert drawn.order == (1, 2, 0)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (((6, 0, 3), 1, (5, 2)), ValueError, "one tuple of indices per variable, found 3 for 4 variables"),
        (((6, 0), 1, (5, 2), (4, 3)), ValueError, r"variable 0 has 3 columns, found \(6, 0\)"),
        (((6, 0, 3), (1, 4), (5,), 2), ValueError, r"variable 1 has 1 columns, found \(1, 4\)"),
        ((6, 1, (5, 2), 4), ValueError, r"variable 0 has 3 columns, found \(6,\)"),
        (((6, 0, 3), 1, (5, 2), 1), ValueError, r"permutation of 0\.\.6, found .*\(6, 0, 3\), \(1,\)"),
        (((7, 0, 3), 1, (5, 2), 4), ValueError, r"permutation of 0\.\.6"),
        (((6, 0, -3), 1, (5, 2), 4), ValueError, r"permutation of 0\.\.6"),
        (((6, 0, 3.0), 1, (5, 2), 4), TypeError, "are indices"),
        (((6, 0, 3), True, (5, 2), 4), TypeError, "index or a tuple|are indices"),
        (((6, 0, 3), 1, "52", 4), TypeError, "index or a tuple"),
        ("abc", TypeError, "one tuple of indices per variable"),
        (7, TypeError, "one tuple of indices per variable"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit(columns, error, message):
    cores = rd.TensorRing.random(variables(), 2, rng=0).cores
    with pytest.raises(error, match=message):
        rd.TensorRing(cores, variables(), None, columns)
    with pytest.raises(error, match=message):
        rd.TensorRing.random(variables(), 2, columns=columns, rng=0)
    with pytest.raises(error, match=message):
        rd.initialize(rows(), variables(), 2, columns=columns, rng=0)
