"""The one file that imports pycolmap, for everyone.

pycolmap's shared object exports its own zlib: if it is the first import, a later PNG write or
``zlib.compress`` elsewhere in the process aborts or hangs. After ``import zlib`` all is well.
"""

from __future__ import annotations

import signal
import threading
import zlib  # noqa: F401  (must come before pycolmap, see above)

import pycolmap

from loc.types import Camera, Pose

# Importing it also installs glog's handler for SIGTERM, which kills the process on the spot where ours
# flushes what is finished. What Python knows of the signal is put back.
_on_sigterm = signal.getsignal(signal.SIGTERM)
if threading.current_thread() is threading.main_thread() and _on_sigterm is not None:
    signal.signal(signal.SIGTERM, _on_sigterm)

# COLMAP announces every extractor it creates; warnings and errors stay. The mapper's child process,
# whose output is a log file, lowers this again.
pycolmap.logging.minloglevel = int(pycolmap.logging.WARNING)

__all__ = [
    "camera_from_colmap",
    "camera_to_colmap",
    "pose_from_colmap",
    "pose_to_colmap",
    "pycolmap",
]


def camera_to_colmap(camera: Camera, camera_id: int = 0) -> pycolmap.Camera:
    """Our camera as pycolmap's (a fresh object: pycolmap refines cameras in place)."""
    out = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=camera.params.copy()
    )
    out.has_prior_focal_length = camera.has_prior_focal_length
    if camera_id:
        out.camera_id = camera_id
    return out


def camera_from_colmap(camera: pycolmap.Camera) -> Camera:
    return Camera(
        model=camera.model.name,
        width=int(camera.width),
        height=int(camera.height),
        params=camera.params,
        has_prior_focal_length=bool(camera.has_prior_focal_length),
    )


def pose_to_colmap(pose: Pose) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(pycolmap.Rotation3d(pose.quat_xyzw), pose.translation)


def pose_from_colmap(rigid: pycolmap.Rigid3d) -> Pose:
    return Pose(rigid.rotation.quat, rigid.translation)
