"""How retrieval ranks images, beyond the similarity of descriptors (:mod:`loc.retrieval.ranking`)."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from loc.config.checks import Section


class ExpansionConfig(Section):
    """Descriptors averaged with their nearest neighbours (:mod:`loc.retrieval.expansion`)."""

    queries: int = Field(0, ge=0, description="nearest database images averaged into each query")
    database: int = Field(0, ge=0, description="nearest database images averaged into each database image")
    alpha: float = Field(3.0, ge=0, description="weights are similarity^alpha; 0: all equal")


class DiffusionConfig(Section):
    """Similarity spread over the neighbourhood graph of the database (:mod:`loc.retrieval.diffusion`)."""

    solver: Literal["conjugate_gradients", "offline", "spectral"] = Field(
        "conjugate_gradients", description="spectral, offline: more work beforehand, less per query"
    )
    k: int | None = Field(
        None,
        ge=1,
        description="neighbours in the graph, the image itself among them; null: 50, of regions 200",
    )
    query_k: int | None = Field(
        None, ge=1, description="neighbours by which a query enters the graph; null: 10, of regions 200"
    )
    gamma: float = Field(3.0, gt=0, description="exponent of similarities")
    alpha: float = Field(0.99, ge=0, lt=1, description="share that flows on along the graph at each step")
    iterations: int = Field(20, ge=1, description="conjugate gradients; rankings depend on it")
    rank: int = Field(2000, ge=1, description="spectral: eigenvectors")
    neighbourhood: int = Field(1000, ge=1, description="offline: images that each one's solution may reach")
    regions: int | None = Field(
        None, ge=1, description="of a regional descriptor: reduced to this many per image; null: all"
    )
    truncate: int | None = Field(
        None, ge=1, description="conjugate_gradients: solve on this many nearest images only; null: on all"
    )


class FusionConfig(Section):
    """One ranking from those of several global descriptors (:mod:`loc.retrieval.fusion`)."""

    of: tuple[dict[str, Any] | str, ...] = Field(
        min_length=1, description="global extractors besides that of `globals`: names, presets or blocks"
    )
    by: Literal["ranks", "scores"] = Field(
        "ranks", description="ranks: 1 / (60 + rank) summed; scores: each scaled to [0, 1] and summed"
    )
    weights: tuple[float, ...] | None = Field(
        None, description="of `globals`, then of each of `of`; null: all equal"
    )
    depth: int = Field(100, ge=1, description="images that each descriptor lists")

    @model_validator(mode="after")
    def _weight_for_each(self) -> FusionConfig:
        if self.weights is not None and (
            len(self.weights) != 1 + len(self.of) or any(weight < 0 for weight in self.weights)
        ):
            raise ValueError(
                f"weights are {1 + len(self.of)} numbers >= 0: of `globals`, then of each of `of`"
            )
        if len(self.blocks) < len(self.of):
            raise ValueError("the same descriptor twice: give it more weight instead")
        return self

    @property
    def blocks(self) -> dict[str, dict[str, Any] | str]:
        """The further extractors by a key that is the same for the same block."""
        return {json.dumps(block, sort_keys=True): block for block in self.of}


Reranking = Literal["d2r", "delg", "example", "ratio"]
#: The three parameter sets of tensorflow/models research/delf (delf/python): detect_to_retrieve's
#: image_reranking.py (published without a seed), delg's perform_retrieval.py, examples/match_images.py.
#: Their bounds are distances of DELF descriptors. `ratio` is our own, for SIFT and what is
#: not measured (docs/retrieval.md).
RERANKINGS: dict[str, dict[str, Any]] = {
    "d2r": {"max_distance": 0.9, "residual_px": 10.0},
    "delg": {"max_distance": 1.0, "residual_px": 20.0},
    "example": {"max_distance": 0.8, "residual_px": 20.0},
    "ratio": {
        "max_distance": None,
        "ratio": 0.85,
        "mutual": True,
        "residual_px": 10.0,
        "max_keypoints": 2000,
        "min_inliers": 8,
    },
}
#: What suits local features, by the name of their extractor; others: `ratio`.
_SUITED: dict[str, Reranking] = {
    "delf": "example",
    "delf_ots": "example",
    "delg": "delg",
    "d2net": "d2r",
    "aliked": "d2r",
}


def suited_reranking(features_name: str) -> Reranking:
    """The parameter set by which local features of an extractor are verified unless another is asked for.

    >>> suited_reranking("delf_ots"), suited_reranking("sift"), suited_reranking("d2net")
    ('example', 'ratio', 'd2r')
    """
    return _SUITED.get(features_name, "ratio")


class RerankConfig(Section):
    """Best images reordered by matches that agree with an affine map (:mod:`loc.retrieval.verification`).

    A bare name is a preset: ``rerank: delg`` is ``rerank: {use: delg}``.
    """

    use: Reranking = Field(
        "d2r",
        description="published values, for DELF: d2r 0.9 and 10 px, delg 1.0 and 20 px, example 0.8 and "
        "20 px; our own: ratio (of 0.85, mutual)",
    )
    candidates: int = Field(100, ge=1, description="images that are verified; the rest keep their order")
    max_distance: float | None = Field(
        0.9, gt=0, description="between unit descriptors of a match; null: none. By `use`"
    )
    ratio: float | None = Field(
        None, gt=0, le=1, description="nearest below this times the second nearest; null: any. By `use`"
    )
    mutual: bool = Field(
        False, description="either descriptor of a match is the nearest of the other. By `use`"
    )
    residual_px: float = Field(
        10.0, gt=0, description="of an inlier, px of the query shrunk to 1024 px or less. By `use`"
    )
    trials: int = Field(1000, ge=1, description="samples of three matches")
    seed: int = Field(0, ge=0, description="of the samples")
    max_keypoints: int | None = Field(
        1000,
        ge=1,
        description="first keypoints of an image that are matched (DELF has 1000); null: all. By `use`",
    )
    min_inliers: int = Field(
        0,
        ge=0,
        description="images with fewer keep their order: so many agree by chance. By `use`",
    )

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"use": data}
        if isinstance(data, dict):
            return RERANKINGS.get(str(data.get("use", "d2r")), {}) | data
        return data
