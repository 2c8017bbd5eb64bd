"""Layout *aachen*: the folders of Aachen Day-Night v1 and v1.1, as they are after unzipping.

    ROOT/images/images_upright/{db, query/day/*, query/night/*, sequences/*}
    ROOT/3D-models/aachen_cvpr2018_db.nvm, database_intrinsics.txt                        (v1)
    ROOT/3D-models/aachen_v_1_1/{images.bin, …, database_intrinsics_v1_1.txt}             (v1.1)
    ROOT/queries/{day,night}_time_queries_with_intrinsics.txt
    ROOT/ground_truth.txt                                    (optional: the benchmark's is hidden)

Sattler et al., Benchmarking 6DOF Outdoor Visual Localization in Changing Conditions, CVPR 2018. The
database images are those of the reference model, with its poses; intrinsics come from the lists, never
from the model (its README says so). v1.1 adds night queries and sequences; its day list is that of v1.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loc.config import SceneConfig
from loc.errors import DataError
from loc.layouts.assemble import image_root, make_scene, open_photos, read_query_list, refuse_unused
from loc.layouts.cameras import GivenIntrinsics, read_intrinsics
from loc.layouts.lists import Entry
from loc.layouts.reference import poses_of_images
from loc.types import Scene

log = logging.getLogger(__name__)

#: Where the benchmark's files are offered (CC BY-NC-SA 4.0).
SOURCE = "data.ciirc.cvut.cz/public/projects/2020VisualLocalization/Aachen-Day-Night/"
IMAGES = "images/images_upright"
QUERIES = "queries/*_time_queries_with_intrinsics.txt"
TRUTH = "ground_truth.txt"


@dataclass(frozen=True)
class Release:
    """Where one version of the data set has its model, relative to the root."""

    name: str
    model: str
    intrinsics: str
    archive: str


V1 = Release(
    "v1",
    "3D-models/aachen_cvpr2018_db.nvm",
    "3D-models/database_intrinsics.txt",
    "images/database_and_query_images.zip",
)
V1_1 = Release(
    "v1.1",
    "3D-models/aachen_v_1_1",
    "3D-models/aachen_v_1_1/database_intrinsics_v1_1.txt",
    "aachen_v1_1.zip",
)


def load(config: SceneConfig) -> Scene:
    """Read the scene of ``scene.images: ROOT``; ``scene.queries`` may name other lists (globs).

    Images that are missing on disk are skipped with a reason, and counted in a warning per folder.

    Raises:
        ConfigError: an option of another layout is set, or ``images`` is not.
        DataError: the model, a list or all images of a role are missing, with where they should be and
            where to get them; a list or the model is damaged; an image has other intrinsics than size.
    """
    refuse_unused(config, "model", "image_list", "intrinsics")
    root = image_root(config)
    release = find_release(root, config.version)
    poses = poses_of_images(root / release.model)
    intrinsics = _database_intrinsics(root, release, poses)
    queries = _queries(config, root)
    folders = _image_folders(root)
    db = _found(poses, folders, what=f"database images of {root / release.model}")
    asked = _found([entry.name for entry in queries], folders, what="queries")
    truth = root / TRUTH
    given = GivenIntrinsics.of([*intrinsics.values(), *queries])
    return make_scene(
        config.model_copy(
            update={
                "model": root / release.model,
                "ground_truth": config.ground_truth or (truth if truth.is_file() else None),
            }
        ),
        db=open_photos(db),
        queries=open_photos(asked),
        given=given,
        poses=poses,
    )


def find_release(root: Path, version: str | None = None) -> Release:
    """The release whose reference model is under ``root``; v1.1 where both are.

    Raises:
        DataError: the model is not there; names the folder that was meant, where it can be guessed.
    """
    wanted = [release for release in (V1_1, V1) if version in (None, release.name)]
    for release in wanted:
        if (root / release.model).exists():
            return release
    missing = " nor ".join(release.model for release in wanted)
    for release in wanted:
        name = PurePosixPath(release.model).name
        found = _nearby(root, name)
        if found is not None and found.parent.name == "3D-models":
            raise DataError(
                f"{root} has no {missing}, but {found} exists",
                f"give the folder above 3D-models: --set scene.images={found.parent.parent}",
            )
        if found is not None:
            raise DataError(
                f"{root} has no {missing}; {found} was unpacked to another place",
                f"move it to {root / release.model}",
            )
    raise DataError(
        f"{root} has no {missing}: the reference model of Aachen Day-Night is missing",
        f"unpack 3D-models (v1) or aachen_v1_1.zip there, from {SOURCE}",
    )


def _nearby(root: Path, name: str) -> Path | None:
    """A file or folder called ``name`` up to three levels below ``root``, or beside it."""
    for pattern in (name, f"*/{name}", f"*/*/{name}", f"../{name}", f"../*/{name}", f"../../*/{name}"):
        base, rest = root.resolve(), pattern
        while rest.startswith("../"):
            base, rest = base.parent, rest[3:]
        for found in sorted(base.glob(rest)):
            return found
    return None


def _image_folders(root: Path) -> list[Path]:
    """``images/images_upright``, and where an archive that was unpacked one level off has put images.

    The archives of v1 and v1.1 may lie in two places: an image is looked for in all.
    """
    found = []
    for place in (IMAGES, "images_upright", "images", f"{IMAGES}/images_upright", "."):
        if any((root / place / part).is_dir() for part in ("db", "query", "sequences")):
            found.append(root / place)
            if place != IMAGES:
                log.warning("images are in %s; the data set has them in %s", root / place, root / IMAGES)
    if not found:
        raise DataError(
            f"{root / IMAGES} has no folder db: the images of Aachen Day-Night are missing",
            f"unpack {V1.archive} in {root / 'images'}; it is offered at {SOURCE}",
        )
    return found


def _database_intrinsics(root: Path, release: Release, names: Collection[str]) -> dict[str, Entry]:
    """The listed intrinsics of the database images.

    Raises:
        DataError: the list is missing, or does not have all of them.
    """
    path = root / release.intrinsics
    if not path.is_file():
        found = _nearby(root, path.name)
        raise DataError(
            f"{path} is missing: the intrinsics of the database images",
            f"move {found} there" if found else f"it comes with the reference model: {SOURCE}",
        )
    listed = read_intrinsics(path)
    entries = {name: entry for name in sorted(names) if (entry := listed.get(name)) is not None}
    without = sorted(set(names) - set(entries))
    if without:
        raise DataError(
            f"{path} has no intrinsics of {len(without)} of {len(names)} images of the reference model: "
            f"{', '.join(map(repr, without[:3]))}",
            f"the model and the list must be of one release ({release.name})",
        )
    return entries


def _queries(config: SceneConfig, root: Path) -> list[Entry]:
    """Entries of all query lists, each with intrinsics."""
    lists = config.queries or root / QUERIES
    if config.queries is None and not sorted(root.glob(QUERIES)):
        raise DataError(
            f"there is no query list {lists}",
            f"unpack queries/ from {SOURCE}, or give a list: --set scene.queries=LIST",
        )
    if config.queries is None:
        for when in ("day", "night"):
            if not (root / QUERIES.replace("*", when)).is_file():
                log.warning(
                    "there is no %s: no %s query is localized%s",
                    root / QUERIES.replace("*", when),
                    when,
                    "; v1.1 takes the list of v1" if when == "day" else "",
                )
    entries = read_query_list(config.model_copy(update={"queries": lists}))
    for entry in entries:
        if entry.camera is None:
            raise DataError(
                f"{entry.where}: the query {entry.name!r} has no intrinsics",
                "give the lists that end in _with_intrinsics.txt",
            )
    return entries


def _found(names: Collection[str], folders: Sequence[Path], *, what: str) -> dict[str, Path]:
    """Where each image is, or should be; warns of missing ones by folder, all of them are an error."""
    paths = {
        name: next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)
        for name in sorted(names)
    }
    missing = Counter(name.rpartition("/")[0] for name, path in paths.items() if not path.is_file())
    if paths and missing.total() == len(paths):
        raise DataError(
            f"none of the {len(paths)} {what} is under {folders[0]} (missing: {min(paths)!r}, …)",
            f"unpack {V1.archive}, and {V1_1.archive} for v1.1, from {SOURCE}: "
            f"db, query and sequences belong into {IMAGES}",
        )
    every = Counter(name.rpartition("/")[0] for name in paths)
    for folder, count in sorted(missing.items()):
        log.warning("%d of %d images of %s are missing in %s", count, every[folder], folder, folders[0])
    return paths
