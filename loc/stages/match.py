"""Stage *matches*: putative correspondences of every pair."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from loc.errors import ContractError, LocError, PluginError
from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features, Matched, Pair
from loc.stages.extract import folder_name
from loc.stores.fingerprint import fingerprint
from loc.stores.matches import MatchStore, PairKey
from loc.types import LocalFeatures, Matches

STAGE_VERSION = 1
#: Pairs handed to the matcher at once, and bytes of prepared features kept for the next pairs.
_CALL = 16
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
        size = features.descriptors.nbytes + features.keypoints.nbytes
        self._cache[key] = (value, size)
        self._bytes += size
        while self._bytes > _CACHE_BYTES and len(self._cache) > 2 * _CALL:
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


def _matched(matcher: Preparer, features: Features, todo: list[PairKey]) -> Iterator[tuple[PairKey, Matches]]:
    def prepared(key: Any) -> Any:
        found = matcher.cached(key)
        return found if found is not None else matcher.prepared(key, features.store.get(key))

    for start in range(0, len(todo), _CALL):
        keys = todo[start : start + _CALL]
        found = matcher.match([(prepared(key.first), prepared(key.second)) for key in keys])
        yield from zip(keys, found, strict=True)
