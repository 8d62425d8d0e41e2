"""Files and pickles keep where columns are."""

import json

import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.layout.cases import COLUMNS, pair, rows
from tests.safetensors_files import put_together, taken_apart

pytestmark = pytest.mark.slow_on("jax")


def test_files(tmp_path):
    ring, plain = pair(load_backend("numpy"))
    ring.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring")
    assert again.columns == COLUMNS
    assert_close(again.log_prob(rows()), ring.log_prob(rows()), again)
    description = taken_apart((tmp_path / "ring").read_bytes()).ring
    assert description["version"] == 3
    assert description["columns"] == [list(own) for own in COLUMNS]
    plain.save(tmp_path / "plain")
    description = taken_apart((tmp_path / "plain").read_bytes()).ring
    assert description["version"] == 2, "a file of columns in the order of variables is readable as before"
    assert "columns" not in description
    assert rd.load(tmp_path / "plain").columns == plain.columns


@pytest.mark.parametrize("columns", [[[6, 0], [1], [5, 2], [4, 3]], [[6, 0, 3], [1], [5, 2], [1]], None, [[0]] * 4])
def test_files_of_columns_that_do_not_fit(tmp_path, columns):
    ring, _ = pair(load_backend("numpy"))
    ring.save(tmp_path / "ring")
    contents = taken_apart((tmp_path / "ring").read_bytes())
    contents.metadata["ring"] = json.dumps({**contents.ring, "columns": columns})
    (tmp_path / "ring").write_bytes(put_together(contents))
    with pytest.raises(ValueError, match="column"):
        rd.load(tmp_path / "ring")


def test_states_of_older_pickles():
    _, plain = pair(load_backend("numpy"))
    state = plain.__getstate__()
    del state["scattered"]
    again = object.__new__(rd.TensorRing)
    again.__setstate__(state)
    assert again.columns == plain.columns
