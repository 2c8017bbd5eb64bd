"""Layout *folder*: photos, optional query photos, optional masks, intrinsics and ground truth.

Every photo under ``images`` is a database image. ``queries`` is a folder too: inside the image root
its photos are queries and no database images, named relative to the root; outside they are named
``<folder>/<relative>``.
"""

from __future__ import annotations

from loc.config import SceneConfig
from loc.errors import DataError
from loc.layouts.assemble import image_root, make_scene, open_photos, photos_in, query_photos, refuse_unused
from loc.types import Scene


def load(config: SceneConfig) -> Scene:
    """Read the scene.

    Raises:
        ConfigError: an option of another layout is set, or ``images`` is not.
        DataError: a folder is missing, there is no photo at all, or a list or intrinsics are wrong.
    """
    refuse_unused(config, "model", "image_list", "version")
    root = image_root(config)
    queries = query_photos(config, root)
    without = [folder for folder in (config.queries, config.masks) if folder is not None]
    db = photos_in(root, without=[folder for folder in without if folder.resolve() != root.resolve()])
    if config.masks is not None and config.masks.resolve() == root.resolve():  # a.jpg.png beside a.jpg
        masks = {f"{name}.png" for name in db}
        db = {name: path for name, path in db.items() if name not in masks}
    if not db and not queries:
        raise DataError(
            f"there is no photo in {root}",
            "scene.images must be a folder with .jpg, .png, … files, in sub-folders or not",
        )
    return make_scene(config, db=open_photos(db), queries=open_photos(queries))
