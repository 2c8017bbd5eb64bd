"""ASMK, ASMK*, R-ASMK and R-ASMK* over the run's own local features, as a global extractor.

G. Tolias, Y. Avrithis and H. Jégou, To Aggregate or Not to Aggregate: Selective Match Kernels for Image
Search, ICCV 2013; M. Teichmann et al., Detect-to-Retrieve, CVPR 2019 (regions).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32, Int, Int64
from pydantic import Field, model_validator

from loc.errors import DataError, PluginError, StoreError
from loc.plugins.protocols import Arrays, PluginConfig, WeightFile
from loc.retrieval.asmk.aggregate import Signature, mean_of_regions, residuals, signature
from loc.retrieval.asmk.boxes import BoxFinder, RegionsConfig, box_finder, inside_each, source_of_boxes
from loc.retrieval.asmk.inverted import InvertedFile, decode, encode
from loc.retrieval.asmk.kernel import Kernel
from loc.retrieval.asmk.local import LocalSpace, learned_space, sampled, unit_rows
from loc.retrieval.asmk.words import Codebook, train_words
from loc.runtime.images import content_hash
from loc.types import LocalFeatures
from loc.weights.tensorflow.codebooks import codebook_files, codebook_path, open_codebook

Array = np.ndarray
_STATE_KEYS = ("center", "projection", "codebook")
#: Options of learning.
_LEARNING = ("words", "dim", "train_descriptors", "iterations", "seed")
#: Words of the published codebooks, and descriptors for each of them below which there are fewer words.
_MOST_WORDS, _ROWS_PER_WORD = 65_536, 16


class AsmkConfig(RegionsConfig):
    """Options of :class:`Asmk`."""

    words: int | None = Field(
        None, ge=1, le=2**20, description="visual words; null: 65,536, or one for 16 descriptors"
    )
    codebook: str | None = Field(
        None,
        description="words that are there already, of descriptors without PCA: a release"
        " (rparis6k_codebook_65536, roxford5k_…), or a file .npy (words, d) or .safetensors",
    )
    dim: int | None = Field(128, ge=1, description="PCA of descriptors to so many values; null: none")
    max_keypoints: int | None = Field(1000, ge=1, description="keypoints per image, by score; null: all")
    binary: bool = Field(True, description="a bit per value (ASMK*): 16 bytes a word instead of 512")
    assignments: int = Field(1, ge=1, description="words of a descriptor in the index")
    query_assignments: int = Field(5, ge=1, description="words of a descriptor of a query")
    alpha: float = Field(3.0, gt=0, description="exponent of the similarity of two words' codes")
    tau: float = Field(0.0, ge=-1, lt=1, description="what is not above it counts as 0")
    normalize: bool = Field(
        True, description="divide by the root of both numbers of words; off in the published R-ASMK*"
    )
    train_descriptors: int = Field(500_000, ge=1, description="random sample that the words are learned from")
    iterations: int = Field(20, ge=1, description="of k-means")
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _codebook_as_it_is(cls, given: Any) -> Any:
        """With a codebook nothing is learned, and what says how is refused."""
        if not isinstance(given, dict) or given.get("codebook") is None:
            return given
        learned = [name for name in _LEARNING if given.get(name) is not None]
        if learned:
            raise ValueError(f"with a codebook nothing is learned: leave out {', '.join(learned)}")
        return {**given, "dim": None}


class Asmk:
    """Signatures of images in place of rows of numbers, and the ranking that goes with them.

    Descriptors (float or uint8) are L2-normalised, reduced by PCA, and normalised again. A row is what
    :func:`loc.retrieval.asmk.inverted.encode` makes, ``(n,)`` uint8 of a length of its own.
    """

    Config: ClassVar[type[PluginConfig]] = AsmkConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    commercial_ok: ClassVar[bool] = True
    paper: ClassVar[str] = "G. Tolias, Y. Avrithis and H. Jégou, Selective Match Kernels, ICCV 2013"
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    source: ClassVar[Literal["image", "features"]] = "features"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    min_side: ClassVar[int] = 1
    needs_fit: ClassVar[bool] = True

    def __init__(self, config: AsmkConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        del device, dtype  # NumPy and faiss on the host
        self.config = config
        self._space: LocalSpace | None = None
        self._codebook: Codebook | None = None
        if config.codebook is not None:
            self._codebook = Codebook(open_codebook(config.codebook))

    @classmethod
    def learns(cls, config: AsmkConfig) -> bool:
        """Whether a configuration learns its words."""
        return config.codebook is None

    @classmethod
    def weights_for(cls, config: AsmkConfig) -> tuple[WeightFile, ...]:
        """The released codebook that a configuration names, if it does."""
        return () if config.codebook is None else codebook_files(config.codebook)

    def fit(self, inputs: Iterable[LocalFeatures]) -> Arrays:
        """Learn the PCA and the codebook from the database images, in order of their names.

        With a codebook from a file it returns no array.

        Raises:
            DataError: no image has a descriptor.
            ContractError: descriptors of several dimensions.
        """
        options = self.config
        if options.codebook is not None:
            return {}
        rows = sampled(inputs, options.train_descriptors, best=options.max_keypoints, seed=options.seed)
        if not len(rows):
            raise DataError(
                "asmk has nothing to learn from: no image has keypoints",
                "check that the photos can be read and are not blank",
            )
        if options.words is not None and 1 < len(rows) <= options.words:
            raise DataError(
                f"asmk cannot learn {options.words} words from {len(rows)} descriptors: each would be a word"
                " of its own, and no image would be found",
                f"set globals.words=null, or at most {max(1, len(rows) // _ROWS_PER_WORD)}",
            )
        space = learned_space(rows, options.dim)
        count = options.words or max(1, min(_MOST_WORDS, len(rows) // _ROWS_PER_WORD))
        words = train_words(space(rows), count, iterations=options.iterations, seed=options.seed)
        return {"center": space.center, "projection": space.projection, "codebook": words}

    def load_state(self, state: Arrays) -> None:
        """Take what :meth:`fit` returned, or a codebook from elsewhere with the PCA that goes with it.

        Raises:
            StoreError: an array is missing, or their shapes do not fit together.
        """
        if self.config.codebook is not None:
            return
        missing = [key for key in _STATE_KEYS if key not in state]
        if missing:
            raise StoreError(f"the state of asmk lacks {', '.join(missing)}", "fit it again")
        center, projection, words = (state[key] for key in _STATE_KEYS)
        if words.ndim != 2 or projection.shape != (len(center), words.shape[1]):
            shapes = ", ".join(f"{key} {state[key].shape}" for key in _STATE_KEYS)
            raise StoreError(f"the arrays of asmk's state do not fit together: {shapes}", "fit it again")
        self._space, self._codebook = LocalSpace(center, projection), Codebook(words)

    def __call__(self, inputs: Sequence[LocalFeatures]) -> list[Array]:
        """The signatures of each image for the index and as a query; none where it has no keypoints.

        Raises:
            PluginError: no state has been loaded.
            ContractError: descriptors of another dimension than the fitted ones.
            DataError: or than the words of a file.
        """
        if self._codebook is None:
            raise PluginError("asmk has no codebook yet", "call fit, then load_state with its result")
        return [self._row(features, self._codebook) for features in inputs]

    def _row(self, features: LocalFeatures, codebook: Codebook) -> Array:
        options = self.config
        best = np.argsort(-features.scores, kind="stable")[: options.max_keypoints]
        if not len(best):
            nothing = self._kind(signature(residuals(np.zeros((0, codebook.dim), np.float32), codebook)))
            return encode(nothing, nothing)
        rows = unit_rows(features.descriptors[best])
        if self._space is not None:
            rows = self._space(rows)
        elif rows.shape[1] != codebook.dim:
            raise DataError(
                f"the words of the codebook {options.codebook} have {codebook.dim} values, the descriptors"
                f" {rows.shape[1]}",
                "use the features that it was learned on (those of Detect-to-Retrieve: features=delf_gld), or"
                " drop globals.codebook to learn one on yours",
            )
        parts = inside_each(features, best, options)
        index = residuals(rows, codebook, assignments=options.assignments)
        if parts:
            regions = [rows, *(rows[part] for part in parts)]
            index = mean_of_regions(regions, codebook, assignments=options.assignments)
        query = residuals(rows, codebook, assignments=options.query_assignments)
        return encode(self._kind(signature(index)), self._kind(signature(query)))

    def _kind(self, found: Signature) -> Signature:
        return found.signs() if self.config.binary else found

    @classmethod
    def inputs(cls, config: AsmkConfig) -> dict[str, Any]:
        """What the fingerprint says of the boxes, and of a codebook that is no release."""
        path = None if config.codebook is None else codebook_path(config.codebook)
        return source_of_boxes(config) | ({} if path is None else {"codebook": content_hash(path)})

    @classmethod
    def boxes(cls, config: AsmkConfig) -> BoxFinder | None:
        """What finds the boxes of a photo, if anything does."""
        return box_finder(config)

    @classmethod
    def ranking(cls, config: AsmkConfig, database: Array) -> AsmkRanking:
        """The ranking of images by rows that this plug-in made."""
        return AsmkRanking(database, config)


class AsmkRanking:
    """An inverted file of database images, ready for queries."""

    def __init__(self, database: Array, config: AsmkConfig) -> None:
        """Index rows of :class:`Asmk`, ``(n,)`` objects; one without bytes is never found.

        Raises:
            ContractError: a row is none of them.
        """
        self._size = len(database)
        self._image_of = np.array([row for row, each in enumerate(database) if each.size], np.int64)
        self._file = InvertedFile([decode(database[row])[0] for row in self._image_of])
        self._kernel = Kernel(alpha=config.alpha, tau=config.tau, normalize=config.normalize)

    def __call__(
        self, queries: Array, k: int, *, exclude: Int[Array, "e 2"] | None = None
    ) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]:
        """The ``min(k, n)`` best images per query and their scores, best first, ties by number.

        An image that shares no word with a query is not found; -1 and -inf fill short rows.

        Args:
            exclude: ``(query row, database row)`` that must not appear.
        """
        width = min(k, self._size)
        out = np.full((len(queries), width), -1, np.int64)
        best = np.full(out.shape, -np.inf, np.float32)
        for row, query in enumerate(queries):
            if not query.size:
                continue
            found = self._file.search(decode(query)[1], self._kernel)
            images, wanted = self._image_of[found.images], found.scores > 0
            if exclude is not None:
                wanted &= ~np.isin(images, exclude[exclude[:, 0] == row, 1])
            images, scores = images[wanted], found.scores[wanted]
            order = np.argsort(-scores, kind="stable")[:width]
            out[row, : len(order)], best[row, : len(order)] = images[order], scores[order]
        return out, best


__all__ = ["Asmk", "AsmkConfig", "AsmkRanking"]
