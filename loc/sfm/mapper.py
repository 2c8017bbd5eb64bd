"""Mapping with COLMAP in a child process: incremental, global, or triangulation of known poses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import loc
from loc.config import MapConfig
from loc.errors import MapError
from loc.stores.files import make_folder, read_json, require_space, write_json, writing
from loc.types import Camera

Task = Literal["incremental", "global", "triangulate"]
#: Parameters of each camera model that are not distortion: focal lengths and principal point.
_PINHOLE_PARAMS = {"SIMPLE_PINHOLE": 3, "SIMPLE_RADIAL": 3, "RADIAL": 3}
_PINHOLE_PARAMS |= {"SIMPLE_RADIAL_FISHEYE": 3, "RADIAL_FISHEYE": 3}
#: With less free disk than this a mapper that failed has failed for it.
_LEAST_BYTES = 1 << 20
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class FoundModel:
    """A model that the mapper wrote: ``folder``, names of its registered images, number of points."""

    folder: Path
    images: tuple[str, ...]
    points: int


def needs_refinement(camera: Camera) -> bool:
    """Whether a camera is a guess: unknown focal length, or distortion that nobody has measured.

    EXIF knows a focal length but no distortion; all distortion parameters exactly zero in a model
    that has them are such a placeholder.
    """
    distortion = camera.params[_PINHOLE_PARAMS.get(camera.model, 4) :]
    return not camera.has_prior_focal_length or bool(len(distortion) and not distortion.any())


def mapper_options(task: Task, config: MapConfig, cameras: dict[int, Camera]) -> dict[str, Any]:
    """Options of pycolmap's incremental or global pipeline, dotted, for :mod:`loc.sfm.child`.

    Args:
        cameras: COLMAP camera id → camera; decides which intrinsics stay as they are.
    """
    common = _common_options(config)
    if task == "triangulate":
        return {}
    if task == "global":
        return common | {"min_model_size": config.min_model_size} | _global_refinement(config, cameras)
    return common | {
        "min_model_size": config.min_model_size,
        "triangulation.random_seed": 0,
        "extract_colors": False,
        "constant_cameras": _constant(config, cameras),
    }


def triangulation_options(config: MapConfig) -> dict[str, Any]:
    """Options for the points, given the poses.

    Tracks of two views stay: with fixed poses they are as good as their angle (at least 1.5
    degrees). Measured on the shared sets, known poses, held-out queries: kermit 1243 instead of 462
    points and three instead of two queries ok, sacre_coeur 1780 instead of 803 points with 0.0027
    instead of 0.0037 median error, entry 5.8 instead of 7.9 mm. In the mappers themselves, which
    must find the poses, they are left out.
    """
    return _common_options(config) | {
        "triangulation.random_seed": 0,
        "triangulation.ignore_two_view_tracks": False,
        "extract_colors": False,
    }


def _common_options(config: MapConfig) -> dict[str, Any]:
    threads = 1 if config.deterministic else -1
    return {
        "random_seed": 0,
        "num_threads": threads,
        "mapper.random_seed": 0,
        "mapper.num_threads": threads,
        "min_num_matches": config.min_num_inliers,
    }


def run_mapper(
    task: Task,
    *,
    database: Path,
    output: Path,
    options: dict[str, Any],
    triangulation: dict[str, Any],
    log: Path,
    reference: Path | None = None,
    refine_intrinsics: bool = False,
    deterministic: bool = True,
    timeout_s: float | None = None,
) -> list[FoundModel]:
    """Map in a child process; models come largest first (registered images, then points).

    Args:
        options: from :func:`mapper_options`; ``triangulation``: from :func:`triangulation_options`.
        reference: model with known poses, for ``triangulate``.
        refine_intrinsics: change cameras while triangulating.
        log: file for everything the child prints.

    Raises:
        MapError: the child died, failed or ran longer than ``timeout_s``.
    """
    make_folder(output)
    request = {
        "task": task,
        "database": str(database),
        "output": str(output),
        "options": options,
        "triangulation": triangulation,
        "reference": None if reference is None else str(reference),
        "refine_intrinsics": refine_intrinsics,
    }
    write_json(output / "request.json", request)
    _run_child(
        command(output / "request.json"),
        what=f"the {task} mapper" if task != "triangulate" else "triangulation",
        log=log,
        timeout_s=timeout_s,
        environment=_environment(deterministic=deterministic),
    )
    models = [
        FoundModel(output / each["folder"], tuple(each["images"]), each["points"])
        for each in read_json(output / "result.json")["models"]
    ]
    return sorted(models, key=lambda model: (-len(model.images), -model.points, model.folder.name))


def command(request: Path) -> list[str]:
    """What runs the child."""
    return [sys.executable, "-m", "loc.sfm.child", str(request)]


def _run_child(
    arguments: list[str], *, what: str, log: Path, timeout_s: float | None, environment: dict[str, str]
) -> None:
    started = time.monotonic()
    with writing(log.parent), log.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C comes to us alone, and we end the child
        )
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise MapError(
            f"{what} did not finish within map.timeout_s = {timeout_s:g} s",
            f"raise map.timeout_s, or map fewer images at once; details: {log}",
        ) from None
    finally:  # also on KeyboardInterrupt
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
    if code != 0:
        require_space(log.parent, _LEAST_BYTES)  # then the disk is what it died of
        seconds = time.monotonic() - started
        raise MapError(
            f"{what} {_ending(code)} after {seconds:.1f} s: {_last_lines(log)}",
            f"run the same command again; if it fails again, try the other map.mapper; details: {log}",
        )


def _ending(code: int) -> str:
    if code > 0:
        return f"failed (exit code {code})"
    names = {each.value: each.name for each in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def _last_lines(log: Path, count: int = 3) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    words = [line.strip() for line in lines if line.strip()][-count:]
    return " | ".join(words) or "it printed nothing"


def _environment(*, deterministic: bool) -> dict[str, str]:
    root = str(Path(loc.__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    environment = dict(os.environ, PYTHONPATH=root if not known else f"{root}{os.pathsep}{known}")
    environment["PYTHONUNBUFFERED"] = "1"
    if deterministic:
        environment.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    return environment


def _constant(config: MapConfig, cameras: dict[int, Camera]) -> list[int]:
    if config.refine_intrinsics == "always":
        return []
    never = config.refine_intrinsics == "never"
    return [number for number, camera in sorted(cameras.items()) if never or not needs_refinement(camera)]


def _global_refinement(config: MapConfig, cameras: dict[int, Camera]) -> dict[str, Any]:
    """The global mapper refines the intrinsics of all cameras or of none."""
    refine = refines_any(config, cameras.values())
    return {
        "mapper.bundle_adjustment.refine_focal_length": refine,
        "mapper.bundle_adjustment.refine_extra_params": refine,
    }


def refines_any(config: MapConfig, cameras: Iterable[Camera]) -> bool:
    """Whether a map from scratch refines the intrinsics of any camera."""
    if config.refine_intrinsics == "auto":
        return any(needs_refinement(camera) for camera in cameras)
    return config.refine_intrinsics == "always"
