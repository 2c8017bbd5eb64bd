"""Stage *matches*: putative correspondences of every pair."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from loc.errors import ContractError, LocError, PluginError
from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.buckets import padded
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features, Matched, Pair
from loc.stages.extract import folder_name
from loc.stores.fingerprint import fingerprint
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import LocalFeatures, Matches

STAGE_VERSION = 1
#: Pairs handed at once to a matcher that does not say how many it wants: `pairs_at_once`.
_PAIRS_AT_ONCE = 16
#: Keypoints of the first images of a block, which stay prepared: at 512 float32 each, half a GiB.
_BLOCK_KEYPOINTS = 1 << 18
#: An image counts as at least this many.
_LEAST_KEYPOINTS = 1024
#: Prepared features kept under a key.
_CACHE_BYTES = 1 << 30


def match_pairs(
    features: Features, pairs: Sequence[Pair], *, plugin: ResolvedPlugin, workdir: Path, runtime: Runtime
) -> Matched:
    """Match ``pairs``; what the store already holds is not computed again.

    Raises:
        PluginError: the features lack something the matcher requires.
    """
    store = MatchStore(match_folder(plugin, features, workdir), match_fields(plugin, features))
    keys = {(a, b): PairKey(features.keys[a], features.keys[b]) for a, b in sorted(pairs)}
    todo = store.missing(keys.values())
    if todo:
        matcher = Preparer(plugin, device=runtime.torch_device())
        with store.writer() as writer:
            matched = _matched(matcher, features, todo)
            for key, matches in runtime.track(matched, f"matches {plugin.name}", len(todo)):
                writer.put(key, matches)
    return Matched(store, keys, features, plugin, computed=len(todo))


def match_fields(plugin: ResolvedPlugin, features: Features) -> dict[str, Any]:
    """What the fingerprint of a match store covers."""
    return {
        "kind": "matches",
        "stage": STAGE_VERSION,
        **plugin.fingerprint_fields(),
        "features": features.store.folder.name,
    }


def match_folder(plugin: ResolvedPlugin, features: Features, workdir: Path) -> Path:
    name = f"{folder_name(features.plugin.name)}+{folder_name(plugin.name)}"
    return workdir / "matches" / f"{name}-{fingerprint(match_fields(plugin, features))}"


class Preparer:
    """A matcher with the features it has prepared; one image is prepared once for its pairs."""

    def __init__(self, plugin: ResolvedPlugin, *, device: str = "cpu") -> None:
        self.plugin = plugin
        self._call = plugin.build(device=device)
        self._cache: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    @property
    def pairs_at_once(self) -> int:
        """How many pairs the matcher wants in a call; more than needed does no harm."""
        return int(getattr(self._call, "pairs_at_once", _PAIRS_AT_ONCE))

    def prepared(self, key: Any, features: LocalFeatures) -> Any:
        """Prepared features; kept under ``key``, if it is not None, until the cache is full."""
        for field in sorted(self.plugin.cls.requires):
            if getattr(features, field, None) is None:
                raise PluginError(
                    f"matcher {self.plugin.name} requires {field}, which these features do not have",
                    "choose another matcher, or an extractor that gives them: loc plugins",
                )
        value = self._call.prepare(features)
        if key is None:
            return value
        size = 4 * (features.descriptors.size + features.keypoints.size)  # prepared as float32
        self._cache[key] = (value, size)
        self._bytes += size
        while self._bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1][1]
        return value

    def cached(self, key: Any) -> Any:
        """What was prepared under ``key``, or None."""
        if key not in self._cache:
            return None
        self._cache.move_to_end(key)
        return self._cache[key][0]

    def match(self, pairs: Sequence[tuple[Any, Any]]) -> list[Matches]:
        """Matches of prepared pairs; what the matcher raises names it."""
        try:
            found: list[Matches] = self._call(pairs)
        except ContractError as error:
            raise ContractError(f"{self.plugin.name}: {error.message}", error.next_step) from error
        except LocError:
            raise
        except Exception as error:
            raise PluginError(
                f"matcher {self.plugin.name} failed: {type(error).__name__}: {error}",
                "run with --debug for the traceback; loc.plugins.contract checks a plug-in",
            ) from error
        if len(found) != len(pairs):
            raise ContractError(f"{self.plugin.name} returned {len(found)} results for {len(pairs)} pairs")
        return found


def in_blocks(pairs: Sequence[PairKey], count: Callable[[ItemKey], int]) -> list[list[PairKey]]:
    """Pairs in an order in which few images have to be at hand, and neighbours are of similar size.

    The first images of a block have few enough keypoints to stay prepared; the second images come one
    after another, each with all of its pairs. So a block reads an image once; all pairs of 1000 images of
    2048 keypoints read an image 4.4 times on average.

    Args:
        pairs: in any order.
        count: keypoints of an image.
    """
    images = sorted(
        {image for pair in pairs for image in pair}, key=lambda image: (padded(count(image)), image)
    )
    rank = {image: number for number, image in enumerate(images)}
    block, size, block_of = 0, 0, {}
    for image in sorted({pair.first for pair in pairs}, key=rank.__getitem__):
        own = max(count(image), _LEAST_KEYPOINTS)
        if size and size + own > _BLOCK_KEYPOINTS:
            block, size = block + 1, 0
        block_of[image] = block
        size += own
    ordered = sorted(pairs, key=lambda pair: (block_of[pair.first], rank[pair.second], rank[pair.first]))
    return [list(group) for _, group in groupby(ordered, key=lambda pair: block_of[pair.first])]


def _matched(matcher: Preparer, features: Features, todo: list[PairKey]) -> Iterator[tuple[PairKey, Matches]]:
    """Matches of all pairs, block by block; what no pair needs any more is let go."""
    for block in in_blocks(todo, features.store.count):
        left = Counter(image for pair in block for image in pair)
        ready: dict[ItemKey, Any] = {}
        for start in range(0, len(block), matcher.pairs_at_once):
            keys = block[start : start + matcher.pairs_at_once]
            for image in dict.fromkeys(image for key in keys for image in key):
                if image not in ready:
                    ready[image] = matcher.prepared(None, features.store.get(image))
            found = matcher.match([(ready[key.first], ready[key.second]) for key in keys])
            left.subtract(image for key in keys for image in key)
            ready = {image: value for image, value in ready.items() if left[image]}
            yield from zip(keys, found, strict=True)
