"""Archives, folders and checkpoints become one file of tensors; what does not fit is listed."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from delf_fixtures import ARCHIVES, MODELS
from safetensors.numpy import save_file
from tensorflow_files import EditableGraph, write_bundle
from typer.testing import CliRunner

from loc.cli.app import app
from loc.errors import WeightsError
from loc.nets.delf import DelfNetwork
from loc.weights.tensorflow.bundle import Bundle
from loc.weights.tensorflow.convert import convert
from loc.weights.tensorflow.datum import read_datum, write_datum
from loc.weights.tensorflow.files import load, save
from loc.weights.tensorflow.layout import keras_names, network_shapes


@pytest.fixture
def model(delf_models, tmp_path):
    """A copy of the DELF fixture whose files may be changed; its large shard is only linked."""
    folder = tmp_path / "delf"
    (folder / "model/variables").mkdir(parents=True)
    shutil.copytree(delf_models / "delf_gld_like/pca", folder / "pca")
    source = delf_models / MODELS["delf"]
    EditableGraph(source / "saved_model.pb").save(folder / "model/saved_model.pb")
    shutil.copy(source / "variables/variables.index", folder / "model/variables")
    name = "variables.data-00000-of-00001"
    (folder / "model/variables" / name).symlink_to(source / "variables" / name)
    return folder


def test_archive_and_folder_give_the_same(shared, delf_models, tmp_path) -> None:
    """By the command; sources are named by their hashes."""
    archive = shared / "fixtures" / ARCHIVES["delf"]
    out = tmp_path / "new" / "delf.safetensors"
    done = CliRunner().invoke(app, ["weights", "convert", str(archive), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "delf, 225 tensors" in done.stdout
    assert "sha256: c6d15a0b9111c1ef" in done.stdout
    model, folder = load(out), convert(delf_models / "delf_gld_like")
    assert model.facts.model_dump(exclude={"sha256"}) == folder.facts.model_dump(exclude={"sha256"})
    assert sorted(model.tensors) == sorted(folder.tensors)
    bundle = Bundle(delf_models / MODELS["delf"] / "variables/variables")
    for name, key in (
        ("stem.conv.weight", "resnet_v1_50/conv1/weights"),
        ("block3.5.conv2.weight", "resnet_v1_50/block3/unit_6/bottleneck_v1/conv2/weights"),
    ):
        np.testing.assert_array_equal(model.tensors[name], bundle.read(key).transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(
        model.tensors["block1.0.shortcut.bn.running_var"],
        bundle.read("resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/BatchNorm/moving_variance"),
    )
    matrix = read_datum(delf_models / "delf_gld_like/pca/pca_proj_mat.datum")
    np.testing.assert_array_equal(model.tensors["pca.components"], matrix)


def test_only_safetensors_are_written(shared, tmp_path) -> None:
    archive = shared / "fixtures" / ARCHIVES["delf"]
    done = CliRunner().invoke(app, ["weights", "convert", str(archive), "-o", str(tmp_path / "delf.pth")])
    assert done.exit_code == 2
    assert "does not end with .safetensors" in done.stderr


@pytest.mark.parametrize("name", ["codebook_tf1_clusters", "codebook_tf2_checkpoint"])
def test_codebooks(shared, tmp_path, name) -> None:
    found = convert(shared / "fixtures/delf/aggregation_files" / name)
    expected = np.load(shared / "fixtures/delf/aggregation.npz")["codebook"]
    np.testing.assert_array_equal(found.tensors["codebook"], expected)
    assert (found.facts.kind, found.facts.words, found.facts.dim) == ("codebook", 64, 16)
    save(found, tmp_path / "codebook.safetensors")
    with pytest.raises(WeightsError, match="holds a codebook, no network"):
        load(tmp_path / "codebook.safetensors")


def renamed(folder, **changes: str | None) -> None:
    """Rewrite the bundle of a model: tensors renamed, dropped (None) or added."""
    prefix = folder / "model/variables/variables"
    bundle = Bundle(prefix)
    tensors = {name: bundle.read(name) for name in bundle.entries}
    for name, new in changes.items():
        value = tensors.pop(name, np.ones(3, np.float32))
        if new is not None:
            tensors[new] = value
    for path in prefix.parent.iterdir():
        path.unlink()
    write_bundle(prefix, tensors)


def test_missing_and_unknown_tensors_are_listed(model) -> None:
    gamma = "resnet_v1_50/conv1/BatchNorm/gamma"
    renamed(model, **{gamma: "resnet_v1_50/conv1/BatchNorm/scale", "x": "stray/weights"})
    with pytest.raises(WeightsError) as error:
        convert(model)
    assert f"1 missing: {gamma}" in error.value.message
    assert "2 unknown: resnet_v1_50/conv1/BatchNorm/scale, stray/weights" in error.value.message


def test_tensors_of_training_are_left_out(model) -> None:
    kernel = "attention_block/attention/compute/conv2/weights"
    extra = {"a": "global_step", "b": "attention_block/logits/weights", "c": f"{kernel}/Momentum"}
    renamed(model, **extra)
    assert len(convert(model).tensors) == 225


def test_wrong_shapes_and_values(model) -> None:
    prefix = model / "model/variables/variables"
    bundle = Bundle(prefix)
    tensors = {name: bundle.read(name) for name in bundle.entries}
    name = "attention_block/attention/compute/conv2/biases"
    for value, said in ((np.ones(2), r"biases is \(2,\), expected \(1,\)"), ([np.nan], "NaN")):
        for path in prefix.parent.iterdir():
            path.unlink()
        write_bundle(prefix, tensors | {name: np.asarray(value, np.float32)})
        with pytest.raises(WeightsError, match=said):
            convert(model)


def of_512(pca: Path) -> None:
    """A PCA that fits together, of another network."""
    for name in ("mean", "pca_variances"):
        write_datum(pca / f"{name}.datum", np.ones(512, np.float32))
    write_datum(pca / "pca_proj_mat.datum", np.eye(512, dtype=np.float32))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda pca: write_datum(pca / "mean.datum", np.ones(40, np.float32)),
            "of another size.*for features of 1024",
        ),
        (
            lambda pca: write_datum(pca / "pca_variances.datum", np.ones(7, np.float32)),
            "of another size.*for features of 1024",
        ),
        (of_512, "are 512, 512 x 512, 512, for features of 1024 values"),
        (lambda pca: write_datum(pca / "other.datum", np.ones(1024, np.float32)), "one file of variances"),
        (lambda pca: (pca / "mean.datum").unlink(), r"cannot read .*mean.datum"),
        (lambda pca: (pca / "mean.datum").write_bytes(b"\x12\xff"), r"mean.datum cannot be read"),
        (lambda pca: write_datum(pca / "mean.datum", np.full(1024, np.nan, np.float32)), "NaN"),
    ],
    ids=["mean", "variances", "all", "two", "absent", "damaged", "nan"],
)
def test_broken_pca(model, change, said) -> None:
    change(model / "pca")
    with pytest.raises(WeightsError, match=said):
        convert(model)


def test_no_pca_is_no_error(model) -> None:
    shutil.rmtree(model / "pca")
    assert not any(name.startswith("pca") for name in convert(model).tensors)


def test_sources_that_are_nothing(shared, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no saved_model.pb and no \*.index"):
        convert(tmp_path / "empty")
    with pytest.raises(WeightsError, match="no archive, folder or checkpoint"):
        convert(tmp_path / "absent.zip")
    with pytest.raises(WeightsError, match=r"several models: .*codebook_tf2_checkpoint"):
        convert(shared / "fixtures/delf/aggregation_files")
    write_bundle(tmp_path / "other", {"x": np.ones(2, np.float32)})
    with pytest.raises(WeightsError, match="no codebook and no checkpoint of DELF's trainer"):
        convert(tmp_path / "other.index")
    write_bundle(tmp_path / "flat", {"clusters": np.ones(2, np.float32)})
    with pytest.raises(WeightsError, match="expected words x dimensions"):
        convert(tmp_path / "flat")


@pytest.mark.parametrize("keep", [0.3, 0.97])
def test_truncated_archive(shared, tmp_path, keep) -> None:
    data = (shared / "fixtures" / ARCHIVES["delf"]).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(WeightsError, match=r"cut.tar.gz cannot be unpacked"):
        convert(tmp_path / "cut.tar.gz")


def test_archive_with_a_link(delf_models, tmp_path) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(delf_models / "delf_gld_like/pca", "m/pca")
        link = tarfile.TarInfo("m/model")
        link.type, link.linkname = tarfile.SYMTYPE, str(delf_models / MODELS["delf"])
        tar.addfile(link)
    with pytest.raises(WeightsError, match="is a link or a device"):
        convert(tmp_path / "bad.tar.gz")


def keras_checkpoint(rng: np.random.Generator, *, delg: bool = True) -> dict[str, np.ndarray | bytes]:
    shapes = network_shapes("resnet_v1_50", local=True, autoencoder=delg, whitening=delg, biased=True)
    tensors: dict[str, np.ndarray | bytes] = {}
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    for name, path in keras_names(shapes).items():
        shape = shapes[name]
        if len(shape) > 1:
            value = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        elif name.endswith("running_var"):
            value = rng.uniform(0.5, 2, shape)
        else:
            value = rng.normal(size=shape) * 0.1 + name.endswith(
                ("bn.weight", "1.weight", "2.weight", "3.weight")
            )
        tensors[path + suffix] = value.astype(np.float32)
    tensors |= {
        "_CHECKPOINTABLE_OBJECT_GRAPH": b"\x0a\x00",
        f"save_counter{suffix}": np.asarray(3, np.int64),
        f"desc_classification/kernel{suffix}": np.ones((4, 2), np.float32),
        f"attn_classification/bias{suffix}": np.ones(2, np.float32),
        f"scale_factor{suffix}": np.asarray(45.25, np.float32),
    }
    return tensors


def test_checkpoint_of_the_tf2_trainer(tmp_path) -> None:
    """The keys of delf.md 3.4; the network is compared with Keras' rules written out below."""
    tensors = keras_checkpoint(np.random.default_rng(0))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert {
        f"backbone/l4f/bn2c/moving_mean{suffix}",
        f"backbone/l2a/conv_shortcut/bias{suffix}",
        f"backbone/l5a/bn_shortcut/gamma{suffix}",
        f"backbone/embedding_layer/kernel{suffix}",
        f"attention/bn_conv1/beta{suffix}",
        f"autoencoder/conv2/kernel{suffix}",
    } <= set(tensors)
    assert sum(value.size for key, value in tensors.items() if not isinstance(value, bytes)) == 28574721 + 12
    write_bundle(tmp_path / "delf_weights", tensors)
    found = convert(tmp_path / "delf_weights.index")
    assert found.facts.assumed
    assert found.facts.resize == "half_pixel"
    ours = {name: torch.from_numpy(value) for name, value in found.tensors.items()}
    net = DelfNetwork(ours, found.facts, device="cpu", dtype=torch.float32)
    pixels = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, 97, 130)).astype(np.float32))
    with torch.inference_mode():
        got = net.trunk.block3(pixels)
        expected = keras_block3(pixels, {key.removesuffix(suffix): value for key, value in tensors.items()})
    assert got.shape == (1, 1024, 3, 4)
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


def keras_block3(pixels: torch.Tensor, tensors: dict[str, np.ndarray]) -> torch.Tensor:
    """ResNet-50 of the trainer: stride on the first convolution of a stage, biases, epsilon 1e-3."""
    from torch.nn.functional import batch_norm, conv2d, max_pool2d, pad

    def get(key: str) -> torch.Tensor:
        return torch.from_numpy(tensors[key])

    def conv(x: torch.Tensor, name: str, norm: str, stride: int = 1) -> torch.Tensor:
        kernel = get(f"{name}/kernel").permute(3, 2, 0, 1)
        side = kernel.shape[2]
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + side - size, 0)
            pads += [total // 2, total - total // 2]
        x = conv2d(pad(x, pads), kernel, get(f"{name}/bias"), stride=stride)
        return batch_norm(
            x,
            *(get(f"{norm}/{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")),
            eps=1e-3,
        )

    x = max_pool2d(conv(pixels, "backbone/conv1", "backbone/bn_conv1", 2).relu(), 3, 2)
    for stage, units in ((2, "abc"), (3, "abcd"), (4, "abcdef")):
        for unit in units:
            scope = f"backbone/l{stage}{unit}"
            stride = 2 if unit == "a" and stage > 2 else 1
            y = conv(x, f"{scope}/conv2a", f"{scope}/bn2a", stride).relu()
            y = conv(y, f"{scope}/conv2b", f"{scope}/bn2b").relu()
            y = conv(y, f"{scope}/conv2c", f"{scope}/bn2c")
            x = conv(x, f"{scope}/conv_shortcut", f"{scope}/bn_shortcut", stride) if unit == "a" else x
            x = (x + y).relu()
    return x[:, :, ::2, ::2]


def test_checkpoint_without_autoencoder_is_delf(tmp_path) -> None:
    tensors = keras_checkpoint(np.random.default_rng(0), delg=False)
    write_bundle(tmp_path / "ckpt", tensors)
    found = convert(tmp_path / "ckpt")
    assert found.facts.kind == "delf"
    del tensors["attention/conv1/bias/.ATTRIBUTES/VARIABLE_VALUE"]
    write_bundle(tmp_path / "ckpt", tensors)
    with pytest.raises(WeightsError, match="1 missing: attention/conv1/bias"):
        convert(tmp_path / "ckpt")


def test_places_that_cannot_be_written(shared, tmp_path) -> None:
    found = convert(shared / "fixtures/delf/aggregation_files/codebook_tf1_clusters")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cannot write .*/file/x\.safetensors"):
        save(found, tmp_path / "file" / "x.safetensors")
    save(found, tmp_path / "x.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_files_that_are_not_ours(tmp_path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="does not say how its network is built"):
        load(tmp_path / "a.safetensors")
    for said in ("{", '{"kind": "delf"}', '{"format": 2, "kind": "codebook"}'):
        save_file({"a": np.ones(2, np.float32)}, tmp_path / "a.safetensors", metadata={"loc.facts": said})
        with pytest.raises(WeightsError, match="cannot be read as converted weights"):
            load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="cannot be read as converted weights"):
        load(tmp_path / "a.safetensors")
