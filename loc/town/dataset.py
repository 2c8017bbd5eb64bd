"""The rendered town as a data set on disk, in the folder layout of Aachen Day-Night v1.1.

Sattler et al., CVPR 2018; the layout is that of the published archives: ``images/images_upright``,
``3D-models/aachen_v_1_1``, ``queries``. ``ground_truth.txt`` is an extra: the true poses of the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from loc.colmap import camera_to_colmap, pose_to_colmap, pycolmap
from loc.conventions import wxyz_from_xyzw
from loc.runtime.runtime import Runtime
from loc.stores.files import make_folder, remove_tree, write_text
from loc.stores.fingerprint import fingerprint
from loc.stores.products import is_done, make_product, read_manifest
from loc.town.plan import HALF, Town, build_town
from loc.town.studio import Observed, Workshop, compute_light, photograph, prepare
from loc.town.views import SIZES, Shot, shots
from loc.types import Camera

Array = np.ndarray

#: Raised when a photo or a list changes.
RENDERER_VERSION = 2
_IMAGES = Path("images/images_upright")
_MODEL = Path("3D-models/aachen_v_1_1")
_POINTS = 6000


def make_dataset(
    folder: Path, size: str = "default", *, seed: int = 0, runtime: Runtime | None = None
) -> Path:
    """Render the town into ``folder/<size>-<fingerprint>``, or find it there; returns that folder.

    Photos that an interrupted rendering finished are used again. The result does not depend on the
    number of workers.

    Args:
        size: a key of :data:`loc.town.views.SIZES`.
    """
    runtime = runtime or Runtime()
    chosen = SIZES[size]
    fields = {"kind": "town", "renderer": RENDERER_VERSION, "size": vars(chosen), "seed": seed}
    name = f"{size}-{fingerprint(fields)}"
    target = folder / name
    if is_done(target):
        read_manifest(target)
        return target
    work = folder / f"{name}.work"

    def build(partial: Path) -> None:
        town = build_town(seed=seed, ppm=chosen.ppm)
        plan = shots(chosen, town.obstacles)
        points = reference_points(town)
        prepare(work / "shared", town)
        with Workshop(work / "shared", runtime) as workshop:
            weathers = sorted({shot.weather for shot in plan})
            compute_light(workshop, work / "shared", town, chosen, weathers)
            # Photos of one hour follow one another: a worker then reads its depth map of the sun once.
            order = sorted(plan, key=lambda shot: (shot.weather, shot.name))
            jobs = [(shot, work / _IMAGES / shot.name, points) for shot in order]
            found = dict(
                zip((shot.name for shot in order), workshop.run(photograph, jobs, "town"), strict=True)
            )
        write_lists(partial, plan)
        observed = {name: seen for name, seen in found.items() if seen is not None}
        write_model(partial / _MODEL, [shot for shot in plan if not shot.is_query], points, observed)
        make_folder((partial / _IMAGES).parent)
        (work / _IMAGES).rename(partial / _IMAGES)

    make_product(target, fields, build)
    remove_tree(work)
    return target


def reference_points(town: Town) -> Float64[Array, "n 3"]:
    """Points on surfaces around the square, evenly over their area: the points of the reference model."""
    faces = town.faces
    rng = np.random.default_rng(7)
    area = np.linalg.norm(np.cross(faces.u, faces.v), axis=1)
    middle = faces.vertices.mean(axis=1)
    near = (np.abs(middle[:, 0]) < HALF[0] + 4) & (np.abs(middle[:, 1]) < HALF[1] + 4) & ~faces.cutout
    weight = np.where(near, np.minimum(area, 40), 0)
    face = np.sort(rng.choice(len(faces), _POINTS, p=weight / weight.sum()))
    # A point inside the polygon: a mean of its corners with random weights.
    weights = rng.dirichlet(np.full(faces.corners.shape[1], 0.6), _POINTS)
    ab = (faces.corners[face] * weights[..., None]).sum(axis=1)
    return faces.origin[face] + ab[:, :1] * faces.u[face] + ab[:, 1:] * faces.v[face]


def write_lists(folder: Path, plan: Sequence[Shot]) -> None:
    """Query lists and intrinsics of the database (lines ``name MODEL W H params``), and the true poses."""
    queries = [shot for shot in plan if shot.is_query]
    lists = {
        Path("queries/day_time_queries_with_intrinsics.txt"): [s for s in queries if "/day/" in s.name],
        Path("queries/night_time_queries_with_intrinsics.txt"): [s for s in queries if "/night/" in s.name],
        _MODEL / "database_intrinsics_v1_1.txt": [shot for shot in plan if not shot.is_query],
    }
    for path, chosen in lists.items():
        make_folder((folder / path).parent)
        write_text(folder / path, "".join(f"{shot.name} {_intrinsics(shot.camera)}\n" for shot in chosen))
    truth = [
        f"{shot.name} {_numbers(wxyz_from_xyzw(shot.pose.quat_xyzw))} {_numbers(shot.pose.translation)}\n"
        for shot in queries
    ]
    write_text(folder / "ground_truth.txt", "".join(truth))


def write_model(
    folder: Path, plan: Sequence[Shot], points: Float64[Array, "n 3"], observed: dict[str, Observed]
) -> None:
    """The reference model, as COLMAP's binary files and as NVM; an image has a camera of its own."""
    model = pycolmap.Reconstruction()
    tracks: dict[int, list[tuple[int, int]]] = {}
    colours: dict[int, Array] = {}
    for image_id, shot in enumerate(plan, start=1):
        seen = observed[shot.name]
        camera = camera_to_colmap(shot.camera, image_id)
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=shot.name, keypoints=seen.xy, camera_id=image_id, image_id=image_id)
        model.add_image_with_trivial_frame(image, pose_to_colmap(shot.pose))
        for row, point in enumerate(seen.points.tolist()):
            tracks.setdefault(point, []).append((image_id, row))
            colours.setdefault(point, seen.rgb[row])
    for point in sorted(tracks):
        if len(tracks[point]) < 2:
            continue
        track = pycolmap.Track()
        for image_id, row in tracks[point]:
            track.add_element(image_id, row)
        model.add_point3D(points[point], track, colours[point].astype(np.uint8))
    make_folder(folder)
    model.write_binary(str(folder))
    write_text(folder / "aachen_v_1_1.nvm", _nvm(plan, points, tracks, observed, colours))


def _nvm(
    plan: Sequence[Shot],
    points: Float64[Array, "n 3"],
    tracks: dict[int, list[tuple[int, int]]],
    observed: dict[str, Observed],
    colours: dict[int, Array],
) -> str:
    """VisualSFM's text format: camera centres instead of translations, pixels from the principal point.

    Its distortion undoes instead of doing, so its sign is the opposite to first order.
    """
    lines = ["NVM_V3", "", str(len(plan))]
    for shot in plan:
        quaternion, center = (
            _numbers(wxyz_from_xyzw(shot.pose.quat_xyzw)),
            _numbers(shot.pose.center_in_world),
        )
        f, _, _, k = (float(value) for value in shot.camera.params)
        lines.append(f"{shot.name} {f!r} {quaternion} {center} {-k!r} 0")
    kept = [point for point in sorted(tracks) if len(tracks[point]) >= 2]
    lines += ["", str(len(kept))]
    for point in kept:
        place = _numbers(points[point])
        rgb = " ".join(str(int(value)) for value in colours[point])
        parts = [place, rgb, str(len(tracks[point]))]
        for image_id, row in tracks[point]:
            shot = plan[image_id - 1]
            x, y = observed[shot.name].xy[row] - shot.camera.params[1:3]
            parts.append(f"{image_id - 1} {row} {x:.4f} {y:.4f}")
        lines.append(" ".join(parts))
    return "\n".join([*lines, "", "0", ""])


def _intrinsics(camera: Camera) -> str:
    return f"{camera.model} {camera.width} {camera.height} {_numbers(camera.params)}"


def _numbers(values: Float64[Array, " n"]) -> str:
    """Numbers that survive exactly."""
    return " ".join(repr(float(value)) for value in values)
