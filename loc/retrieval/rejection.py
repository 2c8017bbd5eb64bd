"""Is a query's best image of its place at all? A score with a threshold that was measured, not guessed.

A retrieval always has a best image, also for a photo of a place that the database has never seen. What
verification leaves of it (inliers, similarity) is turned into the probability that it is right by a logistic
model whose weights have a fixed sign: more evidence never lowers the score. Below the threshold the answer is
"no match". :mod:`loc.retrieval.calibration` fits both on photos whose places are known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from loc.config.ranking import RerankConfig
from loc.errors import ConfigError, DataError
from loc.plugins.blocks import ResolvedPlugin, StageOptions
from loc.retrieval.verification import Verified
from loc.types import LocalFeatures

Array = np.ndarray
#: What each value of the evidence may do to the score: +1 only raise it, -1 only lower it.
SIGNS = (1, 1, 1, 1, -1)
#: Best images that the generic rule accepts have at least so many inliers: one in twenty wrong ones has them
#: with the features that let most through (``loc bench rejection``, verification d2r).
GENERIC_INLIERS = 35
#: A calibration holds for features with at least so many keypoints per image (docs/retrieval.md).
FEWEST_KEYPOINTS = 1000
_FORMAT, _VERSION = "loc rejection", 1
#: Options of plug-ins that change no numbers worth a calibration of their own.
_NOT_THE_METHOD = ("precision", "accept_license")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Evidence:
    """What speaks for the best image of a query, after verification.

    Attributes:
        similarity: of the best image's global descriptor to the query's.
        margin: that similarity less the median of those of all candidates: how far the best image stands out.
            0 with one candidate.
        inliers: of the best image.
        second_inliers: most inliers of any other image: a second photo of the place, or chance.
        query_keypoints: of the query that took part: the more, the more inliers there are by chance.
    """

    similarity: float
    margin: float
    inliers: int
    second_inliers: int
    query_keypoints: int

    @staticmethod
    def of(ranked: Sequence[tuple[float, int]], query_keypoints: int) -> Evidence:
        """The evidence of a ranking after verification.

        Args:
            ranked: similarity and inliers of every candidate, best first by the final ranking; images that
                were not verified have 0 inliers.
        """
        if not ranked:
            return Evidence(0.0, 0.0, 0, 0, query_keypoints)
        similarity, inliers = ranked[0]
        middle = float(np.median([each for each, _ in ranked]))
        second = max((count for _, count in ranked[1:]), default=0)
        return Evidence(float(similarity), float(similarity) - middle, int(inliers), second, query_keypoints)

    @staticmethod
    def of_reranked(
        query: LocalFeatures, ranked: Sequence[tuple[Any, float, Verified | None]], config: RerankConfig
    ) -> Evidence:
        """The evidence of what :func:`loc.retrieval.verification.rerank` returned for a query."""
        found = [(score, 0 if verified is None else verified.inliers) for _, score, verified in ranked]
        return Evidence.of(found, keypoints_used(len(query), config))

    def values(self) -> Float64[Array, " v"]:
        """What the model weighs: counts enter by their logarithm."""
        counts = np.log1p([self.inliers, self.second_inliers, self.query_keypoints])
        return np.array([self.similarity, self.margin, *counts], np.float64)


@dataclass(frozen=True)
class Rejection:
    """When the best image of a query is taken for an answer.

    Attributes:
        weights: of similarity, margin, log(1 + inliers), log(1 + second_inliers) and log(1 +
            query_keypoints); none has the wrong sign (:data:`SIGNS`).
        intercept: added to them; the logistic function of the sum is the score.
        threshold: scores above it are accepted.
        globals_name, features_name, rerank: what made the evidence (:func:`method_name`,
            :func:`rerank_name`); empty for the rule that fits any.
        provenance: where it was calibrated and how well it does there, for reading.
    """

    weights: tuple[float, ...]
    intercept: float
    threshold: float
    globals_name: str = ""
    features_name: str = ""
    rerank: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (*self.weights, self.intercept, self.threshold)
        if len(self.weights) != len(SIGNS) or not all(math.isfinite(each) for each in numbers):
            raise DataError(f"a rejection has {len(SIGNS)} finite weights, an intercept and a threshold")
        if any(weight * sign < 0 for weight, sign in zip(self.weights, SIGNS, strict=True)):
            raise DataError("a weight has the wrong sign: more evidence would lower the score")
        if not 0 <= self.threshold <= 1:
            raise DataError(f"the threshold {self.threshold:g} is no probability")

    @property
    def calibrated(self) -> bool:
        """Whether it was measured for what makes the evidence, or is the generic rule."""
        return bool(self.globals_name)

    @property
    def note(self) -> str:
        """Where the threshold comes from, one line to print beside results."""
        if not self.calibrated:
            return f"at least {GENERIC_INLIERS} inliers: not calibrated for this combination"
        where = self.provenance.get("set", "photos of known places")
        return f"calibrated on {where}, score above {self.threshold:.3f}"

    def score(self, evidence: Evidence) -> float:
        """Probability in [0, 1] that the best image is right, where half of the queries have a right one."""
        total = self.intercept + evidence.values() @ np.array(self.weights)
        return float(logistic(np.array([total]))[0])

    def accepts(self, evidence: Evidence) -> bool:
        """Whether the best image is an answer; one without inliers never is."""
        return evidence.inliers > 0 and self.score(evidence) > self.threshold

    def require(self, *, globals_name: str, features_name: str, rerank: str) -> None:
        """Check that it was calibrated for the evidence of an index.

        Raises:
            ConfigError: other descriptors, features or verification made the index's.
        """
        if not self.calibrated:
            return
        other = [
            f"{what} {mine} and not {theirs}"
            for what, mine, theirs in (
                ("globals", self.globals_name, globals_name),
                ("features", self.features_name, features_name),
                ("rerank", self.rerank, rerank),
            )
            if mine != theirs
        ]
        if other:
            raise ConfigError(
                f"the calibration is of another method than the index: {', '.join(other)}",
                f"use it with an index of {self.globals_name} and {self.features_name}, and --rerank "
                f"{self.rerank}; loc bench rejection --save FILE makes one of its own",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, which :meth:`from_json` reads."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"format": _FORMAT, "version": _VERSION, **values, "weights": list(self.weights)}

    @staticmethod
    def from_json(data: Any, *, source: str = "the calibration") -> Rejection:
        """Validate what :meth:`to_json` made.

        Raises:
            DataError: it is something else, of a newer version, or holds what cannot be.
        """
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise _unusable(source, f"its format is not {_FORMAT!r}")
        if data.get("version") != _VERSION:
            raise _unusable(source, f"it is of version {data.get('version')!r}, and this reads {_VERSION}")
        names = {each.name for each in fields(Rejection)}
        if set(data) != {*names, "format", "version"}:
            odd = sorted(map(str, set(data) ^ {*names, "format", "version"}))
            raise _unusable(source, f"missing or unknown: {', '.join(odd)}")
        weights, texts = data["weights"], ("globals_name", "features_name", "rerank")
        if not isinstance(weights, list) or not all(
            _is_number(each) for each in (*weights, data["intercept"], data["threshold"])
        ):
            raise _unusable(source, "weights, intercept or threshold are no numbers")
        if not all(isinstance(data[name], str) for name in texts) or not isinstance(data["provenance"], dict):
            raise _unusable(source, "names are no text, or the provenance is no object")
        try:
            return Rejection(
                weights=tuple(float(each) for each in weights),
                intercept=float(data["intercept"]),
                threshold=float(data["threshold"]),
                provenance=data["provenance"],
                **{name: data[name] for name in texts},
            )
        except DataError as error:
            raise _unusable(source, error.message) from error

    @staticmethod
    def read(path: Path) -> Rejection:
        """The calibration in a file that ``loc bench rejection --save`` wrote.

        Raises:
            DataError: it cannot be read, or is none.
        """
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise _unusable(str(path), "it is larger than any calibration")
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
        except (ValueError, RecursionError) as error:
            raise _unusable(str(path), f"it is no JSON ({error})") from error
        found = Rejection.from_json(data, source=str(path))
        if not found.calibrated:  # it would pass for the rule that fits any
            raise _unusable(str(path), "it does not say which globals and features it is for")
        return found


def method_name(plugin: ResolvedPlugin, *, without: str = "") -> str:
    """A plug-in by its name and the options that differ from its defaults, as calibrations name it.

    The same method has the same name however a config spells it: as a preset, a block, or by its defaults.

    Args:
        without: an option that is left out.
    """
    options = plugin.config.model_dump(mode="json", exclude_defaults=True)
    usual = StageOptions().model_dump(mode="json") | getattr(plugin.cls, "stage_defaults", {})
    options |= {name: value for name, value in plugin.stage_options.items() if value != usual.get(name)}
    told = [f"{name}={options[name]}" for name in sorted(options) if name not in (*_NOT_THE_METHOD, without)]
    return f"{plugin.name} ({', '.join(told)})" if told else plugin.name


def rerank_name(config: RerankConfig) -> str:
    """Verification by its preset and the options that differ from it, as calibrations name it.

    How many candidates are verified is no part of it.

    >>> rerank_name(RerankConfig(use="delg", candidates=20)), rerank_name(RerankConfig(ratio=0.9))
    ('delg', 'd2r (ratio=0.9)')
    """
    preset, own = (each.model_dump(exclude={"candidates"}) for each in (RerankConfig(use=config.use), config))
    told = [f"{name}={value}" for name, value in sorted(own.items()) if value != preset[name]]
    return f"{config.use} ({', '.join(told)})" if told else config.use


def keypoints_used(count: int, config: RerankConfig) -> int:
    """How many keypoints of an image with ``count`` take part in verification."""
    return count if config.max_keypoints is None else min(count, config.max_keypoints)


def generic() -> Rejection:
    """The rule for combinations that nobody has calibrated: :data:`GENERIC_INLIERS` inliers or more."""
    return Rejection((0.0, 0.0, 4.0, 0.0, 0.0), -4.0 * math.log(GENERIC_INLIERS + 0.5), 0.5)


def shipped(globals_name: str, features_name: str, rerank: str = "d2r") -> Rejection | None:
    """The calibration that comes with the package for a combination, by :func:`method_name`; None without."""
    return _shipped().get((globals_name, features_name, rerank))


def shipped_for(globals_name: str, features: ResolvedPlugin, config: RerankConfig) -> Rejection | None:
    """The calibration that comes with the package for what makes the evidence of an index; None without.

    It counts for any ``max_keypoints`` of the features from :data:`FEWEST_KEYPOINTS` on, and says so:
    verification looks at the first ones only, and fewer of them lower the score.
    """
    rerank = rerank_name(config)
    if found := shipped(globals_name, method_name(features), rerank):
        return found
    found = shipped(globals_name, method_name(features, without="max_keypoints"), rerank)
    most = getattr(features.config, "max_keypoints", None)
    if found is None or (most is not None and most < FEWEST_KEYPOINTS):
        return None
    where = f"{found.provenance.get('set')} with another max_keypoints"
    return replace(found, provenance={**found.provenance, "set": where})


@cache
def _shipped() -> dict[tuple[str, str, str], Rejection]:
    text = resources.files("loc.retrieval").joinpath("calibrations.json").read_text(encoding="utf-8")
    found = [Rejection.from_json(each, source="calibrations.json") for each in json.loads(text)]
    return {(each.globals_name, each.features_name, each.rerank): each for each in found}


def logistic(x: Float64[Array, " n"]) -> Float64[Array, " n"]:
    """``1 / (1 + exp(-x))`` without overflow."""
    small = np.exp(-np.abs(x))
    out: Array = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _unusable(source: str, why: str) -> DataError:
    return DataError(f"{source} is no usable calibration: {why}", "make it again: loc bench rejection --save")
