"""A dense matcher that knows the truth: a third party's plug-in, and the worlds it knows.

It casts a grid of pixels of the first image onto the world's surface and projects the hits into the
second, with noise and outliers. Every pair has a grid of its own, so that hardly a point is in two pairs.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from loc.colmap import pycolmap
from loc.conventions import PixelOrigin, center_from_corner
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array, Correspondences, Pose

_SIGNATURE = 16


@dataclass(frozen=True)
class World:
    """A surface ``z = f(x, y)`` in a frame of its own, and pinhole cameras that look at it.

    ``axes`` (rows) and ``origin`` place the frame in the world; ``intrinsics`` are fx, fy, cx, cy, width,
    height in px (corner origin).
    """

    axes: Array
    origin: Array
    grid_x: Array
    grid_y: Array
    height: Array
    poses: dict[str, Pose]
    intrinsics: Array

    @property
    def wh(self) -> tuple[int, int]:
        return int(self.intrinsics[4]), int(self.intrinsics[5])

    def cast(self, name: str, xy: Array) -> tuple[Array, Array]:
        """Points of the surface that pixels show, and where there is one (fixed-point iteration)."""
        fx, fy, cx, cy = self.intrinsics[:4]
        scale = [(len(grid) - 1) / (grid[-1] - grid[0]) for grid in (self.grid_x, self.grid_y)]
        corner = np.array([self.grid_x[0], self.grid_y[0]])

        def surface(points: Array) -> Array:
            return map_coordinates(self.height, ((points - corner) * scale).T, order=1, cval=np.nan)

        rays = np.stack([(xy[:, 0] - cx) / fx, (xy[:, 1] - cy) / fy, np.ones(len(xy))], axis=1)
        rays = rays @ self.poses[name].rotation @ self.axes.T
        start = (self.poses[name].center_in_world - self.origin) @ self.axes.T
        level = np.zeros(len(xy))
        for _ in range(30):
            points = start + ((level - start[2]) / rays[:, 2])[:, None] * rays
            level = (level + np.nan_to_num(surface(points[:, :2]), nan=0)) / 2
        along = (level - start[2]) / rays[:, 2]
        points = start + along[:, None] * rays
        hit = (np.abs(surface(points[:, :2]) - points[:, 2]) < 2e-3) & (along > 0)
        return points @ self.axes + self.origin, hit

    def project(self, name: str, points: Array) -> tuple[Array, Array]:
        """Pixels of points, and whether they are inside the image."""
        fx, fy, cx, cy = self.intrinsics[:4]
        seen = points @ self.poses[name].rotation.T + self.poses[name].translation
        xy = seen[:, :2] / seen[:, 2:] * [fx, fy] + [cx, cy]
        return xy, (seen[:, 2] > 0) & ((xy > 1) & (xy < np.array(self.wh) - 1)).all(axis=1)

    def see(self, first: str, second: str, xy: Array) -> tuple[Array, Array]:
        """Where pixels of one image are in another, and which are visible in both."""
        points, hit = self.cast(first, xy)
        there, inside = self.project(second, points)
        again, hit_again = self.cast(second, np.where(inside[:, None], there, 1.0))
        return there, hit & inside & hit_again & (np.linalg.norm(again - points, axis=1) < 0.03)

    def save(self, path: Path, photos: dict[str, Array]) -> None:
        """Write what the plug-in reads; ``photos`` are grey pixels, by which it knows them again."""
        names = sorted(photos)
        np.savez(
            path,
            names=np.array(json.dumps(names)),
            poses=np.array(json.dumps({name: pose.to_json() for name, pose in self.poses.items()})),
            signatures=np.stack([_signature(photos[name]) for name in names]),
            axes=self.axes,
            origin=self.origin,
            grid_x=self.grid_x,
            grid_y=self.grid_y,
            height=self.height,
            intrinsics=self.intrinsics,
        )


class OracleConfig(PluginConfig):
    world: str = ""
    grid_px: float = 16.0
    noise_px: float = 0.3
    outliers: float = 0.05


class DenseOracle:
    """Correspondences of known geometry; distances in px of the images it is shown."""

    Config: ClassVar[type[PluginConfig]] = OracleConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "none: it knows the truth"
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    requires: ClassVar[frozenset[str]] = frozenset({"images"})
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    min_side: ClassVar[int] = 32
    #: Pairs that were matched, by name: tests count them.
    asked: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, config: OracleConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        self.config = config
        data = np.load(config.world)
        self.names = json.loads(str(data["names"]))
        self.signatures = data["signatures"]
        poses = {name: Pose.from_json(pose) for name, pose in json.loads(str(data["poses"])).items()}
        fields = ("axes", "origin", "grid_x", "grid_y", "height")
        self.world = World(*(data[field] for field in fields), poses, data["intrinsics"])

    def prepare(self, image: Any) -> tuple[str | None, tuple[int, int]]:
        pixels = np.asarray(image)[0]
        distance = np.abs(self.signatures - _signature(pixels)).mean(axis=1)
        name = self.names[int(distance.argmin())] if distance.min() < 0.02 else None
        return name, (pixels.shape[1], pixels.shape[0])

    def __call__(self, pairs: Any) -> list[Correspondences]:
        return [self._match(first, second) for first, second in pairs]

    def _match(self, first: Any, second: Any) -> Correspondences:
        (name0, wh0), (name1, wh1) = first, second
        if name0 not in self.world.poses or name1 not in self.world.poses:
            return Correspondences.empty()  # a photo of something else
        self.asked.append((name0, name1))
        rng = np.random.default_rng(zlib.crc32(f"{name0} {name1}".encode()))
        step, shown0, shown1 = self.config.grid_px, np.array(wh0), np.array(wh1)
        axes = [np.arange(rng.random() * step, side, step) for side in wh0]
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        there, seen = self.world.see(name0, name1, grid * np.array(self.world.wh) / shown0)
        xy0, xy1 = grid[seen], there[seen] * shown1 / np.array(self.world.wh)
        xy1 = xy1 + rng.normal(0, self.config.noise_px, xy1.shape)
        wrong = rng.random(len(xy1)) < self.config.outliers
        xy1[wrong] = rng.random((int(wrong.sum()), 2)) * shown1
        scores = rng.uniform(0.3, 1.0, len(xy0)) * np.where(wrong, 0.6, 1.0)
        inside = ((xy1 > 0) & (xy1 < shown1)).all(axis=1)
        return Correspondences(
            center_from_corner(xy0[inside]).astype(np.float32),
            center_from_corner(xy1[inside]).astype(np.float32),
            scores[inside].astype(np.float32),
        )


def fountain_world(model: Path) -> World:
    """The wall of Strecha's fountain: SIFT points of the reference model over their plane, smoothed."""
    truth = pycolmap.Reconstruction(str(model))
    points = np.array([point.xyz for point in truth.points3D.values()])
    low, high = np.percentile(points, [1, 99], axis=0)
    points = points[((points >= low - 1) & (points <= high + 1)).all(axis=1)]
    origin = np.median(points, axis=0)
    axes = np.linalg.svd(points - origin, full_matrices=False)[2]
    local = (points - origin) @ axes.T
    near = cKDTree(local[:, :2])
    local[:, 2] = np.median(local[near.query(local[:, :2], k=15)[1], 2], axis=1)
    grid_x, grid_y = (np.linspace(local[:, axis].min(), local[:, axis].max(), 160) for axis in (0, 1))
    grid = np.stack(np.meshgrid(grid_x, grid_y, indexing="ij"), axis=-1).reshape(-1, 2)
    height = np.median(local[near.query(grid, k=8)[1], 2], axis=1).reshape(160, 160)
    camera = next(iter(truth.cameras.values()))
    poses = {}
    for image in truth.images.values():
        pose = image.cam_from_world()
        poses[image.name] = Pose(pose.rotation.quat, pose.translation)
    intrinsics = np.array([*camera.params, camera.width, camera.height])
    return World(axes, origin, grid_x, grid_y, gaussian_filter(height, 2), poses, intrinsics)


def wall_world(images: int = 6) -> World:
    """A wavy wall in front of cameras in a row that turn a little; 640 x 480 px."""
    grid = np.linspace(-6, 6, 120)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    poses = {}
    for number in range(images):
        angle = 0.12 * (number - (images - 1) / 2)
        rotation = pycolmap.Rotation3d(np.array([0, np.sin(angle / 2), 0, np.cos(angle / 2)]))
        centre = np.array([1.1 * (number - (images - 1) / 2), 0.2 * (number % 3), -5.0])
        poses[f"{number}.png"] = Pose(rotation.quat, -rotation.matrix() @ centre)
    height = 0.4 * np.sin(1.3 * x) * np.cos(0.9 * y)
    return World(
        np.eye(3), np.zeros(3), grid, grid, height, poses, np.array([600.0, 600, 320, 240, 640, 480])
    )


def _signature(pixels: Array) -> Array:
    """Mean grey of 16 x 16 fields, in [0, 1]: the same for a photo at any size."""
    import cv2

    grey = pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    small: Array = cv2.resize(grey, (_SIGNATURE, _SIGNATURE), interpolation=cv2.INTER_AREA)
    return small.ravel()
