"""Words from a file: Detect-to-Retrieve's codebooks, converted or as arrays; what does not fit is said."""

from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest
from pydantic import ValidationError
from tensorflow_files import write_bundle

from loc.errors import ConfigError, DataError, WeightsError
from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_global_extractor
from loc.plugins.standing import weights_verified
from loc.retrieval.asmk.aggregate import residuals, signature
from loc.retrieval.asmk.inverted import decode
from loc.retrieval.asmk.plugin import Asmk, AsmkConfig
from loc.retrieval.asmk.words import Codebook
from loc.types import LocalFeatures
from loc.weights.tensorflow.convert import convert
from loc.weights.tensorflow.files import save

WORDS = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)


def features(dim: int = 16, n: int = 30) -> LocalFeatures:
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    xy = rng.uniform(0, [640, 480], (n, 2)).astype(np.float32)
    return LocalFeatures(xy, np.ones(n, np.float32), rows, (640, 480))


@pytest.fixture
def codebook(tmp_path) -> str:
    np.save(tmp_path / "words.npy", WORDS)
    return str(tmp_path / "words.npy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_contract(codebook, tmp_path) -> None:
    words = np.random.default_rng(0).normal(size=(20, 128)).astype(np.float32)
    np.save(tmp_path / "contract.npy", words / np.linalg.norm(words, axis=1, keepdims=True))
    check_global_extractor(Asmk, {"codebook": str(tmp_path / "contract.npy"), "query_assignments": 1})


def test_the_words_are_taken_as_they_are(codebook) -> None:
    """No PCA, no fit: the signatures are those of the published aggregation with these words."""
    plugin = resolve_block("globals", {"use": "asmk", "codebook": codebook, "query_assignments": 1})
    assert not plugin.needs_fit
    assert plugin.weights == ()
    given = features()
    rows = given.descriptors / np.linalg.norm(given.descriptors, axis=1, keepdims=True)
    expected = signature(residuals(rows, Codebook(WORDS))).signs()
    for found in decode(plugin.build()([given])[0]):
        np.testing.assert_array_equal(found.words, expected.words)
        np.testing.assert_array_equal(found.codes, expected.codes)


def test_another_dimension_says_what_to_do(codebook) -> None:
    plugin = Asmk(AsmkConfig(codebook=codebook))
    with pytest.raises(DataError, match="have 16 values, the descriptors 128") as caught:
        plugin([features(128)])
    assert "drop globals.codebook" in caught.value.next_step


def test_the_content_is_part_of_the_fingerprint(codebook) -> None:
    block = {"use": "asmk", "codebook": codebook}
    before = resolve_block("globals", block).fingerprint_fields()
    assert before == resolve_block("globals", block).fingerprint_fields()
    np.save(codebook, WORDS + 1)
    assert resolve_block("globals", block).fingerprint_fields() != before
    assert before["inputs"]["codebook"]


def archive(shared, folder, name: str):
    """As released: a folder of the words' number below the one of the name."""
    source = shared / "fixtures/delf/aggregation_files/codebook_tf1_clusters"
    path = folder / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(source, "k64_codebook_tfckpt")
    return path


def test_a_release_is_converted_when_first_used(shared, folder) -> None:
    archive(shared, folder, "rparis6k_codebook_65536")
    expected = np.load(shared / "fixtures/delf/aggregation.npz")["codebook"]
    resolved = resolve_block("globals", "asmk_d2r")
    assert (resolved.config.normalize, resolved.config.query_assignments, resolved.config.dim) == (
        False,
        1,
        None,
    )
    assert not weights_verified(resolved)
    np.testing.assert_array_equal(resolved.build()._codebook.words, expected)
    fields = resolved.fingerprint_fields()
    assert len(fields["weights"][0]) == 64
    save(
        convert(shared / "fixtures/delf/aggregation_files/codebook_tf2_checkpoint"),
        folder / "own.safetensors",
    )
    for named in ("own", str(folder / "own.safetensors")):
        plugin = Asmk(AsmkConfig(codebook=named))
        np.testing.assert_array_equal(plugin._codebook.words, expected)


def test_what_is_no_codebook(shared, folder, tmp_path) -> None:
    def built(name: str) -> Asmk:
        return Asmk(AsmkConfig(codebook=name))

    with pytest.raises(WeightsError, match="no weights are called 'nothing'"):
        built("nothing")
    with pytest.raises(WeightsError, match="cannot be read"):
        built(str(tmp_path / "absent.npy"))
    for array in (np.ones(3), np.zeros((0, 4)), np.full((2, 2), np.nan), np.ones((2, 2), np.int64)):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(WeightsError, match="no codebook"):
            built(str(tmp_path / "bad.npy"))
    np.save(tmp_path / "bad.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(WeightsError, match="cannot be read"):
        built(str(tmp_path / "bad.npy"))
    (tmp_path / "ckpt").mkdir()
    write_bundle(tmp_path / "ckpt/codebook", {"clusters": np.ones((2, 3, 4), np.float32)})
    with pytest.raises(WeightsError, match=r"clusters has the shape \(2, 3, 4\)"):
        convert(tmp_path / "ckpt")
    shutil.copy(tmp_path / "bad.npy", tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        built(str(tmp_path / "bad.safetensors"))


def test_options_of_learning_are_refused(codebook) -> None:
    with pytest.raises(ValidationError, match="with a codebook nothing is learned: leave out words, dim"):
        AsmkConfig(codebook=codebook, words=8, dim=4)
    with pytest.raises(ConfigError, match="nothing is learned"):
        resolve_block("globals", {"use": "asmk_d2r", "words": 9})
