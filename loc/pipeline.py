"""The method on a page: one list of stages, walked once for the map and once for the queries.

    map line     database images → features → globals → pairs → matches → map
    query line   query images    → features → globals → pairs → matches → poses → report

The map never depends on a query: adding one recomputes nothing of the map.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from loc.config import RunConfig, suggest
from loc.errors import ConfigError
from loc.layouts import load_scene
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.record import Record, run_log
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.stages.artefacts import Features, Globals, Matched, PairList
from loc.stages.correspond import features_block, match_images
from loc.stages.evaluate import Report, evaluate
from loc.stages.extract import extract_features, extract_globals, fused_plugins
from loc.stages.learn import fitted_extractor
from loc.stages.localize import Poses, localize
from loc.stages.map import make_map
from loc.stages.match import match_pairs
from loc.stages.pairs import make_pairs, needs_globals, no_generator
from loc.types import ImageRecord, Scene

log = logging.getLogger(__name__)
STAGES = ("features", "matches", "map", "poses", "report")


@dataclass(frozen=True)
class Run:
    """What a run made; stages that were not asked for are None."""

    workdir: Path
    scene: Scene
    features: Features | None = None
    matches: Matched | None = None  # of map pairs
    query_matches: Matched | None = None
    bundle: MapBundle | None = None
    poses: Poses | None = None
    report: Report | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    config: RunConfig, workdir: str | Path, *, runtime: Runtime | None = None, until: str = "report"
) -> Run:
    """Walk the map line, then the query line; what is already there is not computed again.

    Args:
        config: from :func:`loc.load_config`.
        workdir: the run folder; another config shares its stores and overwrites nothing.
        until: last stage to run, one of ``STAGES``.
    """
    if until not in STAGES:
        raise ConfigError(f"until={until!r} is no stage", suggest(until, list(STAGES)))
    workdir, runtime = Path(workdir), runtime or Runtime()
    scene = load_scene(config.scene)
    with run_log(workdir, config), Record(workdir, config, scene) as record:
        config = config.model_copy(update={"features": features_block(config, scene)})
        line = _Line(config, scene, record, {"workdir": workdir, "runtime": runtime})
        made = Run(workdir, scene, seconds=record.seconds)
        if scene.queries and until in ("poses", "report") and (why := no_generator("query", config.pairs)):
            log.warning("%s: no query will be localized; add {use: auto, for: query}", why)

        if until != "features" and config.features is not None:
            # A matcher that cannot match these features says so before any work.
            line.plugin("matcher", resolve_block("features", config.features))
        features, globals_ = line.describe(scene.db)
        if until == "features":
            return replace(made, features=line.describe(scene.images)[0])
        pairs = line.pairs("map", features, globals_)
        matches = line.match(features, pairs)
        if until == "matches":
            return replace(made, features=features, matches=matches)
        frozen = matches.keypoints
        bundle = line.map(features, globals_, pairs, matches)
        made = replace(made, features=features, matches=matches, bundle=bundle)
        if until == "map":
            return made

        features, globals_ = line.describe(scene.images)
        pairs = line.pairs("query", features, globals_, among=bundle.registered)
        matches = line.match(features, pairs, frozen)
        poses = line.localize(bundle, features, pairs, matches)
        made = replace(made, features=features, query_matches=matches, poses=poses)
        return made if until == "poses" else replace(made, report=line.report(bundle, poses, pairs))


@dataclass(frozen=True)
class _Line:
    """The stages with the configuration of this run."""

    config: RunConfig
    scene: Scene
    record: Record
    where: dict[str, Any]  # what every stage takes: workdir, runtime
    failed: dict[str, str] = field(default_factory=dict)  # photos without features, by now

    def plugin(self, section: str, extractor: ResolvedPlugin | None = None) -> ResolvedPlugin:
        """A plug-in of the config; a matcher is set up for the features of ``extractor``."""
        runtime: Runtime = self.where["runtime"]
        plugin = resolve_block(section, getattr(self.config, section))
        plugin = plugin if extractor is None else plugin.for_features(extractor)
        plugin = plugin.ready(runtime.torch_device)
        return fitted_extractor(plugin, self.scene.db, **self.where) if section == "features" else plugin

    def describe(self, images: Sequence[ImageRecord]) -> tuple[Features, Globals | None]:
        plugin = self.plugin("features")
        wanted = self.config.globals is not None and needs_globals(self.config.pairs, self.scene)
        companion = self.plugin("globals") if wanted else None
        with self.record.timed("features"):
            features = extract_features(
                images, plugin=plugin, failed=self.failed, companion=companion, **self.where
            )
        self.failed.update(features.skipped)
        globals_ = None
        if companion is not None:
            with self.record.timed("globals"):
                globals_ = extract_globals(
                    images,
                    features,
                    plugin=companion,
                    fit_names=[image.name for image in self.scene.db],
                    others=fused_plugins(self.config.pairs, self.where["runtime"]),
                    **self.where,
                )
        self.record.described(features, globals_)
        return features, globals_

    def pairs(
        self,
        role: Literal["map", "query"],
        features: Features,
        globals_: Globals | None,
        *,
        among: Sequence[str] | None = None,
    ) -> PairList:
        with self.record.timed("pairs"):
            pairs = make_pairs(
                role, self.scene, features, globals_, config=self.config.pairs, among=among, **self.where
            )
        self.record.paired(role, pairs)
        return pairs

    def match(self, features: Features, pairs: PairList, frozen: Features | None = None) -> Matched:
        """Of map pairs, or of query pairs with the keypoints of the map that they may not change."""
        plugin = self.plugin("matcher", features.plugin)
        with self.record.timed("matches"):
            if plugin.reads_images:
                matches = match_images(
                    features,
                    pairs.pairs,
                    images=self.scene.images,
                    plugin=plugin,
                    frozen=frozen,
                    **self.where,
                )
            else:
                matches = match_pairs(features, pairs.pairs, plugin=plugin, **self.where)
        self.record.matched(matches)
        return matches

    def map(
        self, features: Features, globals_: Globals | None, pairs: PairList, matches: Matched
    ) -> MapBundle:
        blocks: dict[str, Any] = self.config.model_dump(mode="json", by_alias=True)
        with self.record.timed("map"):
            bundle = make_map(
                replace(self.scene, images=self.scene.db),
                features,
                pairs,
                matches,
                globals_=globals_,
                config=self.config.map,
                blocks={
                    name: blocks[name] for name in ("features", "globals", "matcher", "pairs", "localize")
                },
                **self.where,
            )
        self.record.mapped(bundle)
        return bundle

    def localize(self, bundle: MapBundle, features: Features, pairs: PairList, matches: Matched) -> Poses:
        with self.record.timed("poses"):
            poses = localize(
                self.scene, bundle, features, pairs, matches, config=self.config.localize, **self.where
            )
        self.record.localized(poses.folder)
        return poses

    def report(self, bundle: MapBundle, poses: Poses, pairs: PairList) -> Report:
        with self.record.timed("report"):
            report = evaluate(
                self.scene, bundle, poses, config=self.config.evaluate, pairs=pairs, **self.where
            )
        self.record.reported(report.folder)
        return report
