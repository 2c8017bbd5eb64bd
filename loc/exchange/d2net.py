"""``loc export d2net`` and ``loc import d2net``: features as the ``.d2-net`` files of D2-Net's authors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from loc.errors import DataError
from loc.exchange.d2net_files import ENDING, read_d2net, write_d2net
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
from loc.types import ImageRecord

CONFIG = "imported.yaml"
_SHOWN = 3


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


def export_d2net(run: Path, target: Path, *, force: bool = False) -> D2NetFiles:
    """Write ``target/<image name>.d2-net`` for every image of a run that has features.

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
    about = {"kind": "d2net", "run": run.resolve().name, "keypoint_origin": "centre of the top-left pixel"}
    shrink = _Shrink(record["config"]["features"])
    store = FeatureStore(run / record["features"]["folder"])
    try:
        with export_folder(target, about, force=force) as folder, writing(target.parent):
            # float16 becomes float32, uint8 too; the store may hold other images.
            require_space(folder, 4.0 * store.nbytes * len(items) / max(1, len(store)))
            for name, key in items.items():
                found = store.get(key)
                path = folder / f"{name}{ENDING}"
                make_folder(path.parent)
                write_d2net(path, found, shrunk=shrink.of(found.image_wh))
    finally:
        store.close()
    out.counts[ENDING] = len(items)
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
    name: str = "d2net",
    runtime: Runtime | None = None,
    force: bool = False,
) -> D2NetFiles:
    """Fill the feature store of a run folder from ``.d2-net`` files and write the config that uses it.

    Args:
        files: folder of ``<image name>.d2-net``; the image root itself where they lie beside the photos.
        images: the image root.
        run: run folder, new or not; what it holds stays.
        name: what to call the method.
        force: replace an ``imported.yaml`` that says something else.

    Raises:
        DataError: no such files, a file that :func:`read_d2net` refuses (nothing of it is kept), or other
            features of the same image under the same name.
    """
    runtime = runtime or Runtime()
    out = D2NetFiles(run / CONFIG)
    config = {
        "scene": {"layout": "folder", "images": str(images)},
        "features": {"use": "imported", "name": name},
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    refuse_other(out.place, text, force=force)
    found = _found(files, images)
    here = [each for each in found if (images / each).is_file()]
    out.note(sorted(set(found) - set(here)), f"files are of no photo under {images}")
    out.note(sorted(set(list_photos(images)) - set(found)), f"photos under {images} have no {ENDING} file")
    records = [ImageRecord(each, images / each, "db", "") for each in here]
    keys, unreadable = content_keys(records, runtime)
    out.note(sorted(unreadable), "photos cannot be read")
    plugin = resolve_block("features", config["features"])
    store = FeatureStore(features_folder(plugin, run), feature_fields(plugin))
    try:
        with store.writer() as writer:
            _put(found, images, keys, Items(store, writer, same_features), runtime)
    finally:
        store.close()
    out.counts["features"] = len(keys)
    write_text(out.place, text)
    load_config(out.place)
    return out


def _found(files: Path, images: Path) -> dict[str, Path]:
    """Image name → its file, sorted by name."""
    for folder, option in ((files, "DIR"), (images, "--images ROOT")):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder", f"give the folder as {option}")
    beside = {name: files / f"{name}{ENDING}" for name in list_photos(images)}  # also in linked folders
    names = {name: path for name, path in beside.items() if path.is_file()}
    for path in files.rglob(f"*{ENDING}"):
        if path.is_file():
            names[path.relative_to(files).as_posix().removesuffix(ENDING)] = path
    if not names:
        raise DataError(f"there is no *{ENDING} under {files}", "give the folder that D2-Net wrote to")
    for each, path in sorted(names.items()):
        problem = name_problem(each)
        if problem is not None:
            raise DataError(
                f"{str(path)!r} cannot be the file of an image: {problem}", "rename the file and its photo"
            )
    require_on_disk(names, images, source=str(files))
    return dict(sorted(names.items()))


def _put(
    found: dict[str, Path], images: Path, keys: dict[str, ItemKey], items: Items, runtime: Runtime
) -> None:
    width: tuple[int, str] | None = None
    for name in runtime.track(sorted(keys), f"features *{ENDING}", len(keys)):
        features = read_d2net(found[name], image_header(images / name)[0])
        if len(features):
            width = width or (features.descriptors.shape[1], name)
            if features.descriptors.shape[1] != width[0]:
                raise DataError(
                    f"descriptors of {name!r} have {features.descriptors.shape[1]} numbers, those of "
                    f"{width[1]!r} {width[0]}",
                    "import features of one method at a time, under a --name each",
                )
        items.put(keys[name], as_stored(features), what=repr(name))
