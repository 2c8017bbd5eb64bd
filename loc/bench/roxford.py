"""Retrieval on Revisited Oxford and Paris, and on sets in their format: mAP of every method and ranking.

A query is the part of its photo inside its box, described at the scale of the whole photo (the protocol of
github.com/filipradenovic/revisitop and cnnimageretrieval-pytorch).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.bench.reranking import SetFeatures, reranked
from loc.config import Block, RerankConfig, RetrievalPairs, validate
from loc.config.ranking import RERANKINGS
from loc.conventions import resize_wh, stored_from_upright_xy
from loc.errors import ConfigError, DataError, LocError, PluginError, WeightsError
from loc.layouts.revisited import Box, RetrievalSet
from loc.metrics.retrieval import REVISITED, Judgement, RetrievalScores, judge, score_rankings
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.plugins.standing import weights_verified
from loc.retrieval.fusion import fuse_ranks
from loc.retrieval.ranking import ranking_of
from loc.runtime.images import read_photo
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features
from loc.stages.extract import content_keys, extract_globals, feature_fields, features_folder
from loc.stores.features import FeatureStore
from loc.types import Array, ImageRecord

#: EXIF orientations by which a photo that another one turned upright is turned back; the rest are their own.
_INVERSE = {6: 8, 8: 6}
#: What stands in a table in place of the numbers of a method whose weights the project has never run.
PARITY_ONLY = "parity only"
#: Rankings by name: options of the pair generator `retrieval`, at the values of their papers.
RANKINGS: dict[str, dict[str, Any]] = {
    "similarity": {},
    "aqe": {"expansion": {"queries": 10, "alpha": 0}},
    "alpha_qe": {"expansion": {"queries": 50, "alpha": 3}},
    "dba": {"expansion": {"database": 10, "alpha": 3}},
    "diffusion": {"diffusion": {}},
    "offline": {"diffusion": {"solver": "offline"}},
    "spectral": {"diffusion": {"solver": "spectral"}},
    **{name: {"rerank": name} for name in RERANKINGS},
}
#: Options of the pair generator that order images; the others say which pairs are kept.
_RANKED_BY = {"expansion", "diffusion", "rerank"}


@dataclass(frozen=True)
class Row:
    """A line of the table: a method and a ranking, with scores by protocol, or a note why there are none."""

    set_name: str
    method: str
    ranking: str
    dimension: int | None = None
    scores: Mapping[str, RetrievalScores] = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "set": self.set_name,
            "method": self.method,
            "ranking": self.ranking,
            "dimension": self.dimension,
            "note": self.note,
            **{protocol: scores.to_json() for protocol, scores in self.scores.items()},
        }


def rank_options(text: str) -> RetrievalPairs:
    """A ranking by its name, or as the options of the pair generator `retrieval` in YAML.

    >>> rank_options("aqe").expansion.queries, rank_options("{diffusion: {k: 20}}").diffusion.k
    (10, 20)
    >>> rank_options("delg").rerank.residual_px
    20.0
    """
    import yaml

    if text in RANKINGS:
        return validate(RetrievalPairs, RANKINGS[text], where=text)
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict):
        raise ConfigError(
            f"no ranking is called {text!r}",
            f"there are {', '.join(RANKINGS)}, or options as in {{diffusion: {{k: 20}}}}",
        )
    config = validate(RetrievalPairs, options, where=text)
    if others := sorted(set(options) - _RANKED_BY):
        raise ConfigError(
            f"--rank {text}: {others[0]} changes no ranking here",
            f"give {', '.join(sorted(_RANKED_BY))}; --fuse fuses the methods, and whole rankings are scored",
        )
    return config


def retrieval_table(
    data: RetrievalSet,
    methods: Sequence[Block | str],
    rankings: Sequence[str],
    *,
    features: Block | str,
    resize_max: int | None,
    fuse: bool,
    workdir: Path,
    runtime: Runtime,
) -> Iterator[Row]:
    """Rows as they are done: every method with every ranking, then the fusion of all methods by ranking.

    Args:
        methods: global extractors, as blocks of a config. One whose weights the project has never run gets a
            row without numbers; one that cannot be run gets a row that says why.
        rankings: see :func:`rank_options`.
        features: local features for methods that aggregate them, and for rankings that verify images.
        resize_max: long side of photos, px, where the method's own limit is not lower; a query is shrunk by
            the factor of its whole photo.
        fuse: whether rankings of the methods are fused (reciprocal ranks) into one more row each.
        workdir: keeps what was extracted; run again to resume.
    """
    options = {name: rank_options(name) for name in rankings}
    judgements = _judgements(data)
    database, queries = _records(data, resize_max, workdir / data.name / "queries")
    plugin = _limited(resolve_block("features", features), resize_max)
    local = SetFeatures(plugin, database, queries, workdir / data.name, runtime)
    found: dict[str, list[Array]] = {name: [] for name in rankings}
    for method in methods:
        label = _label(method)
        try:
            plugin = _limited(resolve_block("globals", method), resize_max)
            if not weights_verified(plugin):
                yield Row(data.name, label, "", note=PARITY_ONLY)
                continue
            plugin = plugin.ready(runtime.torch_device)
            rows, asked, silent, note = _described(plugin, local)
        except LocError as error:
            yield Row(data.name, label, "", note=error.message)
            continue
        for name, config in options.items():
            try:
                ranking = ranking_of(
                    rows,
                    regions=plugin.regions,
                    own=plugin.own_ranking,
                    expansion=config.expansion,
                    diffusion=config.diffusion,
                )
                order, _ = ranking(asked, len(rows))
                order[silent] = -1
                scores = _scores(judgements, order, config.rerank, local)
            except (ConfigError, PluginError, WeightsError) as error:
                yield Row(data.name, label, name, note=error.message)
                continue
            found[name].append(order)
            width = None if rows.ndim == 1 else rows.shape[1]
            yield Row(data.name, label, name, width, scores, note)
    for name, orders in found.items():
        if fuse and len(orders) > 1:
            order, _ = fuse_ranks(orders, len(data.database))
            scores = _scores(judgements, order, options[name].rerank, local)
            yield Row(data.name, f"fusion of {len(orders)}", name, None, scores)


def _judgements(data: RetrievalSet) -> dict[str, list[Judgement]]:
    """Of every query, by protocol."""
    protocols = REVISITED if data.truth.revisited else ("classic",)
    return {protocol: [judge(labels, protocol) for labels in data.truth.labels] for protocol in protocols}


def _scores(
    judgements: Mapping[str, list[Judgement]], order: Array, config: RerankConfig | None, local: SetFeatures
) -> dict[str, RetrievalScores]:
    """By protocol; each has a re-ranking of its own."""
    scores = {}
    for protocol, judged in judgements.items():
        rankings = list(order)
        if config is not None:
            rankings = reranked(order, judged, config.candidates, local.inliers(config))
        scores[protocol] = score_rankings(rankings, judged)
    return scores


def _described(plugin: ResolvedPlugin, local: SetFeatures) -> tuple[Array, Array, list[int], str]:
    """Descriptors of database and queries, zeros or no bytes for none; the queries of those; a note."""
    database, queries, workdir, runtime = local.database, local.queries, local.workdir, local.runtime
    everything = [*database, *queries]
    if plugin.cls.source == "features":
        described = local.features
    else:  # local features are not needed: the artefact only says which photos there are
        keys, skipped = content_keys(everything, runtime)
        store = FeatureStore(features_folder(local.plugin, workdir), feature_fields(local.plugin))
        described = Features(store, keys, skipped, local.plugin)
    globals_ = extract_globals(
        everything,
        described,
        plugin=plugin,
        fit_names=[image.name for image in database if image.name in described.keys],
        workdir=workdir,
        runtime=runtime,
    )
    names = sorted(globals_.keys)
    rows = globals_.matrix(names)
    by_name = dict(zip(names, rows, strict=True))
    nothing = np.zeros(rows.shape[1], np.float32) if rows.ndim == 2 else np.zeros(0, np.uint8)
    out = []
    for role in (database, queries):
        role_rows = np.empty((len(role), *rows.shape[1:]), rows.dtype)
        for row, image in enumerate(role):
            role_rows[row] = by_name.get(image.name, nothing)
        out.append(role_rows)
    silent = [row for row, image in enumerate(queries) if image.name not in by_name]
    missing = len(everything) - len(names)
    note = f"photos without a descriptor: {missing}" if missing else ""
    if silent:
        note += f" (queries, which find nothing: {len(silent)})"
    return out[0], out[1], silent, note


def _records(
    data: RetrievalSet, resize_max: int | None, folder: Path
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images of both roles, in the order of the ground truth; queries are cropped into ``folder``."""
    width = len(str(len(data.database)))
    database = [
        ImageRecord(f"db/{row:0{width}}_{path.name}", path, "db", "")
        for row, path in enumerate(data.database)
    ]
    queries = []
    for row, (path, box) in enumerate(zip(data.queries, data.truth.boxes, strict=True)):
        cropped = folder / f"{resize_max}_{row:0{width}}_{path.stem}.png"
        readable = crop_query(path, box, cropped, resize_max=resize_max)
        shown = cropped if readable else path  # which every stage then passes over
        queries.append(ImageRecord(f"query/{row:0{width}}_{path.stem}", shown, "query", ""))
    return database, queries


def crop_query(path: Path, box: Box | None, to: Path, *, resize_max: int | None) -> bool:
    """Write the part of a photo inside a box (px of the stored photo, rounded), upright, as PNG.

    It is shrunk by the factor that brings the long side of the whole photo to ``resize_max``.

    Returns:
        Whether the photo can be read; if not, nothing is written.

    Raises:
        DataError: nothing of the photo is inside the box.
    """
    import cv2
    from PIL import Image

    try:
        photo = read_photo(path, color="rgb")
    except DataError:
        return False
    pixels = photo.pixels
    height, width = pixels.shape[:2]
    if box is not None:
        corners = stored_from_upright_xy(
            np.array(box, np.float64).reshape(2, 2),
            stored_wh=(width, height),
            exif_orientation=_INVERSE.get(photo.exif_orientation, photo.exif_orientation),
        )
        (x1, y1), (x2, y2) = np.sort(np.rint(corners).astype(int).clip(0, [width, height]), axis=0).tolist()
        pixels = pixels[y1:y2, x1:x2]
    if not pixels.size:
        raise DataError(f"nothing of {path} ({width} x {height} px) is inside its box {box}", "check its gnd")
    whole = resize_wh((width, height), resize_max)
    factor = max(whole) / max(width, height)
    wh = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
    if factor < 1:
        pixels = cv2.resize(pixels, wh, interpolation=cv2.INTER_AREA)
    to.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(to)
    return True


def _limited(plugin: ResolvedPlugin, resize_max: int | None) -> ResolvedPlugin:
    own = plugin.stage_options.get("resize_max")
    if "resize_max" not in plugin.stage_options or resize_max is None:
        return plugin
    limit = resize_max if own is None else min(own, resize_max)
    return replace(plugin, stage_options={**plugin.stage_options, "resize_max": limit})


def _label(method: Block | str) -> str:
    if isinstance(method, str):
        return method
    options = ", ".join(f"{name}={value}" for name, value in method.items() if name != "use")
    return f"{method.get('use')} ({options})" if options else str(method.get("use"))
