"""How an index of image descriptors is built and searched (:mod:`loc.retrieval.index`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from loc.config.checks import Section


class IndexConfig(Section):
    """Kind and size of the part of an index that compaction builds; frozen when the index is created."""

    kind: Literal["auto", "exact", "ivf", "ivfpq"] = Field(
        "auto", description="exact: all vectors compared; ivf: those of the nearest lists; ivfpq: their codes"
    )
    lists: int | None = Field(
        None, ge=1, description="ivf, ivfpq: cells of the coarse quantizer; null: by the number of vectors"
    )
    probes: int | None = Field(
        None, ge=1, description="ivf, ivfpq: lists that a query looks into; null: lists / 32, at least 16"
    )
    opq: bool = Field(True, description="ivfpq: rotate vectors so that their parts quantize well")
    code_bytes: int | None = Field(
        None, ge=1, description="ivfpq: bytes per vector, a divisor of its dimension; null: at most 64"
    )
    rescore: int = Field(
        4,
        ge=0,
        description="ivfpq: candidates per neighbour wanted that are compared exactly; 0: none, codes decide",
    )
    train: int | None = Field(None, ge=1, description="vectors to learn from; null: 40 per list")
