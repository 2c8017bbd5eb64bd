"""Pair generators of a config: which images are matched with which (:mod:`loc.stages.pairs`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from loc.config.checks import Section
from loc.config.ranking import DiffusionConfig, ExpansionConfig, FusionConfig, RerankConfig


class ExhaustivePairs(Section):
    use: Literal["exhaustive"] = "exhaustive"
    for_: Literal["map", "query", "both"] = Field("map", alias="for")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RetrievalPairs(Section):
    use: Literal["retrieval"] = "retrieval"
    for_: Literal["map", "query", "both"] = Field("both", alias="for")
    k: int = Field(20, ge=1, description="database images per image")
    min_similarity: float | None = None
    expansion: ExpansionConfig | None = Field(
        None, description="query expansion and database-side augmentation, e.g. {queries: 10}"
    )
    diffusion: DiffusionConfig | None = Field(
        None, description="rank by diffusion on the graph of the database, e.g. {} or {k: 20}"
    )
    fusion: FusionConfig | None = Field(
        None, description="also rank by other global descriptors and fuse, e.g. {of: [vlad]}"
    )
    rerank: RerankConfig | None = Field(
        None, description="reorder the best images by matches of local features, e.g. d2r or {use: delg}"
    )
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _one_scale(self) -> RetrievalPairs:
        for name in ("diffusion", "fusion"):
            if getattr(self, name) is not None and self.min_similarity is not None:
                raise ValueError(f"min_similarity is a cosine, and {name} ranks by scores without a scale")
        return self


class CovisibilityPairs(Section):
    use: Literal["covisibility"] = "covisibility"
    for_: Literal["map"] = Field("map", alias="for")
    k: int = Field(20, ge=1, description="images that share most 3-D points of the reference model")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ListedPairs(Section):
    use: Literal["list"] = "list"
    for_: Literal["map", "query", "both"] = Field("map", alias="for")
    path: Path
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class AutoPairs(Section):
    """Exhaustive below ``exhaustive_below`` database images, retrieval with ``k`` above."""

    use: Literal["auto"] = "auto"
    for_: Literal["map", "query", "both"] = Field("both", alias="for")
    exhaustive_below: int = Field(60, ge=0)
    k: int = Field(20, ge=1)
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SequentialPairs(Section):
    """Images of one folder in order, each with the next ones; optionally closing loops by retrieval."""

    use: Literal["sequential"] = "sequential"
    for_: Literal["map"] = Field("map", alias="for")
    overlap: int = Field(10, ge=1, description="following images of the same folder")
    quadratic: bool = Field(False, description="also those 1, 2, 4, … 2^(overlap - 1) further on")
    order: Literal["name", "timestamp"] = Field(
        "name", description="name: numbers in names count as numbers; timestamp: EXIF"
    )
    loop_closure: int | None = Field(
        None, ge=1, description="every n-th image of a folder also retrieves images outside its overlap"
    )
    loop_closure_k: int = Field(5, ge=1, description="images retrieved by each of them")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class PosePairs(Section):
    """The nearest images by known poses (of queries: ``scene.priors``) that look the same way."""

    use: Literal["poses"] = "poses"
    for_: Literal["map", "query", "both"] = Field("map", alias="for")
    k: int = Field(20, ge=1, description="nearest images per image")
    max_distance: float | None = Field(None, gt=0, description="between camera centres, world units")
    max_angle_deg: float = Field(45.0, gt=0, le=180, description="between viewing directions")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class GpsPairs(Section):
    """The nearest images by the GPS positions in their EXIF data."""

    use: Literal["gps"] = "gps"
    for_: Literal["map", "query", "both"] = Field("both", alias="for")
    k: int = Field(20, ge=1, description="nearest images per image")
    max_distance_m: float = Field(100.0, gt=0)
    use_altitude: bool = Field(False, description="altitudes in EXIF data are often tens of metres off")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


#: Every generator, the default first.
PAIR_CONFIGS: tuple[type[Section], ...] = (
    AutoPairs,
    ExhaustivePairs,
    RetrievalPairs,
    CovisibilityPairs,
    ListedPairs,
    SequentialPairs,
    PosePairs,
    GpsPairs,
)
PairsConfig = Annotated[
    ExhaustivePairs
    | RetrievalPairs
    | CovisibilityPairs
    | ListedPairs
    | AutoPairs
    | SequentialPairs
    | PosePairs
    | GpsPairs,
    Field(discriminator="use"),
]


def reranks(generators: Iterable[PairsConfig], roles: Iterable[str] = ("map", "query")) -> bool:
    """Whether the order of any generator for these roles depends on local features."""
    return any(
        isinstance(each, RetrievalPairs) and each.rerank is not None and each.for_ in (*roles, "both")
        for each in generators
    )


def fused_blocks(generators: Iterable[PairsConfig]) -> dict[str, dict[str, Any] | str]:
    """The global extractors that generators fuse with that of `globals`, by key."""
    blocks: dict[str, dict[str, Any] | str] = {}
    for generator in generators:
        if isinstance(generator, RetrievalPairs) and generator.fusion is not None:
            blocks |= generator.fusion.blocks
    return blocks
