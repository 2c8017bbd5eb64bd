"""``loc import hloc``: hloc's files become stores in a run folder, and a config that goes on with them.

``RUN/imported.yaml`` refers to the stores by ``use: imported``; ``loc run RUN/imported.yaml -o RUN``
computes only what was not imported. Keypoints keep their bits but for the half pixel between hloc's
origin and ours (one unit in the last place at most, and none for files of ``loc export hloc``);
float32 descriptors become float16, as everywhere in a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from loc.errors import DataError
from loc.exchange.filling import Items, refuse_other, same_features, same_matches
from loc.exchange.hloc_database import Database
from loc.exchange.hloc_files import find_pairs, list_names, opened, read_features, read_matches, transposed
from loc.layouts.assemble import require_on_disk
from loc.layouts.lists import pair_lines, read_entries, read_pairs
from loc.layouts.names import name_problem
from loc.plugins.blocks import ResolvedPlugin, load_config, resolve_block
from loc.runtime.images import image_header, list_photos
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features
from loc.stages.extract import content_keys, feature_fields, features_folder, folder_name, global_fields
from loc.stages.match import match_fields, match_folder
from loc.stores.features import FeatureStore, GlobalStore, as_stored
from loc.stores.files import make_folder, write_text
from loc.stores.fingerprint import fingerprint
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import Array, ImageRecord, Matches

CONFIG = "imported.yaml"
_SHOWN = 3
Pair = tuple[str, str]


@dataclass(frozen=True)
class HlocFiles:
    """What hloc wrote, and where the photos are.

    Attributes:
        images: the image root; names in all files are relative to it.
        features: files of local features, or of matches' keypoints (dense matching).
        globals: files of global descriptors.
        matches: files of matches; ``pairs``: lists of the pairs to use (default: all that are matched).
        queries: list of queries with intrinsics, may be a glob; the other images are the database.
        image_list: list of database images (default: all with features that are no queries).
        model: COLMAP model with known poses of the database images; listed images that it lacks, and
            pairs with them, are left out.
        name: what to call the method (default: the names of the files).
    """

    images: Path
    features: Sequence[Path]
    globals: Sequence[Path] = ()
    matches: Sequence[Path] = ()
    pairs: Sequence[Path] = ()
    queries: Path | None = None
    image_list: Path | None = None
    model: Path | None = None
    name: str | None = None


@dataclass
class Imported:
    """What was imported.

    Attributes:
        config: the YAML file to run.
        counts: items per kind.
        notes: what people should know: what is missing, what lost precision.
    """

    config: Path
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"config": str(self.config), "counts": self.counts, "notes": self.notes}


def import_hloc(
    files: HlocFiles, run: Path, *, runtime: Runtime | None = None, force: bool = False
) -> Imported:
    """Fill the stores of a run folder from hloc's files and write the config that uses them.

    Args:
        run: run folder, new or not; what it holds stays.
        force: replace an ``imported.yaml`` that says something else.

    Raises:
        DataError: a file that is damaged or does not fit the photos, ambiguous pairs, or features that
            differ from those imported before under the same name.
    """
    out = Imported(run / CONFIG)
    importer = _Importer(files, run, runtime or Runtime(), out, force)
    config = importer.config()
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    refuse_other(out.config, text, force=force)
    for path in (*files.features, *files.globals, *files.matches):  # before anything is written
        with opened(path):
            pass
    importer.image_list()
    importer.features()
    importer.globals()
    importer.matches()
    write_text(out.config, text)
    load_config(out.config)
    return out


@dataclass
class _Importer:
    files: HlocFiles
    run: Path
    runtime: Runtime
    out: Imported
    force: bool
    keys: dict[str, ItemKey] = field(default_factory=dict)

    # ---- blocks of the config

    def block(self, section: Literal["features", "globals", "matcher"]) -> dict[str, str]:
        paths = {
            "features": self.files.features,
            "globals": self.files.globals,
            "matcher": self.files.matches,
        }[section]
        return {"use": "imported", "name": self.files.name or paths[0].stem}

    def plugin(self, section: Literal["features", "globals", "matcher"]) -> ResolvedPlugin:
        return resolve_block(section, dict(self.block(section)))

    def config(self) -> dict[str, Any]:
        """The run's config, as the mapping that is written to ``imported.yaml``."""
        files = self.files
        layout = "colmap" if files.model is not None else "hloc"
        scene = {"layout": layout, "images": str(files.images)}
        image_list = self.list_file if self.database.is_cut else files.image_list
        for option, path in (("model", files.model), ("image_list", image_list), ("queries", files.queries)):
            if path is not None:
                scene[option] = str(path)
        config: dict[str, Any] = {"scene": scene, "features": self.block("features")}
        if files.globals:
            config["globals"] = self.block("globals")
        if files.matches:
            config["matcher"] = self.block("matcher")
        if files.matches or files.pairs:
            config["pairs"] = [{"use": "list", "for": "both", "path": str(self.pair_file)}]
        return config

    @property
    def pair_file(self) -> Path:
        return self.run / "imported" / "pairs.txt"

    @property
    def list_file(self) -> Path:
        return self.run / "imported" / "db.txt"

    @cached_property
    def database(self) -> Database:
        return Database(self.files.image_list, self.files.model)

    # ---- the list and the stores

    def image_list(self) -> None:
        """Write a list of its own where the given one names images that are not in the model."""
        if not self.database.is_cut:
            return
        kept, gone = self.database.cut()
        self._note(gone, f"of {self.files.image_list} are not in the model: left out")
        text = "\n".join(kept) + "\n"
        refuse_other(self.list_file, text, force=self.force)
        write_text(make_folder(self.list_file.parent) / self.list_file.name, text)
        self.out.counts["database"] = len(kept)

    def features(self) -> None:
        """Import all files of features; names are looked up under the image root."""
        plugin = self.plugin("features")
        store = FeatureStore(features_folder(plugin, self.run), feature_fields(plugin))
        self.keys, sizes = self._photos(self.files.features, "keypoints")
        rounded, half, bare = 0.0, 0, 0
        with store.writer() as writer:
            items = Items(store, writer, same_features)
            for path in self.files.features:
                with opened(path) as file:
                    names = [name for name in list_names(file, "keypoints") if name in self.keys]
                    for name in self.runtime.track(names, f"features {path.name}", len(names)):
                        features = read_features(file, name, sizes[name])
                        if file[name]["keypoints"].dtype == np.float16:
                            half += 1
                            rounded = max(rounded, _half_step(file[name]["keypoints"][()]))
                        bare += features.descriptors.shape[1] == 0
                        items.put(self.keys[name], as_stored(features), what=repr(name))
        store.close()
        self.out.counts["features"] = len(self.keys)
        if half:
            self.out.notes.append(
                f"keypoints of {half} images are float16: they are rounded, by up to {rounded / 2:g} px "
                "(hloc: as_half=False keeps them whole)"
            )
        if bare and not self.files.matches:
            raise DataError(
                f"{bare} images of {self.files.features[0]} have keypoints without descriptors",
                "give their matches too: --matches M.h5",
            )

    def globals(self) -> None:
        """Import global descriptors of the images that have features."""
        if not self.files.globals:
            return
        plugin = self.plugin("globals")
        fields = global_fields(plugin, self._artefact(), None)
        folder = self.run / "globals" / f"{folder_name(plugin.name)}-{fingerprint(fields)}"
        store = GlobalStore(folder, fields)
        found = 0
        with store.writer() as writer:
            items = Items(store, writer, np.array_equal)
            for path in self.files.globals:
                with opened(path) as file:
                    for name in list_names(file, "global_descriptor"):
                        if name in self.keys:
                            vector = _unit(file[name]["global_descriptor"][()], f"{name!r} in {path}")
                            items.put(self.keys[name], vector, what=repr(name))
                            found += 1
        store.close()
        self.out.counts["globals"] = found
        self._note_missing(found, "global descriptor")

    def matches(self) -> None:
        """Import matches, in the order in which the stages ask for them, and the list of their pairs."""
        listed = [pair for path in self.files.pairs for pair in read_pairs(path)]
        queries = self._queries()
        pairs: dict[Pair, None] = {}
        if self.files.matches:
            plugin, features = self.plugin("matcher"), self._artefact()
            store = MatchStore(match_folder(plugin, features, self.run), match_fields(plugin, features))
            with store.writer() as writer, closing(features.store):
                items = Items(store, writer, same_matches)
                for pair, found in self._read_matches(features, listed, queries):
                    key = PairKey(self.keys[pair[0]], self.keys[pair[1]])
                    items.put(key, found, what=f"{pair[0]!r} and {pair[1]!r}")
                    pairs[pair] = None
            store.close()
            self.out.counts["matches"] = len(pairs)
        if listed:
            pairs = self._as_listed(listed, queries, pairs)
        every, pairs = len(pairs), self.database.of_scene(pairs, queries)
        if len(pairs) < every:
            self.out.notes.append(
                f"{every - len(pairs)} pairs have an image that is neither query nor database: left out"
            )
        if pairs or self.files.matches:
            text = "\n".join(pair_lines(pairs))
            refuse_other(self.pair_file, text, force=self.force)
            write_text(make_folder(self.pair_file.parent) / self.pair_file.name, text)
            self.out.counts["pairs"] = len(pairs)

    # ---- parts of it

    def _artefact(self) -> Features:
        plugin = self.plugin("features")
        return Features(
            FeatureStore(features_folder(plugin, self.run), feature_fields(plugin)), self.keys, {}, plugin
        )

    def _photos(
        self, paths: Sequence[Path], dataset: str
    ) -> tuple[dict[str, ItemKey], dict[str, tuple[int, int]]]:
        """Item keys and sizes (px) of the images of some files that are under the image root."""
        root = self.files.images
        if not root.is_dir():
            raise DataError(f"the image root {root} is not a folder", "give it with --images ROOT")
        names: dict[str, Path] = {}
        for path in paths:
            with opened(path) as file:
                names.update(dict.fromkeys(list_names(file, dataset), path))
        if not names:
            raise DataError(f"{paths[0]} holds no {dataset}", f"give a file of hloc with {dataset} per image")
        bad = {name: name_problem(name) for name in names}
        for name in sorted(names):
            if bad[name] is not None:
                raise DataError(
                    f"image name {name!r} in {names[name]} cannot be used: {bad[name]}",
                    "extract again with names relative to the image root",
                )
        require_on_disk(names, root, source=str(paths[0]))
        here = [name for name in sorted(names) if (root / name).is_file()]
        self._note(sorted(set(names) - set(here)), f"of {paths[0].name} are not under {root}")
        self._note(
            sorted(set(list_photos(root)) - set(names)), f"under {root} have no features in the import"
        )
        keys, unreadable = content_keys(
            [ImageRecord(name, root / name, "db", "") for name in here], self.runtime
        )
        self._note(sorted(unreadable), "cannot be read")
        return keys, {name: image_header(root / name)[0] for name in keys}

    def _read_matches(
        self, features: Features, listed: list[Pair], queries: frozenset[str]
    ) -> Iterator[tuple[Pair, Matches]]:
        unknown = 0
        for path in self.files.matches:
            with opened(path) as file:
                found = find_pairs(file, self.keys, listed)
                unknown += len(found.unknown)
                resolved = self.runtime.track(found.found.items(), f"matches {path.name}", len(found.found))
                for pair, key in resolved:
                    matches = read_matches(file, key, (features.count(pair[0]), features.count(pair[1])))
                    ordered = _ordered(pair, queries)
                    if ordered is not None:
                        yield ordered, matches if ordered == pair else transposed(matches)
        if unknown:
            self.out.notes.append(f"{unknown} matched pairs are of images that were not imported: left out")

    def _as_listed(
        self, listed: list[Pair], queries: frozenset[str], matched: dict[Pair, None]
    ) -> dict[Pair, None]:
        """The listed pairs, in their order; those without imported matches are counted and left out."""
        ordered = [_ordered(pair, queries) for pair in listed]
        known = [
            pair
            for pair in ordered
            if pair is not None and pair[0] in self.keys and pair[1] in self.keys and pair[0] != pair[1]
        ]
        if not self.files.matches:
            return dict.fromkeys(known)
        missing = [pair for pair in dict.fromkeys(known) if pair not in matched]
        if missing:
            self.out.notes.append(
                f"{len(missing)} listed pairs have no matches in the files, e.g. "
                f"{missing[0][0]!r} {missing[0][1]!r}: left out"
            )
        return dict.fromkeys(pair for pair in known if pair in matched)

    def _queries(self) -> frozenset[str]:
        if self.files.queries is None:
            return frozenset()
        return frozenset(entry.name for entry in read_entries(self.files.queries))

    def _note(self, names: Sequence[str], what: str) -> None:
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            self.out.notes.append(f"{len(names)} images {what}: {shown}")

    def _note_missing(self, found: int, what: str) -> None:
        if found < len(self.keys):
            self.out.notes.append(f"{len(self.keys) - found} images with features have no {what}")


def _ordered(pair: Pair, queries: Iterable[str]) -> Pair | None:
    """Map pairs as (smaller, larger) name, query pairs as (query, db); None for two queries."""
    first, second = pair[0] in queries, pair[1] in queries
    if first and second:
        return None
    if first or second:
        return pair if first else (pair[1], pair[0])
    return (min(pair), max(pair))


def _half_step(keypoints: Array) -> float:
    """Distance to the next float16 number at the largest coordinate, px."""
    return float(np.spacing(np.abs(keypoints).max())) if keypoints.size else 0.0


def _unit(vector: Array, where: str) -> Array:
    """A descriptor as float32, checked to be a unit vector or zero."""
    if vector.ndim != 1 or vector.dtype.kind != "f" or not np.isfinite(vector).all():
        raise DataError(
            f"the global descriptor of {where} is {vector.dtype} {vector.shape}",
            "expected finite floats of shape (d,)",
        )
    out = vector.astype(np.float32)
    norm = float(np.linalg.norm(out))
    if norm and abs(norm - 1) > 0.02:
        raise DataError(
            f"the global descriptor of {where} has norm {norm:.3g}",
            "descriptors are compared by dot product: L2-normalise them before the import",
        )
    return out
