"""What a global extractor of pixels learns comes from the database's photos, and is part of the line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

from loc.errors import DataError
from loc.globals.pooling import Pooled, Trunk
from loc.nets.pooling import spoc, unit
from loc.plugins.blocks import resolve_block
from loc.runtime.extraction import PhotoExtractor
from loc.runtime.images import read_photo
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features
from loc.stages.extract import content_keys, extract_globals, feature_fields, features_folder
from loc.stages.fit import fit_folder
from loc.stores.features import FeatureStore
from loc.types import ImageRecord


class Colours(Trunk):
    channels = 3

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(pixels, 8)


class Tint(Pooled):
    paper: ClassVar[str] = "none"
    weights: ClassVar[tuple] = ()

    def open_trunk(self) -> Trunk:
        return Colours()

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return unit(spoc(maps)[None])


@pytest.fixture
def images(tmp_path) -> list[ImageRecord]:
    rng = np.random.default_rng(0)
    records = []
    for row in range(24):
        path = tmp_path / "photos" / f"{row:02}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 60, 3), rng.integers(0, 255, 3), np.uint8))
        records.append(ImageRecord(path.name, path, "db" if row < 22 else "query", ""))
    return records


def described(images: list[ImageRecord], workdir: Path, **options):
    runtime = Runtime(device="cpu", workers=1)
    local = resolve_block("features", None)
    keys, skipped = content_keys(images, runtime)
    features = Features(
        FeatureStore(features_folder(local, workdir), feature_fields(local)), keys, skipped, local
    )
    plugin = resolve_block("globals", {"use": f"{__name__}:Tint", **options})
    names = [image.name for image in images if image.role == "db"]
    found = extract_globals(
        images, features, plugin=plugin, fit_names=names, workdir=workdir, runtime=runtime
    )
    assert fit_folder(features, names, plugin=plugin, workdir=workdir).is_dir() is plugin.needs_fit
    return found


def test_the_whitening_of_the_database(images, tmp_path) -> None:
    raw = described(images, tmp_path / "run")
    assert raw.fit is None
    found = described(images, tmp_path / "run", pca_dim=2)
    assert found.fit is not None
    names = [image.name for image in images]
    rows, plain = found.matrix(names), raw.matrix(names)
    database = plain[:22]
    values, vectors = np.linalg.eigh(np.cov(database.T, bias=True))
    turned = (plain - database.mean(0)) @ vectors[:, ::-1][:, :2] / np.sqrt(values[::-1][:2])
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert np.abs(rows) == pytest.approx(np.abs(turned), abs=2e-3)
    # A photo alone, with the same fit, as a map that is loaded later does it.
    from dataclasses import replace

    alone = PhotoExtractor(replace(found.plugin, state=found.fit))
    last = alone.extract(read_photo(images[-1].path, color="rgb"))
    assert last == pytest.approx(rows[-1], abs=1e-5)


def test_a_new_query_changes_nothing_of_the_fit(images, tmp_path) -> None:
    one, two = (described(some, tmp_path / "run", pca_dim=2) for some in (images[:-1], images))
    assert one.fit == two.fit
    assert one.store.folder == two.store.folder
    assert two.computed == 1


def test_too_few_photos(images, tmp_path) -> None:
    with pytest.raises(DataError, match=r"to 3 values cannot be learned from 22 vectors \(database images\)"):
        described(images, tmp_path / "run", pca_dim=3)
