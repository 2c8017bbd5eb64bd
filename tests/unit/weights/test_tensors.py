"""Files of tensors: what does not fit is listed, what could run code is not opened."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from loc.errors import WeightsError
from loc.weights.tensors import fitted, read_state, read_tensors

SHAPES = {"a.weight": (2, 3), "a.bias": (2,)}


def good() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


def test_safetensors_and_checkpoints(tmp_path) -> None:
    save_file(good(), tmp_path / "w.safetensors")
    torch.save({"model": good(), "epoch": 3}, tmp_path / "w.pth")
    for path, under in ((tmp_path / "w.safetensors", None), (tmp_path / "w.pth", "model")):
        found = read_tensors(path, SHAPES, under=under)
        assert sorted(found) == sorted(SHAPES)
        assert found["a.weight"].dtype == torch.float32


def test_half_precision_becomes_float(tmp_path) -> None:
    torch.save({key: value.half() for key, value in good().items()}, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth", SHAPES)["a.bias"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("a.bias"), "1 missing: a.bias"),
        (lambda state: state.update(b=torch.ones(1)), "1 unknown: b"),
        (lambda state: state.update({"a.bias": torch.ones(3)}), r"a.bias is \(3,\), expected \(2,\)"),
        (lambda state: state.update({"a.bias": torch.tensor([0.0, float("nan")])}), "NaN"),
    ],
)
def test_what_does_not_fit_is_listed(tmp_path, change, said) -> None:
    state = good()
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=said):
        read_tensors(tmp_path / "w.pth", SHAPES)


def test_ignored_prefixes(tmp_path) -> None:
    torch.save({**good(), "head.x": torch.ones(1)}, tmp_path / "w.pth")
    assert sorted(read_tensors(tmp_path / "w.pth", SHAPES, ignore=("head.",))) == sorted(SHAPES)


class Evil:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').write('ran')",))


def test_code_in_a_pickle_never_runs(tmp_path) -> None:
    marker = tmp_path / "ran"
    torch.save({"model": good(), "args": Evil(marker)}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": Evil(marker)}))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=r"could run code|cannot be read"):
            read_tensors(tmp_path / name, SHAPES, under="model")
    assert not marker.exists()
    with (tmp_path / "plain.pth").open("rb") as file:  # the trap does snap where it is let
        pickle.load(file)
    assert marker.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("body", [b"", b"<html>not found</html>", b"PK\x03\x04" + b"\0" * 40])
def test_damaged_files(tmp_path, name, body) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(WeightsError, match=r"cannot be read|could run code"):
        read_tensors(tmp_path / name, SHAPES)


def test_truncated_checkpoint(tmp_path) -> None:
    torch.save(good(), tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_tensors(tmp_path / "w.pth", SHAPES)


def test_missing_file_and_missing_key(tmp_path) -> None:
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_tensors(tmp_path / "none.pth", SHAPES)
    torch.save(good(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="it has no 'model'"):
        read_tensors(tmp_path / "w.pth", SHAPES, under="model")


@pytest.mark.parametrize("content", [[1, 2], None, torch.ones(3), {"model": [1]}, {"model": None}])
def test_no_state_dict(tmp_path, content) -> None:
    torch.save(content, tmp_path / "w.pth")
    for options in ({"under": "model"}, {"under": "model", "optional": True}, {}):
        with pytest.raises(WeightsError, match=r"no checkpoint of this network|does not fit"):
            fitted(read_state(tmp_path / "w.pth", **options), SHAPES, tmp_path / "w.pth")


@pytest.mark.parametrize(
    "odd", [torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, device="meta")]
)
def test_tensors_without_plain_numbers(tmp_path, odd) -> None:
    torch.save({**good(), "a.bias": odd}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 sparse, .*: a\.bias"):
        read_tensors(tmp_path / "w.pth", SHAPES)


def test_flipped_bytes_of_an_old_checkpoint(tmp_path) -> None:
    """Whatever torch stumbles over, the error is this package's."""
    torch.save(good(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "w.pth").read_bytes()
    refused = 0
    for place in range(0, len(data), 7):
        (tmp_path / "w.pth").write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        try:
            read_tensors(tmp_path / "w.pth", SHAPES)
        except WeightsError:
            refused += 1
    assert refused > 20
