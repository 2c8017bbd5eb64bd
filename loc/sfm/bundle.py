"""What localization needs of a map, in one value: opened from a folder, from anywhere.

``bundle.json`` names everything by paths relative to the run folder, so a run folder can be
moved or copied to another machine as a whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loc.errors import StoreError
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.sfm.index import PointIndex
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.files import read_json, read_sealed, remove_orphans, write_sealed
from loc.stores.parts import ItemKey
from loc.stores.products import check_product, is_done, read_manifest
from loc.types import Camera, Pose

FORMAT = 1
FILE = "bundle.json"


@dataclass(frozen=True, eq=False)
class MapBundle:
    """A finished map and how it was made. Make one with :meth:`open`.

    Attributes:
        folder: the map's product folder (``bundle.json``, ``model/``, ``index/``, ``stats.json``,
            ``funnel.json``, ``database.db``).
        images: every database image of the map's run that has features, name → its item.
        cameras: camera table after mapping (refined where the map refined them).
        camera_ids: name → key into ``cameras``, for every database image.
        poses: name → cam_from_world, registered images only.
        features_folder: store of the database images' local features.
        globals_folder: store of their global descriptors, or None.
        fit_folder: product with the fitted state of the global extractor, or None.
        extractor_fit: product with the fitted state of the extractor of local features, or None.
        blocks: plain JSON of the config: ``features``, ``globals``, ``matcher`` (plug-in blocks,
            ``{"use": …, option: …}``), ``localize``, and whatever else the run put there.
        stats: counts of the map, see ``stats.json``.
        keypoints_folder: store of the keypoints that the map refers to, if they are not the features:
            those of a matcher that finds its own points; ``keypoints`` are their items.
        photos, masks: name → file of the database images, for such a matcher; else empty.
    """

    folder: Path
    images: dict[str, ItemKey]
    cameras: dict[str, Camera]
    camera_ids: dict[str, str]
    poses: dict[str, Pose]
    features_folder: Path
    globals_folder: Path | None = None
    fit_folder: Path | None = None
    extractor_fit: Path | None = None
    blocks: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    keypoints_folder: Path | None = None
    keypoints: dict[str, ItemKey] = field(default_factory=dict)
    photos: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)

    @property
    def model_folder(self) -> Path:
        """COLMAP model: ``cameras.bin``, ``images.bin``, ``points3D.bin``, ``rigs.bin``, ``frames.bin``."""
        return self.folder / "model"

    @property
    def registered(self) -> tuple[str, ...]:
        """Names of the images in the model, sorted."""
        return tuple(sorted(self.poses))

    def camera(self, name: str) -> Camera:
        """Camera of a database image."""
        return self.cameras[self.camera_ids[name]]

    @cached_property
    def index(self) -> PointIndex:
        """Which keypoint saw which 3-D point (memory-mapped)."""
        return PointIndex.load(self.folder / "index")

    @property
    def extractor(self) -> ResolvedPlugin:
        """The extractor the database features were made with, with its options."""
        block = self._block("features") if "features" not in self.blocks else self.blocks["features"]
        plugin = resolve_block("features", block, source=str(self.folder / FILE))
        if self.extractor_fit is not None:
            check_product(_existing(self.extractor_fit, "fit of the extractor"))
        return replace(plugin, state=self.extractor_fit)

    @property
    def matcher(self) -> ResolvedPlugin:
        block = self._block("matcher")
        return resolve_block("matcher", block, source=str(self.folder / FILE)).for_features(self.extractor)

    @property
    def global_extractor(self) -> ResolvedPlugin | None:
        """The global extractor, or None if the run has none."""
        if self.blocks.get("globals") is None:
            return None
        return resolve_block("globals", self.blocks["globals"], source=str(self.folder / FILE))

    @property
    def localize(self) -> dict[str, Any]:
        """The ``localize`` section of the config (:class:`loc.config.LocalizeConfig`)."""
        return dict(self.blocks.get("localize") or {})

    def open_features(self) -> FeatureStore:
        """The store of local features, checked to hold every image of the map.

        Raises:
            StoreError: the store or some of its items are gone.
        """
        store = FeatureStore(_existing(self.features_folder, "store of features"))
        self._check_items(store, "features")
        return store

    def open_keypoints(self) -> tuple[FeatureStore, dict[str, ItemKey]]:
        """The keypoints that the map refers to, and the item of each database image."""
        if self.keypoints_folder is None:
            return self.open_features(), self.images
        store = FeatureStore(_existing(self.keypoints_folder, "store of keypoints"))
        self._check_items(store, "keypoints", self.keypoints)
        return store, self.keypoints

    def open_globals(self) -> GlobalStore | None:
        """The store of global descriptors, or None if the run has none."""
        if self.globals_folder is None:
            return None
        store = GlobalStore(_existing(self.globals_folder, "store of global descriptors"))
        self._check_items(store, "global descriptors")
        return store

    @staticmethod
    def open(folder: Path) -> MapBundle:
        """Open the map at ``folder`` (the product folder that holds ``bundle.json``).

        Raises:
            StoreError: there is no complete map, or it was made by another version.
        """
        if not is_map(folder):
            raise StoreError(
                f"{folder} is not a map: it has no {FILE}",
                "give the folder of a finished map (RUN/map/<fingerprint>), or run the map again",
            )
        data = read_sealed(folder / FILE, cure=_cure(folder))
        if data.get("format") != FORMAT:
            raise StoreError(
                f"{folder / FILE} has format {data.get('format')}, this version reads {FORMAT}",
                "run the map again with this version",
            )
        for name in ("cameras.bin", "images.bin", "points3D.bin"):
            _existing(folder / "model" / name, "model file")
        if is_done(folder):  # a map copied by hand may come without its manifest
            # The model's files may be gigabytes: their bytes are compared by what reads them.
            read_manifest(folder, check=("model/",), content=("index/", "stats.json"))
        try:
            return _bundle(folder, data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(
                f"{folder / FILE} is damaged ({type(error).__name__}: {error})", _cure(folder)
            ) from error

    def save(self, *, run_folder: Path) -> None:
        """Write ``bundle.json``, with paths relative to ``run_folder``; the same content is not written."""

        def relative(path: Path | None) -> str | None:
            return None if path is None else Path(os.path.relpath(path, run_folder)).as_posix()

        data: dict[str, Any] = {
            "format": FORMAT,
            "run": Path(os.path.relpath(run_folder, self.folder)).as_posix(),
            "images": {
                name: {
                    "content": key.content,
                    "camera": self.camera_ids[name],
                    "pose": self.poses[name].to_json() if name in self.poses else None,
                }
                for name, key in sorted(self.images.items())
            },
            "cameras": {key: camera.to_json() for key, camera in sorted(self.cameras.items())},
            "features": relative(self.features_folder),
            "globals": relative(self.globals_folder),
            "fit": relative(self.fit_folder),
            "blocks": self.blocks,
        }
        if self.extractor_fit is not None:
            data["extractor_fit"] = relative(self.extractor_fit)
        if self.keypoints_folder is not None:
            data["keypoints"] = {
                "folder": relative(self.keypoints_folder),
                "items": {name: key.content for name, key in sorted(self.keypoints.items())},
                "photos": {name: relative(path) for name, path in sorted(self.photos.items())},
                "masks": {name: relative(path) for name, path in sorted(self.masks.items())},
            }
        path = self.folder / FILE
        remove_orphans(self.folder, prefix=f".{FILE}.")  # of a run that was killed here
        if not path.is_file() or read_sealed(path, cure=_cure(self.folder)) != data:
            write_sealed(path, data)

    def _block(self, section: str) -> Any:
        if self.blocks.get(section) is None:
            raise StoreError(
                f"{self.folder / FILE} does not say which {section} the map was made with",
                "run the map again with this version",
            )
        return self.blocks[section]

    def _check_items(
        self, store: FeatureStore | GlobalStore, what: str, items: dict[str, ItemKey] | None = None
    ) -> None:
        items = self.images if items is None else items
        missing = store.missing(items[name] for name in self.registered)
        if missing:
            raise StoreError(
                f"the store {store.folder} lacks the {what} of {len(missing)} of {len(self.poses)} images "
                f"of the map {self.folder}, e.g. {missing[0].name}",
                "run the same command that made the map again: it computes what is missing",
            )


def _bundle(folder: Path, data: dict[str, Any]) -> MapBundle:
    run = Path(os.path.normpath(folder / data["run"]))
    images = data["images"]
    own = data.get("keypoints")  # of a matcher that finds its own points
    keypoints = {} if own is None else own["items"]
    photos, masks = ({}, {}) if own is None else (own["photos"], own["masks"])
    return MapBundle(
        folder=folder,
        images={name: ItemKey(name, item["content"]) for name, item in images.items()},
        cameras={key: Camera.from_json(camera) for key, camera in data["cameras"].items()},
        camera_ids={name: item["camera"] for name, item in images.items()},
        poses={name: Pose.from_json(item["pose"]) for name, item in images.items() if item["pose"]},
        features_folder=run / data["features"],
        globals_folder=run / data["globals"] if data["globals"] else None,
        fit_folder=run / data["fit"] if data["fit"] else None,
        extractor_fit=run / data["extractor_fit"] if data.get("extractor_fit") else None,
        blocks=data["blocks"],
        stats=read_json(folder / "stats.json"),
        keypoints_folder=None if own is None else run / own["folder"],
        keypoints={name: ItemKey(name, content) for name, content in keypoints.items()},
        photos={name: Path(os.path.normpath(run / path)) for name, path in photos.items()},
        masks={name: Path(os.path.normpath(run / path)) for name, path in masks.items()},
    )


def is_map(folder: Path) -> bool:
    """Whether a finished map with its bundle is in ``folder``."""
    return (folder / FILE).is_file()


def _cure(folder: Path) -> str:
    return f"delete {folder / FILE} and run the command that made the map again: it is written anew"


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise StoreError(
            f"the map's {what} is missing: {path}",
            "move or copy a run folder as a whole, or run the command that made it again",
        )
    return path
