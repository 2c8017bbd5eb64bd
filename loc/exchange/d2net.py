"""``loc export`` and ``loc import`` of ``d2net`` and ``delf``: features as the files of their authors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from loc.errors import DataError
from loc.exchange import d2net_files, delf_files
from loc.exchange.filling import Items, refuse_other, same_features
from loc.exchange.targets import export_folder, refuse_inside
from loc.layouts.assemble import require_on_disk
from loc.layouts.names import check_name, name_problem
from loc.plugins.blocks import load_config, resolve_block
from loc.record import read_record
from loc.runtime.images import image_header, list_photos
from loc.runtime.runtime import Runtime
from loc.stages.extract import content_keys, feature_fields, features_folder
from loc.stores.features import FeatureStore, as_stored
from loc.stores.files import make_folder, require_space, write_text, writing
from loc.stores.parts import ItemKey
from loc.types import ImageRecord, LocalFeatures

CONFIG = "imported.yaml"
_SHOWN = 3


@dataclass(frozen=True)
class FileKind:
    """Files with the features of one image each.

    Attributes:
        name: of the method.
        ending: what is added to the image's name; ``replaces``: in place of its own ending.
        read: from a path and the photo's size; write: to a path, with ``shrunk``.
    """

    name: str
    ending: str
    replaces: bool
    read: Callable[[Path, tuple[int, int]], LocalFeatures]
    write: Callable[..., None]

    def of(self, name: str) -> str:
        """Name of the file of an image.

        >>> DELF.of("db/1.jpg"), D2NET.of("db/1.jpg")
        ('db/1.delf', 'db/1.jpg.d2-net')
        """
        return str(PurePosixPath(name).with_suffix(self.ending)) if self.replaces else name + self.ending

    def all_of(self, names: Sequence[str]) -> dict[str, str]:
        """Image name → its file's name.

        Raises:
            DataError: two images share one.
        """
        files = {name: self.of(name) for name in names}
        owners: dict[str, str] = {}
        for name, file in files.items():
            if owners.setdefault(file, name) != name:
                raise DataError(
                    f"{owners[file]!r} and {name!r} have the same file {file!r}", "rename one of the photos"
                )
        return files


D2NET = FileKind("d2net", d2net_files.ENDING, False, d2net_files.read_d2net, d2net_files.write_d2net)
DELF = FileKind("delf", delf_files.ENDING, True, delf_files.read_delf, delf_files.write_delf)


@dataclass
class D2NetFiles:
    """What was written or read: ``place`` (folder or config), counts, remarks for people."""

    place: Path
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"place": str(self.place), "counts": self.counts, "notes": self.notes}

    def note(self, names: Sequence[str], what: str) -> None:
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            self.notes.append(f"{len(names)} {what}: {shown}")


def export_d2net(run: Path, target: Path, *, force: bool = False, files: FileKind = D2NET) -> D2NetFiles:
    """Write ``target/<image name>.d2-net`` (or ``.delf``) for every image of a run that has features.

    Raises:
        DataError: no run, no features or features without descriptors, or a target that must not be
            replaced.
    """
    record = read_record(run)
    refuse_inside(run, target)
    if "features" not in record:
        raise DataError(f"{run} has no features yet", "run it first: loc run CONFIG -o RUN")
    listed = sorted(record["features"]["items"].items())
    items = {name: ItemKey(check_name(name, where=str(run)), content) for name, content in listed}
    out = D2NetFiles(target)
    named = files.all_of(list(items))
    about = {"kind": files.name, "run": run.resolve().name, "keypoint_origin": "centre of the top-left pixel"}
    shrink = _Shrink(record["config"]["features"])
    store = FeatureStore(run / record["features"]["folder"])
    try:
        with export_folder(target, about, force=force) as folder, writing(target.parent):
            # float16 becomes float32, uint8 too; the store may hold other images.
            require_space(folder, 4.0 * store.nbytes * len(items) / max(1, len(store)))
            for name, key in items.items():
                found = store.get(key)
                path = folder / named[name]
                make_folder(path.parent)
                files.write(path, found, shrunk=shrink.of(found.image_wh))
    finally:
        store.close()
    out.counts[files.ending] = len(items)
    return out


class _Shrink:
    """How many px of a photo are one px of what D2-Net saw, for the column that counts in the latter."""

    def __init__(self, block: Any) -> None:
        plugin = resolve_block("features", block)
        self._rule = getattr(plugin.cls, "network_wh", None)
        self._config, self._limit = plugin.config, plugin.stage_options.get("resize_max")

    def of(self, image_wh: tuple[int, int]) -> float:
        if self._rule is None:
            return 1.0
        seen: tuple[int, int] = self._rule(self._config, image_wh, self._limit)
        return (image_wh[0] / seen[0] + image_wh[1] / seen[1]) / 2


def import_d2net(
    files: Path,
    images: Path,
    run: Path,
    *,
    name: str | None = None,
    runtime: Runtime | None = None,
    force: bool = False,
    kind: FileKind = D2NET,
) -> D2NetFiles:
    """Fill the feature store of a run folder from such files and write the config that uses it.

    Args:
        files: folder of the files; the image root itself where they lie beside the photos.
        images: the image root.
        run: run folder, new or not; what it holds stays.
        name: what to call the method; None: as its files are called.
        force: replace an ``imported.yaml`` that says something else.

    Raises:
        DataError: no such files, a file that its reader refuses (nothing of it is kept), or other
            features of the same image under the same name.
    """
    runtime = runtime or Runtime()
    out = D2NetFiles(run / CONFIG)
    config = {
        "scene": {"layout": "folder", "images": str(images)},
        "features": {"use": "imported", "name": name or kind.name},
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    refuse_other(out.place, text, force=force)
    found = _found(files, images, kind)
    here = [each for each in found if (images / each).is_file()]
    out.note(sorted(set(found) - set(here)), f"files are of no photo under {images}")
    out.note(
        sorted(set(list_photos(images)) - set(found)), f"photos under {images} have no {kind.ending} file"
    )
    records = [ImageRecord(each, images / each, "db", "") for each in here]
    keys, unreadable = content_keys(records, runtime)
    out.note(sorted(unreadable), "photos cannot be read")
    plugin = resolve_block("features", config["features"])
    store = FeatureStore(features_folder(plugin, run), feature_fields(plugin))
    try:
        with store.writer() as writer:
            _put(kind, found, images, keys, Items(store, writer, same_features), runtime=runtime)
    finally:
        store.close()
    out.counts["features"] = len(keys)
    write_text(out.place, text)
    load_config(out.place)
    return out


def _found(files: Path, images: Path, kind: FileKind) -> dict[str, Path]:
    """Image name → its file, sorted by name."""
    for folder, option in ((files, "DIR"), (images, "--images ROOT")):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder", f"give the folder as {option}")
    photos = kind.all_of(list_photos(images))
    beside = {name: files / file for name, file in photos.items()}  # also in linked folders
    names = {name: path for name, path in beside.items() if path.is_file()}
    taken = {path.relative_to(files) for path in names.values()}
    for path in files.rglob(f"*{kind.ending}"):
        if path.is_file() and path.relative_to(files) not in taken:
            names[path.relative_to(files).as_posix().removesuffix(kind.ending)] = path
    if not names:
        raise DataError(
            f"there is no *{kind.ending} under {files}", f"give the folder that {kind.name} wrote to"
        )
    for each, path in sorted(names.items()):
        problem = name_problem(each)
        if problem is not None:
            raise DataError(
                f"{str(path)!r} cannot be the file of an image: {problem}", "rename the file and its photo"
            )
    require_on_disk(names, images, source=str(files))
    return dict(sorted(names.items()))


def _put(
    kind: FileKind,
    found: dict[str, Path],
    images: Path,
    keys: dict[str, ItemKey],
    items: Items,
    *,
    runtime: Runtime,
) -> None:
    width: tuple[int, str] | None = None
    for name in runtime.track(sorted(keys), f"features *{kind.ending}", len(keys)):
        features = kind.read(found[name], image_header(images / name)[0])
        if len(features):
            width = width or (features.descriptors.shape[1], name)
            if features.descriptors.shape[1] != width[0]:
                raise DataError(
                    f"descriptors of {name!r} have {features.descriptors.shape[1]} numbers, those of "
                    f"{width[1]!r} {width[0]}",
                    "import features of one method at a time, under a --name each",
                )
        items.put(keys[name], as_stored(features), what=repr(name))
