"""VLAD and R-VLAD as published with Detect-to-Retrieve (Teichmann et al., CVPR 2019), as a global extractor.

The extractor `vlad` has the refinements that came later; this one has regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from loc.errors import DataError, PluginError, StoreError
from loc.plugins.protocols import Arrays, PluginConfig, WeightFile
from loc.retrieval.asmk.aggregate import mean_of_regions, residuals
from loc.retrieval.asmk.boxes import BoxFinder, RegionsConfig, box_finder, inside_each, source_of_boxes
from loc.retrieval.asmk.local import sampled, unit_rows
from loc.retrieval.asmk.words import Codebook, train_words
from loc.types import LocalFeatures

Array = np.ndarray


class RvladConfig(RegionsConfig):
    """Options of :class:`Rvlad`."""

    regions: Literal["none", "rmac", "boxes", "detector"] = "rmac"
    words: int = Field(64, ge=1, le=4096, description="visual words; the descriptor has words * d values")
    assignments: int = Field(1, ge=1, description="words of a descriptor")
    max_keypoints: int | None = Field(1000, ge=1, description="keypoints per image, by score; null: all")
    train_descriptors: int = Field(100_000, ge=1, description="random sample that the words are learned from")
    seed: int = Field(0, ge=0)


class Rvlad:
    """The mean over regions of their normalised VLADs, L2-normalised; with ``regions: none`` plain VLAD.

    Local descriptors (float or uint8) are L2-normalised and nothing else.
    """

    Config: ClassVar[type[PluginConfig]] = RvladConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    commercial_ok: ClassVar[bool] = True
    paper: ClassVar[str] = "M. Teichmann et al., Detect-to-Retrieve, CVPR 2019"
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    source: ClassVar[Literal["image", "features"]] = "features"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    min_side: ClassVar[int] = 1
    needs_fit: ClassVar[bool] = True

    def __init__(self, config: RvladConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        del device, dtype  # NumPy and faiss on the host
        self.config = config
        self._codebook: Codebook | None = None

    def fit(self, inputs: Iterable[LocalFeatures]) -> Arrays:
        """Learn the words from the database images, in order of their names.

        Raises:
            DataError: no image has a descriptor.
        """
        options = self.config
        rows = sampled(inputs, options.train_descriptors, best=options.max_keypoints, seed=options.seed)
        if not len(rows):
            raise DataError(
                "rvlad has nothing to learn from: no image has keypoints",
                "check that the photos can be read and are not blank",
            )
        return {"codebook": train_words(rows, options.words, seed=options.seed)}

    def load_state(self, state: Arrays) -> None:
        """Take what :meth:`fit` returned, or a codebook from elsewhere.

        Raises:
            StoreError: there is none.
        """
        if "codebook" not in state:
            raise StoreError("the state of rvlad lacks codebook", "fit it again")
        self._codebook = Codebook(state["codebook"])

    def __call__(self, inputs: Sequence[LocalFeatures]) -> Float32[Array, "b d"]:
        """One row of unit norm per image; zeros where it has no keypoints.

        Raises:
            PluginError: no state has been loaded.
            ContractError: descriptors of another dimension than the words.
        """
        if self._codebook is None:
            raise PluginError("rvlad has no codebook yet", "call fit, then load_state with its result")
        rows = [self._row(features, self._codebook) for features in inputs]
        return np.stack(rows) if rows else np.zeros((0, self._codebook.words.size), np.float32)

    @classmethod
    def inputs(cls, config: RvladConfig) -> dict[str, Any]:
        """What the fingerprint says of the boxes."""
        return source_of_boxes(config)

    @classmethod
    def boxes(cls, config: RvladConfig) -> BoxFinder | None:
        """What finds the boxes of a photo, if anything does."""
        return box_finder(config)

    def _row(self, features: LocalFeatures, codebook: Codebook) -> Float32[Array, " d"]:
        options = self.config
        best = np.argsort(-features.scores, kind="stable")[: options.max_keypoints]
        if not len(best):
            return np.zeros(codebook.words.size, np.float32)
        rows = unit_rows(features.descriptors[best])
        if options.regions == "none":
            return residuals(rows, codebook, assignments=options.assignments).normalized().dense()
        regions = [rows, *(rows[part] for part in inside_each(features, best, options))]
        return mean_of_regions(regions, codebook, assignments=options.assignments).normalized().dense()
