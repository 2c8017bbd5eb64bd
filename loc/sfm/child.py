"""The mapping process: ``python -m loc.sfm.child request.json``.

Native mapping code can abort or hang; in a process of its own it takes nothing else with it.
:mod:`loc.sfm.mapper` writes the request, waits, and reads ``result.json``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from loc.colmap import pycolmap


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run one mapping task; models lie in ``output/<n>`` afterwards.

    Mappers from scratch find the poses; all points are then triangulated anew with these, by the
    same rules as for known poses.
    """
    output = Path(request["output"])
    output.mkdir(parents=True, exist_ok=True)
    images = output / "no_images"  # COLMAP insists on a folder; colours are sampled later, by us
    images.mkdir(exist_ok=True)
    if request["task"] == "triangulate":
        posed = {0: pycolmap.Reconstruction(request["reference"])}
    else:
        posed = {"incremental": _incremental, "global": _global}[request["task"]](request, images, output)
    models = {}
    for number, model in sorted(posed.items()):
        folder = output / str(number)
        folder.mkdir(exist_ok=True)
        models[number] = _triangulated(request, model, images, folder)
    images.rmdir()
    return {"models": [_described(number, model) for number, model in models.items()]}


def set_options(target: Any, options: dict[str, Any]) -> Any:
    """Set dotted options (``mapper.num_threads``) on a tree of pycolmap options."""
    for dotted, value in sorted(options.items()):
        *parents, name = dotted.split(".")
        node = target
        for parent in parents:
            node = getattr(node, parent)
        setattr(node, name, set(value) if isinstance(value, list) else value)
    return target


def _incremental(request: dict[str, Any], images: Path, output: Path) -> dict[int, pycolmap.Reconstruction]:
    options = set_options(pycolmap.IncrementalPipelineOptions(), request["options"])
    models: dict[int, pycolmap.Reconstruction] = pycolmap.incremental_mapping(
        request["database"], images, output, options=options
    )
    return models


def _global(request: dict[str, Any], images: Path, output: Path) -> dict[int, pycolmap.Reconstruction]:
    options = set_options(pycolmap.GlobalPipelineOptions(), request["options"])
    models: dict[int, pycolmap.Reconstruction] = pycolmap.global_mapping(
        request["database"], images, output, options=options
    )
    return models


def _triangulated(
    request: dict[str, Any], model: pycolmap.Reconstruction, images: Path, folder: Path
) -> pycolmap.Reconstruction:
    options = set_options(pycolmap.IncrementalPipelineOptions(), request["triangulation"])
    model = pycolmap.triangulate_points(
        model,
        request["database"],
        images,
        folder,
        options=options,
        refine_intrinsics=request["refine_intrinsics"],
    )
    # A pose is no use for localization where the image sees no point: registered means it does.
    for image_id in sorted(model.reg_image_ids()):
        image = model.images[image_id]
        if image.num_points3D == 0:
            model.deregister_frame(image.frame_id)
    model.write(folder)
    return model


def _described(number: int, model: pycolmap.Reconstruction) -> dict[str, Any]:
    names = sorted(model.images[image_id].name for image_id in model.reg_image_ids())
    return {"folder": str(number), "images": names, "points": model.num_points3D()}


def _exit_with_parent() -> None:
    """End this process when its parent is gone: the parent holds the other end of stdin."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    path = Path(sys.argv[1])
    pycolmap.logging.minloglevel = 0  # here all goes to a file, and tells why a map failed
    _exit_with_parent()
    result = run(json.loads(path.read_text(encoding="utf-8")))
    path.with_name("result.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # do not let native teardown turn a written result into a failure


if __name__ == "__main__":
    main()
