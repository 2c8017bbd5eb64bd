"""``loc import bundler`` and ``loc import nvm``: models of other programs as COLMAP models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import DataError
from loc.exchange.targets import export_folder
from loc.layouts.assemble import require_on_disk
from loc.layouts.bundler import read_bundler
from loc.layouts.cameras import GivenIntrinsics, PhotoFile, check_size, read_intrinsics
from loc.layouts.nvm import Nvm, as_model, parse_nvm
from loc.runtime.images import image_header
from loc.types import Camera

#: Above this median reprojection error, px, intrinsics or pixel origin are probably not what they seem.
_SUSPICIOUS_PX = 4.0
_BEHIND = 1e6


def import_bundler(
    path: Path,
    list_path: Path,
    images: Path,
    target: Path,
    *,
    intrinsics: Path | None = None,
    keep_world: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Write ``bundle.out`` as a COLMAP model; returns counts.

    Args:
        images: image root; the files give the sizes, which Bundler does not write.
        intrinsics: list ``name MODEL W H params`` that takes precedence.
        keep_world: see :func:`loc.layouts.bundler.read_bundler`.

    Raises:
        DataError: a damaged file (with the line), or photos that are missing.
    """
    found = read_bundler(path, list_path, keep_world=keep_world)

    def camera(number: int, image_wh: tuple[int, int]) -> Camera:
        return _radial(image_wh, found.columns.focal_px[number], *found.distortion[number])

    return _write(found.columns, _cameras(found.columns, images, intrinsics, camera), target, force=force)


def import_nvm(
    path: Path, images: Path, target: Path, *, intrinsics: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Write the largest model of an NVM file as a COLMAP model; arguments as of :func:`import_bundler`.

    VisualSFM's distortion leads from measured to undistorted, ``u = m (1 + r m²)``; COLMAP's the other
    way. Its inverse is ``m = u (1 - r u² + 3 r² u⁴ - …)``, of which ``RADIAL`` holds the first two.
    """
    nvm = parse_nvm(path)

    def camera(number: int, image_wh: tuple[int, int]) -> Camera:
        r = float(nvm.radial[number])
        return _radial(image_wh, nvm.focal_px[number], -r, 3 * r * r)

    return _write(nvm, _cameras(nvm, images, intrinsics, camera), target, force=force)


def _radial(image_wh: tuple[int, int], focal: float, k1: float, k2: float) -> Camera:
    width, height = image_wh
    return Camera("RADIAL", width, height, np.array([focal, width / 2, height / 2, k1, k2], np.float64))


def _cameras(
    columns: Nvm, images: Path, intrinsics: Path | None, make: Callable[[int, tuple[int, int]], Camera]
) -> dict[str, Camera]:
    """A camera per image: the list's, else that of the file with the size of the photo."""
    given = GivenIntrinsics() if intrinsics is None else read_intrinsics(intrinsics)
    if not images.is_dir():
        raise DataError(f"the image root {images} is not a folder", "give it with --images ROOT")
    listed = {name: entry.camera for name in columns.names if (entry := given.get(name)) is not None}
    unknown = [name for name in columns.names if name not in listed]
    require_on_disk(unknown, images, source=str(columns.path))
    missing = [name for name in unknown if not (images / name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(columns.names)} images of {columns.path} are not under {images}: "
            f"{', '.join(missing[:3])}",
            "their sizes are needed: complete the photos, or give --intrinsics 'name MODEL W H PARAMS'",
        )
    cameras = {}
    for number, name in enumerate(columns.names):
        camera = listed.get(name)
        if camera is None:
            camera = make(number, image_header(images / name)[0])
        elif (images / name).is_file():
            check_size(camera, PhotoFile.open(name, images / name), where=str(intrinsics))
        cameras[name] = camera
    return cameras


def _write(columns: Nvm, cameras: dict[str, Camera], target: Path, *, force: bool) -> dict[str, Any]:
    model = as_model(columns, cameras)
    model.update_point_3d_errors()
    errors = [point.error for point in model.points3D.values()]
    error = float(np.median(errors)) if errors else 0.0
    counts: dict[str, Any] = {
        "images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": int(model.compute_num_observations()),
        # COLMAP's largest number where a point lies behind the camera that sees it.
        "median_reprojection_error_px": round(error, 3) if error < _BEHIND else None,
        "notes": [],
    }
    if error >= _BEHIND:
        behind = sum(value >= _BEHIND for value in errors)
        which = (
            "no point projects into its images"
            if behind == len(errors)
            else (f"{behind} of {len(errors)} points do not project into their images")
        )
        counts["notes"].append(
            f"{which}: they lie behind a camera that saw them; poses, points and tracks of the file do not "
            "belong together (was it cut?): import the file as the other program wrote it"
        )
    elif error > _SUSPICIOUS_PX:
        counts["notes"].append(
            f"half of the points project more than {_SUSPICIOUS_PX:g} px from where they were seen: poses "
            "and points are as in the file, its intrinsics or pixels are something else: give the data "
            "set's own list by --intrinsics"
        )
    about = {"kind": "colmap", "from": columns.path.name, **counts}
    with export_folder(target, about, force=force) as folder:
        model.write_binary(folder)
    return counts
