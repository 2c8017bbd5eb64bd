"""The process that draws: ``python -m loc.viz.open3d_child REQUEST_FOLDER``.

Open3D's renderer can abort or hang where drivers are missing; in a process of its own it takes
nothing else with it. :mod:`loc.viz.view3d` writes ``request.npz`` and ``request.json``, waits, and
reads ``picture.npy`` (off screen), or ``import_error.json``.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

#: Exit codes: Open3D cannot be imported; there is no display.
NO_IMPORT, NO_DISPLAY = 3, 4
#: Lifts the shadows of the points' colours, which drown on a dark ground.
GAMMA = 0.8
#: Near black, as Open3D takes it: without post-processing it decodes this from sRGB once more, so that
#: 0.30 comes out as 19 of 255.
BACKGROUND = (0.28, 0.30, 0.33, 1.0)


def geometries(open3d: Any, request: dict[str, Any], arrays: Any) -> list[tuple[str, Any, Any]]:
    """Name, geometry and material of everything to draw."""
    vectors = open3d.utility.Vector3dVector
    rendering = open3d.visualization.rendering
    out = []
    for name, size_px in (("points", request["point_px"]), ("inliers", 1.15 * request["point_px"])):
        if not len(arrays[f"{name}_xyz"]):
            continue
        cloud = open3d.geometry.PointCloud(vectors(arrays[f"{name}_xyz"].astype(np.float64)))
        cloud.colors = vectors((arrays[f"{name}_rgb"].astype(np.float64) / 255) ** GAMMA)
        material = rendering.MaterialRecord()
        material.shader, material.point_size = "defaultUnlit", size_px
        out.append((name, cloud, material))
    for number, each in enumerate(request["lines"]):
        ends = arrays[f"lines{number}"].astype(np.float64)
        pairs = np.arange(len(ends), dtype=np.int32).reshape(-1, 2)
        lines = open3d.geometry.LineSet(vectors(ends), open3d.utility.Vector2iVector(pairs))
        lines.paint_uniform_color(each["color"])
        material = rendering.MaterialRecord()
        material.shader, material.line_width = "unlitLine", each["width_px"]
        out.append((each["name"], lines, material))
    return out


def draw_off_screen(open3d: Any, request: dict[str, Any], arrays: Any) -> np.ndarray:
    """``(h, w, 3)`` uint8 RGB."""
    renderer = open3d.visualization.rendering.OffscreenRenderer(request["width"], request["height"])
    scene = renderer.scene
    scene.set_background(BACKGROUND)
    scene.view.set_post_processing(False)  # tone mapping would change the colours of the points
    for name, geometry, material in geometries(open3d, request, arrays):
        scene.add_geometry(name, geometry, material)
    view = request["view"]
    eye, target, up = (np.array(view[name], np.float32) for name in ("eye", "target", "up"))
    renderer.setup_camera(view["fov_deg"], target, eye, up)
    return np.asarray(renderer.render_to_image())


def open_window(open3d: Any, request: dict[str, Any], arrays: Any) -> None:
    """Show the scene until the window is closed; the list at its side hides and shows kinds."""
    view = request["view"]
    open3d.visualization.draw(
        [
            {"name": name, "geometry": geometry, "material": material}
            for name, geometry, material in geometries(open3d, request, arrays)
        ],
        title=request["title"],
        width=request["width"],
        height=request["height"],
        bg_color=BACKGROUND,
        show_skybox=False,
        show_ui=True,
        raw_mode=True,  # no tone mapping: the colours of the points as they are
        lookat=view["target"],
        eye=view["eye"],
        up=view["up"],
        field_of_view=view["fov_deg"],
    )


def display_opens() -> bool:
    """Whether the X server answers; Open3D waits for ever for one that does not."""
    if not sys.platform.startswith("linux") or os.environ.get("WAYLAND_DISPLAY"):
        return True
    x11 = ctypes.CDLL("libX11.so.6")  # Open3D is linked to it
    x11.XOpenDisplay.restype = ctypes.c_void_p
    return bool(x11.XOpenDisplay(None))


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        import open3d
    except (ImportError, OSError) as error:  # a wheel whose system library is missing raises either
        told = {"message": str(error), "module": getattr(error, "name", None)}
        (folder / "import_error.json").write_text(json.dumps(told), encoding="utf-8")
        os._exit(NO_IMPORT)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    with np.load(folder / "request.npz") as arrays:
        if request["window"] and not display_opens():
            os._exit(NO_DISPLAY)
        if request["window"]:
            open_window(open3d, request, arrays)
        else:
            np.save(folder / "picture.npy", draw_off_screen(open3d, request, arrays))
    sys.stdout.flush()
    os._exit(0)  # do not let native teardown turn a finished picture into a failure


if __name__ == "__main__":
    main()
