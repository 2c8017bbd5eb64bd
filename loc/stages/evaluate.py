"""Stage *report*: errors against the ground truth, and the page that shows a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from loc.config import EvaluateConfig
from loc.errors import DataError
from loc.layouts.colmap import read_model
from loc.layouts.lists import read_poses, write_poses
from loc.layouts.names import group_of
from loc.metrics.poses import pose_error, summarize
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.stages.artefacts import PairList
from loc.stages.poses import Poses
from loc.stores.files import make_folder, read_json, write_json, write_text
from loc.stores.fingerprint import fingerprint
from loc.stores.products import check_product, make_product
from loc.types import Pose, Scene
from loc.viz.report import Known, PoseErrors, render_evaluation, render_report

#: Raised when metrics or page change.
STAGE_VERSION = 2
METRICS_FILE = "metrics.json"
PAGE_FILE = "index.html"
#: True poses of the queries, in the format of poses.txt; only where there are any.
TRUTH_FILE = "ground_truth.txt"


@dataclass(frozen=True)
class Report:
    """Product of this stage: ``metrics.json``, ``index.html`` and ``ground_truth.txt`` in ``folder``."""

    folder: Path
    metrics: dict[str, Any]


def evaluate(
    scene: Scene,
    bundle: MapBundle,
    poses: Poses,
    *,
    config: EvaluateConfig,
    workdir: Path,
    runtime: Runtime,
    pairs: PairList | None = None,
) -> Report:
    """Measure the poses where the scene has ground truth, and write the page.

    Every query of the ground truth is in the denominator, localized or not, readable or not.

    Args:
        pairs: of the queries; the page then shows what was retrieved for a query that failed.
    """
    truth = _query_truth(scene)
    fields = {
        "kind": "report",
        "stage": STAGE_VERSION,
        "evaluate": config.model_dump(mode="json"),
        "map": bundle.folder.name,
        "poses": poses.folder.name,
        "pairs": None if pairs is None else pairs.folder.name,
        "truth": fingerprint({name: pose.to_json() for name, pose in truth.items()}),
    }

    def build(folder: Path) -> None:
        metrics, errors = _measure(scene, poses, truth, config)
        page = render_report(
            scene,
            bundle,
            poses.results,
            Known(metrics, errors, truth, {} if pairs is None else pairs.ranked),
            title=workdir.resolve().name,
            workers=runtime.num_workers,
        )
        write_json(folder / METRICS_FILE, metrics)
        write_text(folder / PAGE_FILE, page)
        if truth:
            write_poses(folder / TRUTH_FILE, truth)

    folder = make_product(workdir / "report" / fingerprint(fields), fields, build)
    check_product(folder)
    return Report(folder, read_json(folder / METRICS_FILE))


def evaluate_files(
    poses_path: Path,
    truth_path: Path,
    thresholds: Sequence[tuple[float, float]] | None = None,
    group_rule: Callable[[str], str] = group_of,
) -> dict[str, Any]:
    """Recall and errors of a pose file, all queries of the ground truth in the denominator.

    Args:
        poses_path: ``name qw qx qy qz tx ty tz`` per line.
        truth_path: the same format, or the folder of a COLMAP model.
        thresholds: world units and degrees; default: those of :class:`loc.config.EvaluateConfig`.
        group_rule: name → evaluation group.

    Returns:
        The summary of :func:`loc.metrics.poses.summarize`, with ``thresholds``, ``queries``,
        ``poses`` (lines of the file), ``unknown`` (those that are not in the ground truth), and
        ``per_query``, a row for every query of the ground truth.

    Raises:
        DataError: a file cannot be read, or the names of the two do not correspond.
    """
    truth = read_model(truth_path)[0] if truth_path.is_dir() else read_poses(truth_path)
    if not truth:
        raise DataError(f"the ground truth {truth_path} holds no poses", "give the true poses of the queries")
    found = read_poses(poses_path)
    matched = match_names(found, truth, where=(str(poses_path), str(truth_path)))
    chosen = tuple(thresholds or EvaluateConfig().thresholds)
    errors = {name: pose_error(pose, truth[name]) for name, pose in matched.items()}
    return {
        **summarize(matched, truth, {name: group_rule(name) for name in truth}, chosen),
        "per_query": [
            {
                "name": name,
                "group": group_rule(name),
                "localized": name in errors,
                "error": errors[name][0] if name in errors else None,
                "error_deg": errors[name][1] if name in errors else None,
            }
            for name in sorted(truth)
        ],
        "thresholds": [list(each) for each in chosen],
        "queries": len(truth),
        "poses": len(found),
        "unknown": len(found) - len(matched),
    }


def write_page(path: Path, summary: Mapping[str, Any], *, title: str) -> None:
    """Write what :func:`evaluate_files` found as one self-contained HTML page."""
    make_folder(path.parent)
    write_text(path, render_evaluation(summary, title=title))


def match_names(
    found: Mapping[str, Pose], truth: Mapping[str, Pose], *, where: tuple[str, str] = ("", "")
) -> dict[str, Pose]:
    """Poses under the names of the ground truth: equal names, or else, if there are none, equal basenames.

    Benchmarks want basenames (``img.jpg``) where a ground truth has paths (``query/day/img.jpg``).

    Raises:
        DataError: no name of one is in the other, or basenames are not unique.
    """
    same = {name: pose for name, pose in found.items() if name in truth}
    if same or not found:
        return same
    for names, file in zip((found, truth), where, strict=True):
        counts = Counter(PurePosixPath(name).name for name in names)
        twice = [name for name, count in sorted(counts.items()) if count > 1]
        if twice:
            both = sorted(name for name in names if PurePosixPath(name).name == twice[0])[:2]
            raise DataError(
                f"no name of {where[0]} is in {where[1]}, and file names alone are ambiguous: "
                f"{' and '.join(map(repr, both))} ({file})",
                "write the same names in both files",
            )
    by_basename = {PurePosixPath(name).name: name for name in truth}
    out = {
        by_basename[PurePosixPath(name).name]: pose
        for name, pose in found.items()
        if PurePosixPath(name).name in by_basename
    }
    if not out:
        raise DataError(
            f"no name of {where[0]} is in {where[1]}: {next(iter(found))!r} against {next(iter(truth))!r}",
            "check that both files are of the same scene and name the queries alike",
        )
    return out


def _query_truth(scene: Scene) -> dict[str, Pose]:
    """Ground truth of the queries, by name; a database image's pose is not a query's."""
    mapped = {image.name for image in scene.db}
    return {name: scene.ground_truth[name] for name in sorted(scene.ground_truth) if name not in mapped}


def _measure(
    scene: Scene, poses: Poses, truth: dict[str, Pose], config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, PoseErrors]]:
    """``metrics.json``, and the errors of each localized query with ground truth."""
    found = poses.localized
    errors = {
        name: PoseErrors(*pose_error(found[name], pose)) for name, pose in truth.items() if name in found
    }
    groups = {image.name: image.group for image in scene.queries}
    metrics: dict[str, Any] = {
        "queries": len(poses.results),
        "localized": len(found),
        "status": dict(sorted(Counter(result.status for result in poses.results).items())),
        "thresholds": [list(each) for each in config.thresholds],
        "per_query": [
            {
                "name": result.name,
                "group": groups.get(result.name) or group_of(result.name),
                "status": result.status,
                "inliers": result.num_inliers,
                "matches": result.num_matches,
                "error": errors[result.name].error if result.name in errors else None,
                "error_deg": errors[result.name].error_deg if result.name in errors else None,
            }
            for result in poses.results
        ],
    }
    if truth:
        estimated = {name: found[name] for name in truth if name in found}
        of_truth = {name: groups.get(name) or group_of(name) for name in truth}
        metrics |= summarize(estimated, truth, of_truth, config.thresholds)
    return metrics, errors
