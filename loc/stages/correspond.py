"""Stage *matches* for matchers that find their own points: correspondences, then shared keypoints.

The correspondences of every pair go into a store of their own: they are what takes long. From those of
the map's pairs come keypoints that many pairs share (:mod:`loc.sfm.consistent`), and the matches between
them; they are frozen. A query's keypoints are the map's, carried into the query. Both lie in ordinary
stores of features (without descriptors) and matches, so later stages notice nothing. The key of an image
in them stands for its bytes *and* for the pairs its keypoints come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from loc.config import Block, RunConfig, fused_blocks, reranks
from loc.conventions import resize_wh
from loc.plugins.blocks import ResolvedPlugin, reads_images, resolve_block
from loc.runtime.extraction import PhotoFile
from loc.runtime.pairing import PairMatcher
from loc.runtime.runtime import Runtime
from loc.sfm.consistent import SharedKeypoints, SharingOptions, share_keypoints, snap_to
from loc.stages.artefacts import Features, Matched, Pair
from loc.stages.extract import folder_name
from loc.stages.pairs import needs_globals
from loc.stores.correspondences import CorrespondenceStore
from loc.stores.features import FeatureStore
from loc.stores.fingerprint import digest, fingerprint
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import Correspondences, ImageRecord, LocalFeatures, Matches, Scene

#: Raised when the correspondences of an unchanged plug-in change, and when the shared keypoints do.
STAGE_VERSION, SHARING_VERSION = 1, 1
#: Pairs handed to the matcher at once.
_CALL = 8
#: Database images whose keypoints are kept in memory while queries are matched.
_CACHED_IMAGES = 2048
#: Shared keypoints this many times the matcher's noise apart are one; neighbours that disagree by more
#: than the second about where a keypoint lies say that it is not on their surface.
_MERGE, _DISAGREE = 2.0, 3.0


def features_block(config: RunConfig, scene: Scene) -> Block | str | None:
    """The features that a run needs: none where neither its matcher nor its retrieval reads them."""
    if reranks(config.pairs):
        return config.features
    if not reads_images(resolve_block("matcher", config.matcher).cls):
        return config.features
    if config.globals is None or not needs_globals(config.pairs, scene):
        return None
    blocks = (config.globals, *fused_blocks(config.pairs).values())
    described = any(resolve_block("globals", block).cls.source == "features" for block in blocks)
    return config.features if described else None


def match_images(
    features: Features,
    pairs: Sequence[Pair],
    *,
    images: Sequence[ImageRecord],
    plugin: ResolvedPlugin,
    frozen: Features | None = None,
    workdir: Path,
    runtime: Runtime,
) -> Matched:
    """Match ``pairs`` by their pixels; what the stores already hold is not computed again.

    Args:
        features: which images there are; their keypoints are not read.
        images: where the photos are.
        frozen: the map's keypoints (``Matched.keypoints`` of its pairs), for (query, database) pairs;
            None: the pairs are the map's, and keypoints are made from them.

    Returns:
        Matches and the keypoints they refer to: of all ``features``, or with ``frozen`` of the queries.
    """
    planned = plan_images(features, pairs, plugin=plugin, frozen=frozen, workdir=workdir)
    files = {image.name: PhotoFile(image.name, image.path, image.mask) for image in images}
    computed = _correspond(planned, files, runtime)
    todo = planned.incomplete()
    if todo and frozen is None:  # the keypoints of a map are one thing
        _write(planned, runtime.track(_of_map(planned, runtime), "shared keypoints", len(features.keys)))
    elif todo and frozen is not None:
        made = _of_queries(planned, frozen, todo, runtime)
        _write(planned, runtime.track(made, "shared keypoints", len(todo)))
    return replace(planned.matched, computed=computed)


@dataclass(frozen=True)
class Planned:
    """The stores of :func:`match_images` and what of them belongs to this run.

    ``matched`` is what it returns; ``pairs`` are the keys of the correspondences in ``store``.
    """

    features: Features
    plugin: ResolvedPlugin
    store: CorrespondenceStore
    pairs: dict[Pair, PairKey]
    matched: Matched

    def image_wh(self, name: str) -> tuple[int, int]:
        return self.features.store.image_wh(self.features.keys[name])

    def incomplete(self) -> dict[str, list[Pair]]:
        """Images whose keypoints or matches are not in the stores, each with its pairs."""
        matched = self.matched
        of_image: dict[str, list[Pair]] = {name: [] for name in matched.keypoints.keys}
        for pair in self.pairs:
            of_image[pair[0]].append(pair)
        return {
            name: pairs
            for name, pairs in of_image.items()
            if matched.keypoints.keys[name] not in matched.keypoints.store
            or matched.store.missing(matched.keys[pair] for pair in pairs)
        }

    def options(self, name: str) -> SharingOptions:
        return sharing_options(self.plugin, self.image_wh(name))


def plan_images(
    features: Features,
    pairs: Sequence[Pair],
    *,
    plugin: ResolvedPlugin,
    frozen: Features | None = None,
    workdir: Path,
) -> Planned:
    """Where :func:`match_images` looks and writes; reads and computes nothing."""
    keys = {(a, b): PairKey(features.keys[a], features.keys[b]) for a, b in sorted(pairs)}
    store = correspondence_store(plugin, workdir)
    fields = {
        "stage": SHARING_VERSION,
        **plugin.fingerprint_fields(),
        "correspondences": store.folder.name,
        "sharing": [_MERGE, _DISAGREE, _noise_px(plugin)],
    }
    name = f"{folder_name(plugin.name)}-{fingerprint(fields)}"
    if frozen is None:
        items = _map_keys(features, keys)
        known = items
    else:
        items = _query_keys(features, keys, frozen)
        known = {**frozen.keys, **items}
    keypoints = Features(
        FeatureStore(workdir / "keypoints" / name, {"kind": "features", **fields}),
        items,
        features.skipped,
        plugin,
    )
    matches = MatchStore(workdir / "matches" / name, {"kind": "matches", **fields})
    shared = {(a, b): PairKey(known[a], known[b]) for a, b in keys}
    return Planned(features, plugin, store, keys, Matched(matches, shared, keypoints, plugin))


def correspondence_store(plugin: ResolvedPlugin, workdir: Path) -> CorrespondenceStore:
    """The store of what a matcher found; how keypoints are shared afterwards does not change it."""
    fields = {
        "kind": "correspondences",
        "stage": STAGE_VERSION,
        **plugin.fingerprint_fields(),
        "stage_options": {"resize_max": plugin.stage_options["resize_max"]},
    }
    folder = workdir / "correspondences" / f"{folder_name(plugin.name)}-{fingerprint(fields)}"
    return CorrespondenceStore(folder, fields)


def sharing_options(plugin: ResolvedPlugin, image_wh: tuple[int, int]) -> SharingOptions:
    """The matcher's options for an image, in px of the stored image."""
    noise_px = noise_in(plugin, image_wh)
    return SharingOptions(
        merge_px=_MERGE * noise_px,
        max_error_px=_DISAGREE * noise_px,
        max_keypoints=plugin.stage_options["max_keypoints"],
        spacing_px=plugin.stage_options["spacing_px"],
    )


def noise_in(plugin: ResolvedPlugin, image_wh: tuple[int, int]) -> float:
    """Standard deviation of the matcher's points, px of the stored image."""
    seen = resize_wh(image_wh, plugin.stage_options["resize_max"])
    return _noise_px(plugin) * max(image_wh) / max(seen)


def _noise_px(plugin: ResolvedPlugin) -> float:
    """Standard deviation of the matcher's points, px of the images it is shown."""
    return float(getattr(plugin.cls, "noise_px", 1.0))


def query_keypoints(
    plugin: ResolvedPlugin,
    name: str,
    image_wh: tuple[int, int],
    found: Sequence[tuple[str, np.ndarray, Correspondences]],
) -> tuple[LocalFeatures, dict[str, Matches]]:
    """Keypoints of a query from frozen ones, and its matches with each database image.

    Args:
        found: ``(database image, its keypoints (n, 2), correspondences from the query to it)``.
    """
    shared = snap_to(found, name=name, image_wh=image_wh, options=sharing_options(plugin, image_wh))
    return as_features(shared, image_wh, noise_in(plugin, image_wh)), shared.matches


def as_features(shared: SharedKeypoints, image_wh: tuple[int, int], noise_px: float) -> LocalFeatures:
    """Shared keypoints as features without descriptors."""
    return LocalFeatures(
        keypoints=shared.xy.astype(np.float32),
        scores=shared.scores.astype(np.float32),
        descriptors=np.zeros((len(shared.xy), 0), np.float16),
        image_wh=image_wh,
        noise_px=noise_px,
    )


def _correspond(planned: Planned, files: dict[str, PhotoFile], runtime: Runtime) -> int:
    """Fill the store of correspondences; how many pairs were missing."""
    todo = planned.store.missing(planned.pairs.values())
    if not todo:
        return 0
    matcher = PairMatcher(planned.plugin, device=runtime.torch_device())

    def results() -> Iterator[tuple[PairKey, Correspondences]]:
        ordered = _in_blocks(todo)
        for start in range(0, len(ordered), _CALL):
            keys = ordered[start : start + _CALL]
            shown = [tuple(matcher.shown(files[key.name], key=key) for key in pair) for pair in keys]
            yield from zip(keys, matcher.match([(one, two) for one, two in shown]), strict=True)

    with planned.store.writer() as writer:
        what = f"correspondences {planned.plugin.name}"
        for key, found in runtime.track(results(), what, len(todo)):
            writer.put(key, found)
    return len(todo)


def _in_blocks(pairs: list[PairKey]) -> list[PairKey]:
    """Pairs in an order in which few images have to be prepared again: some first images at a time."""
    number = {image: row for row, image in enumerate(sorted({pair.first for pair in pairs}))}
    return sorted(pairs, key=lambda pair: (number[pair.first] // _CALL, pair.second, pair.first))


def _of_map(planned: Planned, runtime: Runtime) -> Iterator[SharedKeypoints]:
    counts = dict.fromkeys(planned.features.keys, 0)
    for pair, key in planned.pairs.items():
        for name in pair:
            counts[name] += planned.store.count(key)
    yield from share_keypoints(
        planned.pairs,
        lambda pair: planned.store.get(planned.pairs[pair]),
        images=sorted(counts, key=lambda name: (-counts[name], name)),
        image_wh=planned.image_wh,
        options=planned.options,
        workers=runtime.num_workers,
    )


def _of_queries(
    planned: Planned, frozen: Features, todo: dict[str, list[Pair]], runtime: Runtime
) -> Iterator[SharedKeypoints]:
    keypoints = lru_cache(maxsize=_CACHED_IMAGES)(frozen.keypoints)
    for query, pairs in todo.items():
        found = [(pair[1], keypoints(pair[1]), planned.store.get(planned.pairs[pair])) for pair in pairs]
        yield snap_to(
            found,
            name=query,
            image_wh=planned.image_wh(query),
            options=planned.options(query),
            workers=runtime.num_workers,
        )


def _write(planned: Planned, made: Iterator[SharedKeypoints]) -> None:
    """Put what the stores lack: a run that was killed here has written some of it."""
    matched = planned.matched
    items = matched.keypoints.keys
    with matched.keypoints.store.writer() as keypoints, matched.store.writer() as matches:
        for shared in made:
            for other, found in shared.matches.items():
                pair = shared.name, other
                if pair not in matched.keys:
                    pair, found = (other, shared.name), _swapped(found)
                if matched.keys[pair] not in matched.store:
                    matches.put(matched.keys[pair], found)
            if items[shared.name] not in matched.keypoints.store:
                image_wh = planned.image_wh(shared.name)
                features = as_features(shared, image_wh, noise_in(planned.plugin, image_wh))
                keypoints.put(items[shared.name], features)


def _swapped(found: Matches) -> Matches:
    order = np.lexsort((found.indices[:, 0], found.indices[:, 1]))
    return Matches(np.ascontiguousarray(found.indices[order, ::-1]), found.scores[order])


def _map_keys(features: Features, pairs: dict[Pair, PairKey]) -> dict[str, ItemKey]:
    """Keypoints of a map depend on all of its pairs."""
    whole = digest(part for key in pairs.values() for image in key for part in image)
    return {name: ItemKey(name, digest([*key, whole])[:16]) for name, key in sorted(features.keys.items())}


def _query_keys(features: Features, pairs: dict[Pair, PairKey], frozen: Features) -> dict[str, ItemKey]:
    """Keypoints of a query depend on its own pairs and on the keypoints of these database images."""
    sources: dict[str, list[str]] = {name: [] for name in features.keys if name not in frozen.keys}
    for query, name in pairs:
        sources[query] += frozen.keys[name]
    return {
        name: ItemKey(name, digest([*features.keys[name], *parts])[:16])
        for name, parts in sorted(sources.items())
    }
