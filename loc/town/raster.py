"""Which face is seen in each pixel: an exact z-buffer over flat polygons.

Seen through a pinhole, ``1/z`` of a plane is affine in the pixel, and so are ``a/z`` and ``b/z`` of its
frame coordinates; seen in parallel (the sun), ``a``, ``b`` and the depth are. A convex polygon is then a
span per pixel row, and the depth test one affine function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from loc.town.faces import Faces

Array = np.ndarray
#: Pixels by which polygons are widened, so that rounding leaves no gap between neighbours.
_WIDEN_PX = 0.02
_FAR = 1e9
#: Slopes of half planes below this are level.
_LEVEL = 1e-12


@dataclass(frozen=True, eq=False)
class Projection:
    """Faces in a view, as affine functions ``k0 x + k1 y + k2`` of the pixel (corner origin).

    Attributes:
        frame: ``(n, 3, 3)`` float64 rows for A, B and W: frame coordinates are ``a = A/W``, ``b = B/W``.
        near: ``(n, 3)`` float64, larger where nearer: 1/z of a pinhole, minus the depth of the sun.
        box: ``(n, 4)`` int32 of pixels that may be covered: left, top, right, bottom (exclusive).
        visible: ``(n,)`` bool, the box is not empty and the side that one sees exists.
    """

    frame: Float64[Array, "n 3 3"]
    near: Float64[Array, "n 3"]
    box: Int32[Array, "n 4"]
    visible: Bool[Array, " n"]


def project_pinhole(
    faces: Faces,
    rotation: Float64[Array, "3 3"],
    translation: Float64[Array, "3"],
    intrinsics: tuple[float, float, float],
    wh: tuple[int, int],
    *,
    closest: float = 0.05,
) -> Projection:
    """Faces through a pinhole.

    Args:
        rotation, translation: cam_from_world.
        intrinsics: focal length and principal point, px, corner origin.
        closest: distance of the near plane, metres; what is nearer is cut away exactly.
    """
    f, cx, cy = intrinsics
    origin = faces.origin @ rotation.T + translation
    u, v = faces.u @ rotation.T, faces.v @ rotation.T
    frame_cam = np.stack([u, v, origin], axis=2)  # point = z-scaled frame_cam @ (a, b, 1)
    determinant = np.linalg.det(frame_cam)
    sees = np.abs(determinant) > 1e-9
    inverse = np.zeros_like(frame_cam)
    inverse[sees] = np.linalg.inv(frame_cam[sees])
    ray_from_pixel = np.array([[1 / f, 0, -cx / f], [0, 1 / f, -cy / f], [0, 0, 1]])
    frame = inverse @ ray_from_pixel
    # The outside is v x u; it is seen when the eye (the origin) lies on that side of the plane.
    outside = np.einsum("ni,ni->n", np.cross(v, u), origin) < 0
    corners = np.einsum("nij,nkj->nki", frame_cam[..., :2], faces.corners) + origin[:, None]
    box = _boxes(corners, (f, cx, cy), wh, closest)
    visible = sees & (outside | faces.both) & (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])
    return Projection(frame, frame[:, 2].copy(), box, visible)


def project_parallel(
    faces: Faces, pixel_from_world: Float64[Array, "3 4"], wh: tuple[int, int]
) -> Projection:
    """Faces by parallel rays; the third row of ``pixel_from_world`` gives the depth in metres."""
    linear, offset = pixel_from_world[:, :3], pixel_from_world[:, 3]
    origin, u, v = faces.origin @ linear.T + offset, faces.u @ linear.T, faces.v @ linear.T
    determinant = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    sees = np.abs(determinant) > 1e-9
    safe = np.where(sees, determinant, 1.0)
    frame = np.zeros((len(faces), 3, 3))
    frame[:, 0, :2] = np.stack([v[:, 1], -v[:, 0]], axis=1) / safe[:, None]
    frame[:, 1, :2] = np.stack([-u[:, 1], u[:, 0]], axis=1) / safe[:, None]
    frame[:, :2, 2] = -np.einsum("nij,nj->ni", frame[:, :2, :2], origin[:, :2])
    frame[:, 2, 2] = 1
    near = -(u[:, 2:] * frame[:, 0] + v[:, 2:] * frame[:, 1])
    near[:, 2] -= origin[:, 2]
    corners = np.einsum("nki,nij->nkj", faces.corners, np.stack([u, v], axis=1)) + origin[:, None]
    low, high = corners[..., :2].min(axis=1), corners[..., :2].max(axis=1)
    box = _clipped(low, high, wh)
    visible = sees & (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])
    return Projection(frame, near, box, visible)


#: Given a face and frame coordinates (a, b), which of these points exist (leaves).
Exists = Callable[[int, Float32[Array, " m"], Float32[Array, " m"]], Bool[Array, " m"]]


def rasterize(
    faces: Faces,
    view: Projection,
    wh: tuple[int, int],
    *,
    exists: Exists | None = None,
    closest: float = 0.05,
    parallel: bool = False,
) -> tuple[Int32[Array, "h w"], Float32[Array, "h w"]]:
    """Number of the nearest face per pixel (-1: none), and its nearness (1/z, or minus the depth).

    Args:
        exists: asked about the points of faces with holes; without it they are whole.
    """
    seen = np.full((wh[1], wh[0]), -1, np.int32)
    nearness = np.full((wh[1], wh[0]), -_FAR if parallel else 0.0, np.float32)
    x, y = (np.arange(wh[0]) + 0.5).astype(np.float32), np.arange(wh[1]) + 0.5
    order = np.flatnonzero(view.visible)
    begins, ends = _edges(faces, view, order)
    limit = np.float32(_FAR if parallel else 1 / closest)
    for k, face in enumerate(order):
        left, top, right, bottom = view.box[face]
        rows, columns = y[top:bottom], x[left:right]
        start = (
            (begins[k][:, :1] * rows + begins[k][:, 1:])
            .max(axis=0, initial=-_FAR)
            .astype(np.float32)[:, None]
        )
        stop = (ends[k][:, :1] * rows + ends[k][:, 1:]).min(axis=0, initial=_FAR).astype(np.float32)[:, None]
        kx, ky, k1 = view.near[face]
        near = (ky * rows + k1).astype(np.float32)[:, None] + (kx * columns).astype(np.float32)
        kept = nearness[top:bottom, left:right]
        mask = columns >= start
        mask &= columns <= stop
        mask &= near > kept
        mask &= near <= limit
        if exists is not None and faces.cutout[face]:
            _keep_existing(int(face), view.frame[face], mask, (rows, columns), exists)
        np.copyto(kept, near, where=mask)
        np.copyto(seen[top:bottom, left:right], face, where=mask)
    return seen, nearness


def _keep_existing(
    face: int, frame: Float64[Array, "3 3"], mask: Bool[Array, "r c"], at: tuple[Array, Array], exists: Exists
) -> None:
    """Clear, in place, the pixels of a mask that fall into holes of the face."""
    row, column = np.nonzero(mask)
    if not len(row):
        return
    pixel = np.stack([at[1][column], at[0][row], np.ones(len(row))])
    a, b, w = frame @ pixel
    mask[row, column] = exists(face, (a / w).astype(np.float32), (b / w).astype(np.float32))


def _edges(
    faces: Faces, view: Projection, order: Int64[Array, " m"]
) -> tuple[list[Float64[Array, "c 2"]], list[Float64[Array, "c 2"]]]:
    """Per face, its edges as lines ``x = slope * y + offset``: those at which a pixel row enters the polygon
    (it begins at the largest), and those at which it leaves (it ends at the smallest)."""
    here = faces.corners[order]
    edge = np.roll(here, -1, axis=1) - here
    # Clockwise with b downwards: the inside is to the right of an edge, along (-eb, ea).
    p, q = -edge[..., 1], edge[..., 0]
    half_planes = np.stack([p, q, -(p * here[..., 0] + q * here[..., 1])], axis=2) @ view.frame[order]
    across, down, rest = np.moveaxis(half_planes, 2, 0)
    level = np.abs(across) < _LEVEL  # such an edge lets a whole row pass, or nothing of it
    rest = np.where(level, rest + _WIDEN_PX * np.abs(down), rest)
    across = np.where(level, _LEVEL, across)
    enters, real = across > 0, np.abs(edge).sum(axis=2) > 0  # repeated corners make no edges
    widened = -rest / across + np.where(enters, -_WIDEN_PX, _WIDEN_PX)
    lines = np.stack([-down / across, widened], axis=2)
    begins = [each[chosen] for each, chosen in zip(lines, enters & real, strict=True)]
    return begins, [each[chosen] for each, chosen in zip(lines, ~enters & real, strict=True)]


def _boxes(
    corners: Float64[Array, "n c 3"],
    intrinsics: tuple[float, float, float],
    wh: tuple[int, int],
    closest: float,
) -> Int32[Array, "n 4"]:
    """Boxes of the projected polygons, cut at the near plane."""
    f, cx, cy = intrinsics
    z = corners[..., 2]
    depth = np.maximum(z, closest)[..., None]
    pixel = corners[..., :2] / depth * f + np.array([cx, cy])
    low, high = pixel.min(axis=1), pixel.max(axis=1)
    behind = (z < closest).all(axis=1)
    for face in np.flatnonzero((z < closest).any(axis=1) & ~behind):
        cut = _cut(corners[face], closest)
        there = cut[:, :2] / cut[:, 2:] * f + np.array([cx, cy])
        low[face], high[face] = there.min(axis=0), there.max(axis=0)
    box = _clipped(low, high, wh)
    box[behind] = 0
    return box


def _cut(points: Float64[Array, "c 3"], closest: float) -> Float64[Array, "k 3"]:
    """The part of a polygon at or beyond the near plane (Sutherland and Hodgman, CACM 1974)."""
    out = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        if here[2] >= closest:
            out.append(here)
        if (here[2] >= closest) != (there[2] >= closest):
            share = (closest - here[2]) / (there[2] - here[2])
            crossing = here + share * (there - here)
            crossing[2] = closest
            out.append(crossing)
    return np.array(out)


def _clipped(
    low: Float64[Array, "n 2"], high: Float64[Array, "n 2"], wh: tuple[int, int]
) -> Int32[Array, "n 4"]:
    limit = np.array(wh, np.float64)
    start = np.clip(np.floor(low - 0.5), 0, limit)
    stop = np.clip(np.ceil(high + 0.5), 0, limit)
    return np.concatenate([start, stop], axis=1).astype(np.int32)
