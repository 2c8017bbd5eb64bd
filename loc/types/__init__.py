"""Core types: what stages and plug-ins hand to one another.

All are frozen and validated on construction; a violation is a :class:`loc.errors.ContractError`
where a plug-in made the value and a :class:`loc.errors.DataError` where a file did.
Arrays are NumPy, on the host; pixels follow :mod:`loc.conventions` (corner origin, stored grid).
"""

from loc.types.features import Correspondences, LocalFeatures, Matches
from loc.types.geometry import CAMERA_PARAMS, Array, Camera, Pose
from loc.types.results import QueryResult, Status
from loc.types.scene import GpsPosition, ImageRecord, Intrinsics, Role, Scene

__all__ = [
    "CAMERA_PARAMS",
    "Array",
    "Camera",
    "Correspondences",
    "GpsPosition",
    "ImageRecord",
    "Intrinsics",
    "LocalFeatures",
    "Matches",
    "Pose",
    "QueryResult",
    "Role",
    "Scene",
    "Status",
]
