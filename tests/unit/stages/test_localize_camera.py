"""Which camera a query is localized with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from loc.config import LocalizeConfig
from loc.sfm.locate import focal_mode
from loc.stages.querycamera import query_camera
from loc.types import Camera


def camera(focal: float, *, known: bool = True) -> Camera:
    return Camera("SIMPLE_PINHOLE", 80, 60, np.array([focal, 40.0, 30.0]), has_prior_focal_length=known)


def bundle(**cameras: Camera) -> Any:
    ids = {f"{key}/1.jpg": f"{key} [80x60 Canon 5mm]" for key in cameras}
    table = {f"{key} [80x60 Canon 5mm]": value for key, value in cameras.items()}
    return SimpleNamespace(registered=tuple(ids), camera_ids=ids, cameras=table)


def test_the_maps_camera_of_the_same_sensor() -> None:
    refined, own = camera(92), camera(88)
    assert query_camera(bundle(db=refined), own, "q [80x60 Canon 5mm]", "exif") == (refined, "given")
    assert query_camera(bundle(db=refined), own, "q [80x60 Nikon 5mm]", "exif") == (own, "exif")
    # without EXIF the size alone says nothing, unless the camera is shared by choice
    assert query_camera(bundle(db=refined), own, "q [80x60 Canon 5mm]", "guess") == (own, "guess")
    assert query_camera(bundle(db=refined), own, "db [80x60 Canon 5mm]", "guess") == (refined, "given")


def test_its_own_camera() -> None:
    own = camera(88)
    assert query_camera(bundle(db=camera(92)), own, "db [80x60 Canon 5mm]", "given") == (own, "given")
    assert query_camera(bundle(db=camera(88)), own, "q [80x60 Canon 5mm]", "exif") == (own, "exif")
    two = bundle(db=camera(92), more=camera(91))
    assert query_camera(two, own, "q [80x60 Canon 5mm]", "exif") == (own, "exif")


def test_focal_mode() -> None:
    auto = LocalizeConfig()
    assert focal_mode(camera(88), "given", auto) == "fixed"
    assert focal_mode(camera(88), "exif", auto) == "refine"
    assert focal_mode(camera(88, known=False), "guess", auto) == "estimate"
    assert focal_mode(camera(88), "exif", LocalizeConfig(focal="fixed")) == "fixed"
