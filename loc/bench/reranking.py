"""Rankings of a benchmark reordered by matches of local features, as Detect-to-Retrieve and DELG evaluate.

Images that do not count for a protocol are taken out *before* the best are verified, so that they waste none
of the places: a protocol has its own ranking. Counts of inliers are kept, so the protocols share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from loc.config import RerankConfig
from loc.metrics.retrieval import Judgement
from loc.plugins.blocks import ResolvedPlugin
from loc.retrieval.verification import as_ranked, verify
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features
from loc.stages.extract import extract_features
from loc.stages.learn import fitted_extractor
from loc.stages.reranking import remembered
from loc.types import Array, ImageRecord

#: Inliers of a query and a database image, by their numbers.
Inliers = Callable[[int, int], int]


@dataclass(frozen=True, eq=False)
class SetFeatures:
    """Local features of a benchmark's images, extracted when they are first asked for.

    Attributes:
        plugin: the extractor; what it learns, it learns from the database.
    """

    plugin: ResolvedPlugin
    database: Sequence[ImageRecord]
    queries: Sequence[ImageRecord]
    workdir: Path
    runtime: Runtime
    counted: dict[tuple[RerankConfig, int, int], int] = field(default_factory=dict)

    @cached_property
    def features(self) -> Features:
        """Of the images of both roles that can be read.

        Raises:
            LocError: the extractor cannot run here.
        """
        plugin = self.plugin.ready(self.runtime.torch_device)
        plugin = fitted_extractor(plugin, self.database, workdir=self.workdir, runtime=self.runtime)
        everything = [*self.database, *self.queries]
        return extract_features(everything, plugin=plugin, workdir=self.workdir, runtime=self.runtime)

    def inliers(self, config: RerankConfig) -> Inliers:
        """Counts by one set of values, as they rank; a photo that cannot be read has none."""
        features = self.features
        features_of = remembered(features.get, config)

        def count(query: int, row: int) -> int:
            key = (config, query, row)
            names = self.queries[query].name, self.database[row].name
            if key not in self.counted:
                readable = all(name in features.keys for name in names)
                found = verify(features_of(names[0]), features_of(names[1]), config) if readable else None
                self.counted[key] = as_ranked(found.inliers, config) if found else 0
            return self.counted[key]

        return count


def reranked(
    orders: Int64[Array, "q n"], judgements: Sequence[Judgement], candidates: int, inliers: Inliers
) -> list[Int64[Array, " m"]]:
    """Rankings of one protocol without what it ignores, the best by (inliers, rank so far).

    Args:
        orders: ids of database images per query, best first; negative ones fill short rows.
        candidates: how many of each are verified; the others follow in their order.
    """
    out = []
    for query, (order, judgement) in enumerate(zip(orders, judgements, strict=True)):
        counted = order[(order >= 0) & ~np.isin(order, judgement.ignored)]
        found = np.zeros(len(counted), np.int64)
        found[:candidates] = [inliers(query, row) for row in counted[:candidates].tolist()]
        out.append(counted[np.argsort(-found, kind="stable")])
    return out
