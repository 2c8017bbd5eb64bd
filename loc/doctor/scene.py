"""A scene's data: names, files, sizes, groups; every check on what the inventory found."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loc.colmap import camera_to_colmap
from loc.config import SceneConfig
from loc.doctor.findings import Finding, data, some
from loc.doctor.inventory import Inventory, take_inventory
from loc.doctor.missing import missing_images
from loc.doctor.photos import Seen, copies, look_at
from loc.errors import DataError, LocError
from loc.layouts import aachen, load_scene
from loc.layouts.lists import expand_glob, read_lines
from loc.layouts.names import name_problem
from loc.plugins.blocks import configs_folder, load_config
from loc.record import FILE, read_record
from loc.types import Camera

#: Focal lengths outside these multiples of the long side, and principal points further than this part
#: of the size from the middle, are unusual enough to say so.
_FOCAL_RANGE = (0.3, 5.0)
_OFF_CENTER = 0.2


def scene_of(target: str | Path, overrides: dict[str, Any]) -> SceneConfig:
    """The scene that a folder or a config stands for.

    Raises:
        ConfigError: no such config, or it cannot be read.
        DataError: a folder that is missing.
    """
    path = Path(target)
    if path.is_dir():
        if (path / FILE).is_file():
            config = read_record(path)["config"]
            return load_config({"scene": config["scene"]}, overrides).scene
        return load_config({"scene": _guessed(path)}, overrides).scene
    shipped = sorted(each.stem for each in configs_folder().glob("*.yaml"))
    if not path.exists() and path.suffix not in (".yaml", ".yml") and str(target) not in shipped:
        raise DataError(
            f"there is no folder and no config {target}",
            f"give a folder of photos, a run folder, or a config: a YAML file or {', '.join(shipped)}",
        )
    return load_config(str(target), overrides).scene


def _guessed(folder: Path) -> dict[str, str]:
    """The layout of a folder: Aachen's, a COLMAP model beside its images, or just photos."""
    if (folder / "3D-models").is_dir():
        return {"layout": "aachen", "images": str(folder)}
    for model in ("sparse/0", "sparse", "model"):
        has_model = any((folder / model / f"images.{kind}").is_file() for kind in ("bin", "txt"))
        if has_model and (folder / "images").is_dir():
            images = str(folder / "images")
            return {"layout": "colmap", "images": images, "model": str(folder / model)}
    return {"layout": "folder", "images": str(folder)}


def examine_scene(config: SceneConfig, *, full: bool = False) -> list[Finding]:
    """Findings about a scene's data. Photos are read by their headers, with ``full`` decoded."""
    root = config.images
    if root is None:
        return [data("problem", "folder", "scene.images is not set", "give it: --set scene.images=PHOTOS")]
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        return [
            data("problem", "folder", f"scene.images: {root} {what}", "relative paths start where you are")
        ]
    found = take_inventory(config, root)
    seen = look_at(found.photos, full=full)
    findings = [
        *found.findings,
        *_files(found, seen, full=full),
        *_names(found),
        *missing_images(found),
        *_groups(config, found),
        *_sizes(found, seen),
        *_rotation(found, seen),
        *_focal_lengths(found, seen),
        *_copies(found),
    ]
    findings += _loaded(config, findings)
    return findings


def _files(found: Inventory, seen: dict[str, Seen], *, full: bool) -> Iterator[Finding]:
    bad = [name for name in sorted(seen) if seen[name].problem]
    if not seen:
        yield data(
            "problem", "files", f"there is no photo under {found.root}", "put .jpg or .png files there, or "
            "give another folder: --set scene.images=PHOTOS",
        )  # fmt: skip
        return
    if len(seen) > len(bad):
        how = "can be decoded" if full else "can be opened (--full decodes them)"
        yield data("ok", "files", f"{len(seen) - len(bad)} of {len(seen)} photos {how}")
    for name in bad[:10]:
        yield data(
            "problem",
            "files",
            seen[name].problem,
            "copy it again from its source, or remove it",
            names=[name],
        )
    if len(bad) > 10:
        yield data("problem", "files", f"{len(bad) - 10} more photos cannot be read: {some(bad[10:])}",
                   "all of them: loc doctor --json", names=bad[10:])  # fmt: skip


def _names(found: Inventory) -> Iterator[Finding]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(found.photos):
        problem = name_problem(name)
        if problem is not None:
            yield data(
                "problem", "names", f"the name {name!r} cannot be used: {problem}", "rename it", names=[name]
            )
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    twins = [names for names in alike.values() if len(names) > 1]
    if twins:
        shown = some([" and ".join(map(repr, names)) for names in twins])
        yield data(
            "warning",
            "names",
            f"{len(twins)} names differ only in upper and lower case or in Unicode form: {shown}",
            "rename one of each: on Windows and macOS they are one file",
            names=[name for names in twins for name in names],
        )


def _groups(config: SceneConfig, found: Inventory) -> Iterator[Finding]:
    """Queries per condition; a group of which no photo is there is a problem."""
    listed = Counter(item.group for item in found.listed if item.role == "query")
    here = Counter(item.group for item in found.listed if item.role == "query" and item.name in found.photos)
    for group, count in sorted(listed.items()):
        if not here[group]:
            yield data(
                "problem",
                "groups",
                f"the query group {group!r} is empty: none of its {count} photos is there",
                "unpack its photos, or leave its list out of scene.queries",
                names=[item.name for item in found.listed if item.group == group],
            )
    if listed and all(here[group] for group in listed):
        shown = ", ".join(f"{count} {group}" for group, count in sorted(listed.items()))
        yield data("ok", "groups", f"queries: {shown}")
    for path in _empty_lists(config):
        yield data(
            "warning",
            "groups",
            f"the query list {path} names no photo: its group is empty",
            "add a name per line, or leave the list out",
        )
    folder = config.queries
    if config.layout == "folder" and folder is not None and folder.is_dir():
        empty = [
            path.relative_to(folder).as_posix()
            for path in sorted(folder.rglob("*"))
            if path.is_dir() and not any(path.rglob("*.*"))
        ]
        if empty:
            yield data(
                "warning", "groups", f"{len(empty)} folders of queries are empty: {some(empty)}",
                "unpack their photos, or remove them", names=empty,
            )  # fmt: skip


def _empty_lists(config: SceneConfig) -> list[Path]:
    """Query lists, each of a group, that hold nothing but comments."""
    path = config.queries
    if path is None and config.layout == "aachen" and config.images is not None:
        path = config.images / aachen.QUERIES
    if path is None or config.layout == "folder":
        return []
    try:
        return [each for each in expand_glob(path) if not read_lines(each)]
    except DataError:  # the inventory says it
        return []


def _cameras(found: Inventory) -> dict[str, tuple[Camera, str]]:
    """Given intrinsics of the photos that are there, and where they stand; a list's before a model's."""
    cameras = {
        item.name: (item.camera, item.where)
        for item in found.listed
        if item.camera is not None and item.name in found.photos
    }
    for name in found.photos:
        given = found.camera(name)
        if given is not None:
            cameras[name] = given
    return cameras


def _sizes(found: Inventory, seen: dict[str, Seen]) -> Iterator[Finding]:
    """Given intrinsics against the photos' sizes."""
    turned, scaled, other, odd, fitting = [], [], [], [], 0
    cameras = _cameras(found)
    for name, (camera, _) in sorted(cameras.items()):
        if seen[name].problem:
            continue
        width, height = seen[name].wh
        if camera.image_wh == (width, height):
            fitting += 1
            if not _plausible(camera):
                odd.append(name)
        elif camera.image_wh == (height, width):
            turned.append(name)
        elif abs(camera.width / camera.height - width / height) < 0.01:
            scaled.append(name)
        else:
            other.append(name)
    if fitting:
        yield data("ok", "intrinsics", f"the given intrinsics of {fitting} photos fit their sizes")
    for names, how, todo in (
        (turned, "fit only the rotated photo", "intrinsics refer to the pixels as stored, before EXIF "
         "rotation: swap the axes in the list, or use the photos as they were"),
        (scaled, "are for the photo at another scale", "use the photos the intrinsics were made for, or "
         "scale the list: all lengths in px by the same factor"),
        (other, "are for another size", "the list belongs to other photos: give the right one"),
    ):  # fmt: skip
        if names:
            camera, where = cameras[names[0]]
            width, height = seen[names[0]].wh
            yield data(
                "problem",
                "intrinsics",
                f"the intrinsics of {len(names)} photos {how}: {some(names)} ({where}: {camera.width} x "
                f"{camera.height}, photo {width} x {height})",
                todo,
                names=names,
            )
    if odd:
        camera, where = cameras[odd[0]]
        yield data(
            "warning",
            "intrinsics",
            f"the intrinsics of {len(odd)} photos are unusual, e.g. {odd[0]} ({where}): focal length "
            f"{camera.focal_px:.0f} px, parameters {camera.params.tolist()}",
            "check the order of the parameters: it is COLMAP's, f (or fx fy) cx cy and distortion",
            names=odd,
        )


def _plausible(camera: Camera) -> bool:
    native = camera_to_colmap(camera)
    off = (native.principal_point_x / camera.width - 0.5, native.principal_point_y / camera.height - 0.5)
    factor = camera.focal_px / max(camera.image_wh)
    return _FOCAL_RANGE[0] <= factor <= _FOCAL_RANGE[1] and max(map(abs, off)) < _OFF_CENTER


def _rotation(found: Inventory, seen: dict[str, Seen]) -> Iterator[Finding]:
    turned = [name for name in sorted(seen) if seen[name].orientation != 1]
    if not turned:
        return
    given = [name for name in turned if name in _cameras(found)]
    text = f"{len(turned)} photos are turned by EXIF: {some(turned)}; loc shows them upright to extractors"
    if given:
        yield data(
            "warning",
            "rotation",
            f"{text}. Intrinsics are given for {len(given)}: they must be those of the pixels as stored",
            "if the intrinsics were made from upright copies, use these copies as photos",
            names=given,
        )
    else:
        yield data("ok", "rotation", f"{text}, keypoints are in the pixels as stored", names=turned)


def _focal_lengths(found: Inventory, seen: dict[str, Seen]) -> Iterator[Finding]:
    cameras = _cameras(found)
    guessed = [
        name
        for name, photo in sorted(seen.items())
        if not photo.problem and name not in cameras and not photo.has_focal and name in found.used
    ]
    if guessed:
        yield data(
            "warning",
            "focal length",
            f"{len(guessed)} photos have neither given intrinsics nor a focal length in EXIF: "
            f"{some(guessed)}; it will be estimated",
            "if you know it: --set scene.intrinsics=LIST with lines 'name MODEL WIDTH HEIGHT PARAMS'",
            names=guessed,
        )


def _copies(found: Inventory) -> Iterator[Finding]:
    used = {name: path for name, path in found.photos.items() if name in found.used}
    groups = copies(used)
    across = [names for names in groups if len({name in found.queries for name in names}) == 2]
    within = [names for names in groups if names not in across]
    if across:
        yield data(
            "warning",
            "copies",
            f"{len(across)} queries are copies of database images: "
            f"{some([' = '.join(each) for each in across])}; their poses say nothing about the method",
            "take them out of the database or out of the queries",
            names=[name for names in across for name in names],
        )
    if within:
        yield data(
            "warning",
            "copies",
            f"{len(within)} photos are there more than once: {some([' = '.join(each) for each in within])}",
            "remove the copies: they cost time and add nothing",
            names=[name for names in within for name in names[1:]],
        )
    names = Counter(item.name for item in found.listed if item.role == "db")
    both = sorted(name for name in names if name in found.queries)
    if both:
        yield data(
            "warning",
            "overlap",
            f"{len(both)} images are listed as database images and as queries: {some(both)}; they become "
            "queries only",
            "take them out of one of the lists",
            names=both,
        )


def _loaded(config: SceneConfig, before: list[Finding]) -> Iterator[Finding]:
    """The scene as a run would load it: what it raises, unless that is said already."""
    try:
        scene = load_scene(config)
    except LocError as error:
        if not any(finding.level == "problem" for finding in before):
            yield data("problem", "scene", error.message, error.next_step or "mend it and ask again")
        return
    if len(scene.db) < 2:
        yield data(
            "problem",
            "map",
            f"a map needs two database images or more; a run would have {len(scene.db)}",
            "add photos that overlap, or mend the list of database images",
        )
    sources = Counter(image.intrinsics for image in scene.images)
    shown = ", ".join(f"{count} {source}" for source, count in sorted(sources.items()))
    yield data(
        "ok",
        "scene",
        f"a run would use {len(scene.db)} database images and {len(scene.queries)} queries with "
        f"{len(scene.cameras)} cameras (intrinsics: {shown or 'none'})",
    )
