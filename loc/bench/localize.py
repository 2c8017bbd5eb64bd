"""Localization: how much of its time is spent inside pycolmap's estimator, and how much is ours."""

from __future__ import annotations

from loc.bench.ratio import Ratio, Size, clocked, seconds
from loc.bench.world import CAMERA, World, common_points, make_world, match_views
from loc.colmap import pycolmap
from loc.config import LocalizeConfig
from loc.sfm.index import PointIndex
from loc.sfm.locate import MatchedQuery, locate

GOAL = 0.7
_REFERENCES = 20
_NOTE = "one thread, matches in memory; ours: 2D-3D lookup, residuals, verdict"


def localize(size: Size) -> list[Ratio]:
    """200 queries, each matched with 20 of 500 mapped images: the share of pycolmap's estimator."""
    images, number = (20, 5) if size.quick else (500, 200)
    world = make_world(views=images + number, points=3000 if size.quick else 12_000, clutter=500)
    index, config = world.index(images), LocalizeConfig()
    out = []
    # The estimator takes ten times as long where half of the matches are wrong, and we do not.
    for count, kept, wrong in ((number, 0.1, 0.1), (max(1, number // 4), 0.3, 0.5)):
        queries = [_query(world, images, images + each, kept, wrong) for each in range(count)]
        shares = _shares(index, queries, config, size.repeats)
        matches = round(sum(len(each) for query in queries for _, each in query.matched) / count)
        what = f"{count} queries of {matches} matches, {100 * wrong / (1 + wrong):.0f} % wrong,"
        what += f" in a map of {images} images: share of the time inside pycolmap's estimator"
        out.append(Ratio("localize", what, shares, GOAL, note=_NOTE))
    return out


def _shares(
    index: PointIndex, queries: list[MatchedQuery], config: LocalizeConfig, repeats: int
) -> tuple[float, ...]:
    def all_queries() -> None:
        for query in queries:
            locate(index, query, config)

    all_queries()
    shares = []
    for _ in range(repeats):
        with clocked(pycolmap, "estimate_and_refine_absolute_pose") as estimator:
            total = seconds(all_queries)
        shares.append(estimator.seconds / total)
    return tuple(shares)


def _query(world: World, images: int, row: int, kept: float, wrong: float) -> MatchedQuery:
    view, mapped = world.views[row], world.views[:images]
    nearest = (-common_points(mapped, view, len(world.xyz))).argsort(kind="stable")[:_REFERENCES]
    matched = [
        (mapped[n].name, match_views(view, mapped[n], kept=kept, wrong=wrong, seed=int(n))) for n in nearest
    ]
    return MatchedQuery(view.name, CAMERA, view.xy, matched)
