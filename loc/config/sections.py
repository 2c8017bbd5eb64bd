"""The sections of a run's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from loc.config.checks import Section
from loc.config.pairs import PAIR_CONFIGS, AutoPairs, PairsConfig

Block = dict[str, Any]


class SceneConfig(Section):
    """Where the photos are and what is known about them (see :mod:`loc.layouts`).

    Relative paths are relative to the working directory.
    """

    layout: Literal["folder", "colmap", "hloc", "aachen"] = "folder"
    images: Path | None = Field(
        None, description="image root: names are relative to it; aachen: root of the data set"
    )
    queries: Path | None = Field(
        None, description="folder: a folder of query photos; the others: a query list (globs allowed)"
    )
    masks: Path | None = Field(None, description="folder of masks, <name>.png; zero hides keypoints")
    model: Path | None = Field(None, description="colmap: reference model with known poses")
    image_list: Path | None = Field(None, description="hloc: list of database images")
    intrinsics: Path | None = Field(None, description="list 'name MODEL W H params…' (globs allowed)")
    version: Literal["v1", "v1.1"] | None = Field(
        None, description="aachen: release of the data set; default v1.1 if its model is there"
    )
    cameras: Literal["per_folder", "per_image", "single"] = "per_folder"
    camera_model: str = "SIMPLE_RADIAL"
    ground_truth: Path | None = Field(None, description="true query poses: name qw qx qy qz tx ty tz")
    priors: Path | None = Field(
        None, description="rough query poses, in the same format, for pairs by pose; never the result"
    )


class MapConfig(Section):
    """How the map is made (:mod:`loc.stages.map`)."""

    mode: Literal["auto", "reconstruct", "triangulate"] = Field(
        "auto", description="auto: triangulate if every database image has a known pose"
    )
    mapper: Literal["incremental", "global"] = "incremental"
    verification: Literal["auto", "two_view", "known_poses"] = Field(
        "auto", description="auto: known_poses when triangulating, two_view otherwise"
    )
    max_error_px: float = Field(4.0, gt=0, description="verification threshold")
    min_num_inliers: int = Field(15, ge=1, description="verified matches below which a pair is dropped")
    min_model_size: int = Field(3, ge=2)
    refine_intrinsics: Literal["auto", "always", "never"] = Field(
        "auto", description="auto: cameras whose focal length is not known"
    )
    deterministic: bool = Field(True, description="pin native threads that change results")
    timeout_s: float | None = Field(None, gt=0, description="stop a hanging mapper after this long")


class LocalizeConfig(Section):
    """Pose estimation of queries and the thresholds of their status (:mod:`loc.stages.localize`)."""

    max_error_px: float = Field(12.0, gt=0, description="RANSAC threshold")
    min_inliers_ok: int = Field(30, ge=3)
    min_inlier_ratio_ok: float = Field(0.25, ge=0, le=1)
    min_inliers: int = Field(12, ge=3, description="below: pnp_failed")
    max_rotation_std_deg: float = Field(
        0.2, gt=0, description="ok: formal standard deviation of the rotation at most this"
    )
    max_position_std: float = Field(
        0.02, gt=0, description="ok: that of the position, relative to the distance of the inliers"
    )
    covisibility_clustering: bool = Field(
        True, description="a pose per cluster of references that see common points; the best is taken"
    )
    max_second_ratio_ok: float = Field(
        0.5, ge=0, le=1, description="ok: inliers of a cluster at another place, relative to the best"
    )
    focal: Literal["auto", "fixed", "estimate"] = Field(
        "auto", description="auto: given intrinsics are fixed, EXIF's refined, a guess estimated"
    )


class EvaluateConfig(Section):
    """Recall thresholds as [world units, degrees]."""

    thresholds: tuple[tuple[float, float], ...] = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))


class RunConfig(Section):
    """Everything that changes the numbers of a run; device and workers live in ``Runtime``."""

    scene: SceneConfig = SceneConfig()
    features: Block | str | None = "sift"
    globals: Block | str | None = "vlad"
    matcher: Block | str = "nearest"
    pairs: tuple[PairsConfig, ...] = (AutoPairs(),)
    map: MapConfig = MapConfig()
    localize: LocalizeConfig = LocalizeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def section_models(section: str) -> tuple[type[BaseModel], ...]:
    """What validates a section of :class:`RunConfig`; none for a block of a plug-in."""
    if section == "pairs":
        return PAIR_CONFIGS
    kind = RunConfig.model_fields[section].annotation
    return (kind,) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()
