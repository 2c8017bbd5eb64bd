"""Pair generators of a config: which images are matched with which (:mod:`loc.stages.pairs`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from loc.config.checks import Section


class ExhaustivePairs(Section):
    use: Literal["exhaustive"] = "exhaustive"
    for_: Literal["map", "query", "both"] = Field("map", alias="for")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RetrievalPairs(Section):
    use: Literal["retrieval"] = "retrieval"
    for_: Literal["map", "query", "both"] = Field("both", alias="for")
    k: int = Field(20, ge=1, description="database images per image")
    min_similarity: float | None = None
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


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


#: Every generator, the default first.
PAIR_CONFIGS: tuple[type[Section], ...] = (
    AutoPairs,
    ExhaustivePairs,
    RetrievalPairs,
    CovisibilityPairs,
    ListedPairs,
)
PairsConfig = Annotated[
    ExhaustivePairs | RetrievalPairs | CovisibilityPairs | ListedPairs | AutoPairs,
    Field(discriminator="use"),
]
