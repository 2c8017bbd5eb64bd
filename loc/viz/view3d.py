"""The 3-D view of a run: in a window, or as a picture. Open3D runs in a child process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

import loc
from loc.errors import ResourceError
from loc.sfm.bundle import MapBundle
from loc.sfm.model import read_colors
from loc.stages.poses import Poses
from loc.stores.files import make_folder, write_atomically
from loc.types import Array, Camera, Pose, QueryResult
from loc.viz.open3d_child import NO_DISPLAY
from loc.viz.scene3d import Drawing, ShownQuery, View, draw_scene

#: Debian and Ubuntu package of each system library that Open3D loads.
PACKAGES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgomp.so.1": "libgomp1",
    "libX11.so.6": "libx11-6",
    "libvulkan.so.1": "libvulkan1",
}
_EVERYTHING = "apt-get install libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6 libvulkan1 mesa-vulkan-drivers"
INSTALL = 'install it: pip install "visloc[view]"'
#: Drawn at so many times the size and averaged down: Open3D does not smooth lines itself.
_SUPERSAMPLE, _MAX_SIDE = 2, 8192
_REFERENCE_WIDTH = 1600
_INLIER_RGB = np.array([255, 214, 120], np.uint8)
_TIMEOUT_S = 300.0


def shown_queries(
    bundle: MapBundle, poses: Poses | None, table: Mapping[str, Any], truth: Mapping[str, Pose]
) -> list[ShownQuery]:
    """The queries of a run as the view draws them.

    Args:
        table: ``scene/scene.json`` of the run folder: groups and cameras.
        truth: true poses of queries, where they are known.
    """
    rows = {row["name"]: row for row in table["images"]}
    out = []
    for result in () if poses is None else poses.results:
        camera = result.camera
        row = rows.get(result.name)
        if camera is None and row is not None:
            camera = Camera.from_json(table["cameras"][row["camera_id"]])
        out.append(
            ShownQuery(
                result.name,
                "all" if row is None else row["group"],
                result.status,
                result.pose,
                camera,
                truth.get(result.name),
                _inliers(result, bundle),
            )
        )
    return out


def run_drawing(bundle: MapBundle, queries: list[ShownQuery], *, focus: str | None = None) -> Drawing:
    """The map of a run with its queries."""
    db = {name: (bundle.poses[name], bundle.camera(name)) for name in bundle.registered}
    points = (np.asarray(bundle.index.xyz), read_colors(bundle.model_folder))
    return draw_scene(db, queries, points, focus=focus)


def save_picture(drawing: Drawing, view: View, path: Path, *, width: int, height: int) -> None:
    """Render off screen into a PNG, with a legend.

    Raises:
        ResourceError: Open3D, a system library or a driver is missing; says what to install.
    """
    factor = _SUPERSAMPLE if _SUPERSAMPLE * max(width, height) <= _MAX_SIDE else 1
    with tempfile.TemporaryDirectory(prefix="loc-show-") as folder:
        request = _request(drawing, view, width=width, height=height, factor=factor)
        _run_child(Path(folder), drawing, request, timeout_s=_TIMEOUT_S)
        picture = np.load(Path(folder) / "picture.npy")
    _write_png(path, _with_legend(_shrunk(picture, factor), drawing))


def open_viewer(drawing: Drawing, view: View, *, title: str, width: int, height: int) -> None:
    """Open a window and wait until it is closed.

    Raises:
        ResourceError: as :func:`save_picture`, or there is no display.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise _no_display("DISPLAY is not set")
    with tempfile.TemporaryDirectory(prefix="loc-show-") as folder:
        request = _request(drawing, view, width=width, height=height)
        _run_child(Path(folder), drawing, {**request, "window": True, "title": title}, timeout_s=None)


def _inliers(result: QueryResult, bundle: MapBundle) -> Array | None:
    if result.inlier_points3d is None:
        return None
    ids = bundle.index.point_ids
    if not len(ids):
        return None
    rows = np.searchsorted(ids, result.inlier_points3d).clip(max=len(ids) - 1)
    known = ids[rows] == result.inlier_points3d
    return np.asarray(bundle.index.xyz[rows[known]])


def _request(drawing: Drawing, view: View, *, width: int, height: int, factor: int = 1) -> dict[str, Any]:
    scale = factor * (width / _REFERENCE_WIDTH) ** 0.6  # what is thin stays visible in small pictures
    crowd = max(len(drawing.xyz), 1)
    return {
        "window": False,
        "width": factor * width,
        "height": factor * height,
        "point_px": round(float(np.clip(500 / np.sqrt(crowd), 1.6, 5.0)) * scale, 2),
        "lines": [
            {"name": each.name, "color": each.color, "width_px": each.width_px * scale}
            for each in drawing.lines
        ],
        "view": {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in asdict(view).items()
        },
    }


def _run_child(folder: Path, drawing: Drawing, request: dict[str, Any], *, timeout_s: float | None) -> None:
    """Let the child draw; what it dies of becomes a typed error."""
    arrays = {f"lines{number}": each.ends for number, each in enumerate(drawing.lines)}
    arrays |= {"points_xyz": drawing.xyz, "points_rgb": drawing.colors}
    arrays |= {"inliers_xyz": drawing.inliers, "inliers_rgb": np.tile(_INLIER_RGB, (len(drawing.inliers), 1))}
    np.savez(folder / "request.npz", **arrays)
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    root = str(Path(loc.__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    environment = dict(os.environ, PYTHONPATH=root if not known else f"{root}{os.pathsep}{known}")
    log = folder / "open3d.log"
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "loc.viz.open3d_child", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=timeout_s,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ResourceError(
            f"Open3D did not finish a picture within {timeout_s:g} s", f"check its drivers: {_EVERYTHING}"
        ) from None
    if (folder / "import_error.json").is_file():
        raise _import_error(json.loads((folder / "import_error.json").read_text(encoding="utf-8")))
    if done.returncode == NO_DISPLAY:
        raise _no_display(f"DISPLAY is {os.environ.get('DISPLAY')}, and no server answers there")
    if done.returncode != 0 or not (request["window"] or (folder / "picture.npy").is_file()):
        raise _crash(done.returncode, log.read_text(encoding="utf-8", errors="replace"))


def _no_display(why: str) -> ResourceError:
    return ResourceError(
        f"there is no display to open a window on ({why})",
        "render a picture instead: loc show RUN --png FILE",
    )


def _import_error(told: dict[str, Any]) -> ResourceError:
    if told["module"] == "open3d":
        return ResourceError("Open3D, which draws the 3-D view, is not installed", INSTALL)
    library = re.search(r"\b(lib[\w.+-]*\.so[\w.]*)", told["message"])
    if library is not None:
        package = PACKAGES.get(library[1])
        return ResourceError(
            f"Open3D cannot be loaded: the system library {library[1]} is missing",
            f"apt-get install {package}" if package else _EVERYTHING,
        )
    return ResourceError(
        f"Open3D cannot be loaded: {told['message']}", INSTALL.replace("install", "reinstall", 1)
    )


def _crash(code: int, log: str) -> ResourceError:
    """What the renderer died of, as far as its last words tell."""
    if re.search(r"vulkan|vk[A-Z]\w+|EGL|OpenGL|GLX", log, re.IGNORECASE) or code < 0:
        return ResourceError(
            f"Open3D's renderer {_ending(code)}: no working Vulkan or EGL driver was found",
            "apt-get install libvulkan1 mesa-vulkan-drivers libegl1 libgl1 (they draw without a GPU too)",
        )
    words = [line.strip() for line in log.splitlines() if line.strip()][-2:]
    return ResourceError(
        f"Open3D {_ending(code)}: {' | '.join(words)}", f"check its libraries: {_EVERYTHING}"
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"failed (exit code {code})"
    names = {each.value: each.name for each in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def _shrunk(picture: UInt8[Array, "H W 3"], factor: int) -> UInt8[Array, "h w 3"]:
    import cv2

    height, width = picture.shape[:2]
    if factor == 1:
        return picture
    small: Array = cv2.resize(picture, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return small


def _with_legend(picture: UInt8[Array, "h w 3"], drawing: Drawing) -> UInt8[Array, "h w 3"]:
    """Names and counts of the kinds of lines, in the lower left corner."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(np.ascontiguousarray(picture))
    pen = ImageDraw.Draw(canvas, "RGBA")
    unit = max(8.0, min(picture.shape[0] / 52, picture.shape[1] / 60))
    font = ImageFont.load_default(size=unit)
    rows = [(each.color, f"{each.name}  {each.count}") for each in drawing.lines]
    top = picture.shape[0] - unit * (1.6 * len(rows) + 0.8)
    widest = max((pen.textlength(text, font=font) for _, text in rows), default=0.0)
    pen.rounded_rectangle(
        (0.5 * unit, top - 0.4 * unit, 3.5 * unit + widest, picture.shape[0] - 0.5 * unit),
        0.4 * unit,
        fill=(16, 19, 23, 200),
    )
    for number, (color, text) in enumerate(rows):
        y = top + 1.6 * unit * number
        shade = tuple(round(255 * value) for value in color)
        pen.rounded_rectangle((unit, y + 0.42 * unit, 2.3 * unit, y + 0.78 * unit), 0.18 * unit, fill=shade)
        pen.text((2.9 * unit, y), text, font=font, fill=(225, 228, 232))
    return np.asarray(canvas)


def _write_png(path: Path, picture: UInt8[Array, "h w 3"]) -> None:
    import cv2

    _, encoded = cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])

    def write(temporary: Path) -> None:
        temporary.write_bytes(encoded.tobytes())

    make_folder(path.resolve().parent)
    write_atomically(path, write)
