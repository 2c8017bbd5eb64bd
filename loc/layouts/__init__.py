"""Reading scenes: a folder of photos, a COLMAP model, hloc's lists, or Aachen Day-Night.

One file per layout, each with ``load(config) -> Scene``; :func:`load_scene` picks one.
"""

from __future__ import annotations

from loc.config import SceneConfig
from loc.types import Scene


def load_scene(config: SceneConfig) -> Scene:
    """The scene of a config; what is wrong with it is a DataError or ConfigError that names the fix.

    Photos that cannot be read are in ``Scene.skipped`` with the reason.
    """
    from loc.layouts import aachen, colmap, folder, hloc

    loaders = {"folder": folder.load, "colmap": colmap.load, "hloc": hloc.load, "aachen": aachen.load}
    return loaders[config.layout](config)
