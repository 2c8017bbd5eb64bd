"""The result file of a benchmark: poses under the names its server expects, checked before they are sent.

``name qw qx qy qz tx ty tz`` per localized query: cam_from_world, a unit quaternion, the translation and
not the camera centre, in the frame of the reference model (visuallocalization.net).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from loc.config import suggest
from loc.conventions import wxyz_from_xyzw, xyzw_from_wxyz
from loc.errors import ConfigError, SubmissionError
from loc.layouts.names import group_of
from loc.sfm.bundle import MapBundle
from loc.sfm.pnp import reprojection_errors_px
from loc.stages.poses import Poses
from loc.stores.files import make_folder, write_text
from loc.types import Pose, QueryResult, Scene

#: How a query is called: ``basename`` ``img.jpg``, ``camera`` ``rear/img.jpg``, ``path`` its whole name.
NameRule = Literal["basename", "camera", "path"]
#: The rule of each layout's benchmark; of others the whole name. (RobotCar Seasons wants ``camera``,
#: Extended CMU Seasons and InLoc ``basename``, Gangnam Station and Hyundai ``path``.)
RULES: dict[str, NameRule] = {"aachen": "basename"}
#: Parts of a name that a rule keeps, from the end; 0: all.
_PARTS: dict[NameRule, int] = {"basename": 1, "camera": 2, "path": 0}
#: Cameras of the map and of the reference model may differ by this share of the model's extent.
_FRAME_TOLERANCE = 0.01
_SHOWN = 3


@dataclass(frozen=True)
class GroupCount:
    """Queries of a group, how many of them have a pose, and the names of those that have none."""

    queries: int
    submitted: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Submission:
    """Checked lines, sorted by query, and what they cover, by group."""

    lines: tuple[str, ...]
    groups: dict[str, GroupCount]
    names: NameRule

    def write(self, path: Path) -> None:
        """Write the file, one line per localized query."""
        make_folder(path.parent)
        write_text(path, "".join(f"{line}\n" for line in self.lines))


def make_submission(
    results: Sequence[QueryResult],
    groups: Mapping[str, str],
    bundle: MapBundle,
    *,
    names: NameRule,
    known_poses: Mapping[str, Pose],
) -> Submission:
    """The lines of the result file.

    Args:
        results: of every query of the run.
        groups: query → evaluation group (day, night, …).
        bundle: the map they were localized in.
        names: how the benchmark names a query.
        known_poses: poses of map images in the reference model, as far as there are any.

    Raises:
        SubmissionError: no query has a pose; two queries would have one name; a name holds a space; the
            map is not in the frame of the reference model; or a pose, as written, does not project the
            points of its inliers onto them.
    """
    by_name = {result.name: result for result in sorted(results, key=lambda result: result.name)}
    written = {name: written_name(name, names) for name in by_name}
    _refuse_unusable(written, [name for name, result in by_name.items() if result.pose is not None])
    if not any(result.pose is not None for result in by_name.values()):
        raise SubmissionError(
            f"none of the {len(by_name)} queries has a pose: there is nothing to submit",
            "see the report of the run for where they fell",
        )
    check_frame(bundle.poses, known_poses)
    lines = []
    for name, result in by_name.items():
        if result.pose is not None:
            line = format_line(written[name], result.pose)
            _check_line(line, result, bundle)
            lines.append(line)
    counts = {}
    for group in sorted({groups.get(name, "all") for name in by_name}):
        members = [name for name in by_name if groups.get(name, "all") == group]
        missing = tuple(name for name in members if by_name[name].pose is None)
        counts[group] = GroupCount(len(members), len(members) - len(missing), missing)
    return Submission(tuple(lines), counts, names)


def submission_of(scene: Scene, poses: Poses, bundle: MapBundle, *, names: NameRule) -> Submission:
    """The result file of a run that has just ended; see :func:`make_submission`."""
    return make_submission(
        poses.results,
        {image.name: image.group for image in scene.queries}
        | {name: group_of(name) for name in scene.skipped_queries},
        bundle,
        names=names,
        known_poses={image.name: image.pose for image in scene.db if image.pose is not None},
    )


def name_rule(given: str | None, layout: str) -> NameRule:
    """The rule that was asked for, or that of the layout's benchmark."""
    if given is None:
        return RULES.get(layout, "path")
    for rule in get_args(NameRule):
        if given == rule:
            return rule  # type: ignore[no-any-return]
    raise ConfigError(f"--names {given!r} is no rule for names", suggest(given, list(get_args(NameRule))))


def written_name(name: str, rule: NameRule) -> str:
    """What a query is called in the file.

    >>> [written_name("query/day/rear/1.jpg", rule) for rule in ("basename", "camera", "path")]
    ['1.jpg', 'rear/1.jpg', 'query/day/rear/1.jpg']
    """
    return "/".join(name.split("/")[-_PARTS[rule] :])


def format_line(name: str, pose: Pose) -> str:
    """``name qw qx qy qz tx ty tz``; numbers survive exactly."""
    numbers = [*wxyz_from_xyzw(pose.quat_xyzw), *pose.translation]
    return " ".join([name, *(repr(float(number)) for number in numbers)])


def check_frame(found: Mapping[str, Pose], known: Mapping[str, Pose]) -> None:
    """Refuse a map whose cameras are not where the reference model has them.

    A map made from scratch has a frame and a scale of its own: every pose in it would count as wrong.
    """
    common = sorted(set(found) & set(known))
    if not common:
        return
    reference = np.array([known[name].center_in_world for name in common])
    moved = np.linalg.norm([found[name].center_in_world for name in common] - reference, axis=1)
    extent = float(np.median(np.linalg.norm(reference - np.median(reference, axis=0), axis=1)))
    if float(np.median(moved)) > _FRAME_TOLERANCE * max(extent, 1e-9):
        raise SubmissionError(
            f"the map is not in the frame of the reference model: its {len(common)} cameras are "
            f"{np.median(moved):.3g} units from where that has them (median; extent {extent:.3g})",
            "make the map from the known poses: --set map.mode=triangulate",
        )


def _refuse_unusable(written: Mapping[str, str], posed: Collection[str]) -> None:
    """Names that the server would confuse, and those of lines that it would cut in the wrong place."""
    before: dict[str, str] = {}
    for name, short in written.items():
        if short in before:
            raise SubmissionError(
                f"two queries would both be called {short!r}: {before[short]!r} and {name!r}",
                "the server would take one for the other: rename one, or choose --names camera or path",
            )
        before[short] = name
        if name in posed and len(short.split()) != 1:
            raise SubmissionError(
                f"the name {short!r} holds a space: its line would be cut in the wrong place",
                "rename the photo",
            )


def _check_line(line: str, result: QueryResult, bundle: MapBundle) -> None:
    """Read the line as a server does: with its pose the inliers must lie on their points."""
    numbers = np.array([float(word) for word in line.split()[1:]])
    if abs(float(np.linalg.norm(numbers[:4])) - 1.0) > 1e-6 or not np.isfinite(numbers).all():
        raise SubmissionError(
            f"the pose of {result.name!r} is not a unit quaternion and a translation: {line}",
            "localize again: the pose file of this run is damaged",
        )
    if result.inlier_xy is None or result.inlier_points3d is None or result.camera is None:
        return
    rows = np.searchsorted(bundle.index.point_ids, result.inlier_points3d)
    known = rows < len(bundle.index)
    if not known.all() or (bundle.index.point_ids[rows] != result.inlier_points3d).any():
        raise SubmissionError(
            f"the inliers of {result.name!r} are points that the map {bundle.folder} does not have",
            "the map and the poses are not of one run: localize again",
        )
    pose = Pose(xyzw_from_wxyz(numbers[:4]), numbers[4:])
    errors = reprojection_errors_px(
        pose, result.camera, result.inlier_xy.astype(np.float64), np.asarray(bundle.index.xyz[rows])
    )
    limit = float(bundle.localize.get("max_error_px", 12.0))
    if float(np.median(errors)) > limit:
        raise SubmissionError(
            f"with the pose written for {result.name!r} its inliers are {np.median(errors):.0f} px from "
            f"their points (median), {limit:g} are allowed",
            "the poses do not belong to this map: localize again",
        )
