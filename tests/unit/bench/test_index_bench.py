"""``loc bench index``: its rows, its files, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from loc.bench.index import file_rows, synthetic
from loc.cli.app import app
from loc.errors import ConfigError, DataError


def test_quick_rows_say_what_each_kind_finds() -> None:
    found = CliRunner().invoke(app, ["bench", "index", "--quick", "--json"])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert [row["kind"].split()[0] for row in rows] == ["exact", "ivf"]  # too few for codes
    assert rows[0]["recall"] == 1.0 >= rows[1]["recall"] > 0.5
    assert rows[0]["searched_bytes"] == 64 < rows[0]["disk_bytes"] < rows[1]["disk_bytes"] < 120
    assert all(row["speed"] > 0 and row["over_faiss"] > 0 for row in rows)


def test_vectors_of_a_file(tmp_path: Path) -> None:
    vectors, queries = synthetic(1000, 8, tmp_path / "vectors.npy")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    vectors.flush()
    np.save(tmp_path / "queries.npy", queries)
    taken = list(file_rows(tmp_path / "vectors.npy", None, repeats=1))
    given = list(file_rows(tmp_path / "vectors.npy", tmp_path / "queries.npy", repeats=1))
    assert {row.vectors for row in taken} == {800}
    assert {row.vectors for row in given} == {1000}
    assert {row.data for row in taken} == {"vectors"}


def test_what_is_no_file_of_vectors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no")
    with pytest.raises(DataError, match=r"text.npy cannot be read"):
        list(file_rows(tmp_path / "text.npy", None))
    np.save(tmp_path / "flat.npy", np.zeros(4, np.float32))
    with pytest.raises(DataError, match=r"holds no \(n, d\) array"):
        list(file_rows(tmp_path / "flat.npy", None))


def test_sizes_are_vectors_by_dimensions() -> None:
    from loc.cli.bench_index import _size

    assert _size("100000x256") == (100_000, 256)
    with pytest.raises(ConfigError, match="is not VECTORSxDIM"):
        _size("many")
