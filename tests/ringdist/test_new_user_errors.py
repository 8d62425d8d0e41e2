"""Mistakes of new users with rings: each message has the argument, what was found, the rule, and what to do."""

import numpy as np
import pytest

import ringdist as rd

X = np.random.default_rng(0).integers(2, size=(30, 3)).astype(float)
RING = rd.initialize(X, [rd.Categorical(2, name=name) for name in "abc"], rank=2, rng=0)

MISTAKES = {
    "no variables": (lambda: rd.autofit(X, None), ("variables must be a list", "found None", "[None] * d")),
    "one family for all": (
        lambda: rd.initialize(X, rd.Categorical, rank=2),
        ("variables must be a list", "Categorical", "[None] * d"),
    ),
    "the name of a family": (lambda: rd.initialize(X, "categorical", rank=2), ("must be a list", "'categorical'")),
    "a mixture of no variables": (lambda: rd.fit_mixture(X, None, 2), ("variables must be a list", "found None")),
    "an order of families": (
        lambda: rd.ordering.mutual_information(X, [rd.Categorical] * 3),
        ("an instance of a family", "Categorical", "rd.initialize"),
    ),
    "dependence of nothing": (
        lambda: rd.ordering.dependence(X, [None] * 3),
        ("an instance of a family", "found None", "rd.Categorical(3)"),
    ),
    "a ring of families": (
        lambda: rd.TensorRing(RING.cores, [rd.Categorical] * 3),
        ("column 0", "protocol rd.Variable", "rd.Categorical(3)", "found the class Categorical"),
    ),
    "an open column": (lambda: RING.einsum(open=2), ("open must be a list", "found 2", "open=[2]")),
    "an open name": (lambda: RING.einsum(open="ab"), ("open must be a list", "'ab'", "open=['ab']")),
    "None in a row": (lambda: RING.log_prob([[1, None, 0]]), ("real numbers", "object", "NaN for a missing entry")),
    "numbers as strings": (
        lambda: rd.fit_em(RING, X.astype(str)),
        ("x must hold real numbers", "found dtype <U", "x.astype(float)"),
    ),
    "validation rows as strings": (
        lambda: rd.fit_em(RING, X, validation=X[:9].astype("S8")),
        ("validation must hold real numbers", "found dtype |S8"),
    ),
    "validation rows without a column": (
        lambda: rd.fit_em(RING, X, validation=X[:5, :2]),
        ("validation must have shape (n, 3)", "found (5, 2)"),
    ),
    "no validation rows": (
        lambda: rd.fit_em(RING, X, validation=X[:0], validation_target="b"),
        ("validation must have shape (n, 3)", "found (0, 3)"),
    ),
    "rows of another library": (
        lambda: RING.log_prob(pytest.importorskip("torch").zeros(2, 3)),
        ("one backend", "numpy.ndarray, torch.Tensor", "ring.to(torch)"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_with_a_ring(mistake):
    call, parts = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["a.ring", "model.safetensors"])
def test_a_file_in_a_folder_that_does_not_exist(tmp_path, name):
    path = tmp_path / "runs" / "first" / name
    with pytest.raises(FileNotFoundError, match="no folder") as caught:
        RING.save(path)
    assert str(path) in str(caught.value) and str(path.parent) in str(caught.value)
    assert ".part" not in str(caught.value)


def test_a_ring_is_not_an_estimator(tmp_path):
    RING.save(tmp_path / "a.ring")
    with pytest.raises(ValueError, match=r"without a description of its estimator; read it by rd\.load"):
        rd.TensorRingDensity.load(tmp_path / "a.ring")
