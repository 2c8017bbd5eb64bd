"""Images taken near one another: by known poses, or by the GPS positions of their EXIF data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from loc.types import Array, GpsPosition, Pose

#: Rows that are compared at once, so that memory stays small; the result does not depend on it.
_BLOCK = 64


def nearest_poses(
    asking: Mapping[str, Pose],
    database: Mapping[str, Pose],
    k: int,
    *,
    max_distance: float | None,
    max_angle_deg: float,
) -> list[tuple[str, str]]:
    """``(asking, database image)``: the ``k`` nearest camera centres, by name asked, nearest first.

    Args:
        asking, database: name → cam_from_world; the same name on both sides is no pair.
        max_distance: world units, or None.
        max_angle_deg: largest angle between the viewing directions (optical axes).
    """
    names, others = sorted(asking), sorted(database)
    centers = np.array([asking[name].center_in_world for name in names]).reshape(-1, 3)
    other_centers = np.array([database[name].center_in_world for name in others]).reshape(-1, 3)
    axes = np.array([asking[name].rotation[2] for name in names]).reshape(-1, 3)
    other_axes = np.array([database[name].rotation[2] for name in others]).reshape(-1, 3)
    least = np.cos(np.radians(max_angle_deg))
    chosen = []
    for start in range(0, len(names), _BLOCK):
        rows = slice(start, start + _BLOCK)
        # The last digits of a product must not shut out equal directions.
        allowed = axes[rows] @ other_axes.T >= least - 1e-12
        allowed &= ~_same(names[rows], others)
        chosen += _nearest(centers[rows], other_centers, allowed, k, max_distance)
    return [(name, others[row]) for name, found in zip(names, chosen, strict=True) for row in found.tolist()]


def nearest_gps(
    asking: Mapping[str, GpsPosition],
    database: Mapping[str, GpsPosition],
    k: int,
    *,
    max_distance_m: float,
    use_altitude: bool = False,
) -> list[tuple[str, str]]:
    """``(asking, database image)``: the ``k`` nearest on the ground, by name asked, nearest first."""
    names, others = sorted(asking), sorted(database)
    if not names or not others:
        return []
    origin = database[others[0]]
    places = local_meters([asking[name] for name in names], origin, use_altitude=use_altitude)
    other_places = local_meters([database[name] for name in others], origin, use_altitude=use_altitude)
    chosen = []
    for start in range(0, len(names), _BLOCK):
        rows = slice(start, start + _BLOCK)
        chosen += _nearest(places[rows], other_places, ~_same(names[rows], others), k, max_distance_m)
    return [(name, others[row]) for name, found in zip(names, chosen, strict=True) for row in found.tolist()]


def local_meters(
    positions: Sequence[GpsPosition], origin: GpsPosition, *, use_altitude: bool = False
) -> Float64[Array, "n 3"]:
    """East, north and up in metres from ``origin``: WGS84 → earth-centred → local tangent frame.

    Distances are the straight ones, also far from the origin, where "up" falls with the curve of the
    earth. Without ``use_altitude`` everything is at height zero; else a missing altitude is the origin's,
    or zero.
    """
    from loc.colmap import pycolmap

    base = (origin.altitude_m or 0.0) if use_altitude else 0.0
    rows = [
        (
            each.latitude_deg,
            each.longitude_deg,
            (base if each.altitude_m is None else each.altitude_m) if use_altitude else 0.0,
        )
        for each in positions
    ]
    transform = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
    table = np.array(rows, np.float64).reshape(-1, 3)
    local = transform.ellipsoid_to_enu(table, origin.latitude_deg, origin.longitude_deg, base)
    return np.asarray(local, np.float64).reshape(-1, 3)


def _same(names: Sequence[str], others: Sequence[str]) -> Bool[Array, "b n"]:
    columns = {name: column for column, name in enumerate(others)}
    same = np.zeros((len(names), len(others)), bool)
    for row, name in enumerate(names):
        if name in columns:
            same[row, columns[name]] = True
    return same


def _nearest(
    points: Float64[Array, "b 3"],
    others: Float64[Array, "n 3"],
    allowed: Bool[Array, "b n"],
    k: int,
    max_distance: float | None,
) -> list[Int64[Array, " k"]]:
    """Rows of ``others`` for each point, nearest first; equal distances in the order of the rows."""
    distances = np.linalg.norm(points[:, None] - others[None], axis=2)
    allowed = allowed & (distances <= (np.inf if max_distance is None else max_distance))
    order = np.argsort(distances, axis=1, kind="stable")
    return [ranked[allowed[row, ranked]][:k] for row, ranked in enumerate(order)]
