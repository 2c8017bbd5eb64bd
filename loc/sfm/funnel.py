"""The funnel: how far every image came on its way into the map, and why it fell where it fell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loc.stores.files import read_json, write_json

#: The last step an image reached its limit at; ``registered`` is the one that did not fall.
STEPS = ("unreadable", "keypoints", "matches", "verification", "registration", "registered")
#: Share of right matches in a weak pair, as COLMAP's RANSAC assumes. An image without a verified pair
#: fell at its matches, not at their verification, if even that share of its best pair would not do:
#: chance alone gives 10 to 45 matches between a piece of sky and a photo (ratio 0.9).
_WEAK_SHARE = 0.25


@dataclass(frozen=True)
class ImageFunnel:
    """One image on its way into the map.

    Attributes:
        keypoints: number of keypoints.
        pairs: pairs the image is in.
        best_matches: matches of its best pair; ``matches``: over all its pairs.
        verified_pairs: pairs that passed verification.
        verified_matches: over all verified pairs.
        points: 3-D points it sees.
        step: where it fell (one of :data:`STEPS`), or ``registered``.
        reason: a sentence for people, empty if registered.
    """

    name: str
    keypoints: int
    pairs: int
    best_matches: int
    matches: int
    verified_pairs: int
    verified_matches: int
    points: int
    step: str
    reason: str


class FunnelCounter:
    """Collects counts while pairs stream by; :meth:`finish` judges every image.

    Args:
        keypoints: image → number of keypoints.
        unreadable: image → why it has no features.
        min_num_inliers: verified matches a pair needs.
    """

    def __init__(
        self, keypoints: dict[str, int], unreadable: dict[str, str], *, min_num_inliers: int
    ) -> None:
        self._keypoints, self._unreadable, self._minimum = keypoints, unreadable, min_num_inliers
        zeros = dict.fromkeys(keypoints, 0)
        self._pairs, self._best, self._matches = dict(zeros), dict(zeros), dict(zeros)
        self._verified_pairs, self._verified = dict(zeros), dict(zeros)
        self.pairs_with_matches = 0
        self.pairs_verified = 0

    def matched(self, first: str, second: str, count: int) -> None:
        """Record the matches of a pair."""
        self.pairs_with_matches += count > 0
        for name in (first, second):
            self._pairs[name] += 1
            self._matches[name] += count
            self._best[name] = max(self._best[name], count)

    def verified(self, first: str, second: str, count: int) -> None:
        """Record the verified matches of a pair (0: it was dropped)."""
        if count == 0:
            return
        self.pairs_verified += 1
        for name in (first, second):
            self._verified_pairs[name] += 1
            self._verified[name] += count

    def finish(
        self, points: dict[str, int], *, elsewhere: dict[str, int] | None = None
    ) -> tuple[ImageFunnel, ...]:
        """One row per image, sorted by name.

        Args:
            points: registered image → 3-D points it sees.
            elsewhere: image → size of another model it was registered in.
        """
        rows = []
        for name in sorted({*self._keypoints, *self._unreadable}):
            step, reason = self._judge(name, name in points, (elsewhere or {}).get(name))
            rows.append(
                ImageFunnel(
                    name,
                    self._keypoints.get(name, 0),
                    self._pairs.get(name, 0),
                    self._best.get(name, 0),
                    self._matches.get(name, 0),
                    self._verified_pairs.get(name, 0),
                    self._verified.get(name, 0),
                    points.get(name, 0),
                    step,
                    reason,
                )
            )
        return tuple(rows)

    def _judge(self, name: str, registered: bool, other_size: int | None) -> tuple[str, str]:
        if registered:
            return "registered", ""
        if name in self._unreadable:
            return "unreadable", self._unreadable[name]
        if self._keypoints[name] == 0:
            return "keypoints", "no keypoints were found: the image may be blank, or hidden by its mask"
        if self._pairs[name] == 0:
            return "matches", "it is in no pair: give it pairs (pairs: …) or more retrieved images"
        if self._verified_pairs[name] == 0 and self._best[name] < self._minimum / _WEAK_SHARE:
            return "matches", (
                f"its best of {self._pairs[name]} pairs has {self._best[name]} matches, too few to hold the "
                f"{self._minimum} right ones a pair needs: it may show something else, or too little texture"
            )
        if self._verified_pairs[name] == 0:
            return "verification", (
                f"none of its {self._pairs[name]} pairs has {self._minimum} matches that agree with one "
                f"geometry (best: {self._best[name]} matches before verification)"
            )
        if other_size is not None:
            return (
                "registration",
                f"it belongs to another model, of {other_size} images, that did not connect",
            )
        return "registration", (
            f"{self._verified[name]} verified matches in {self._verified_pairs[name]} pairs, but too few "
            "agree with the points of the map"
        )


def step_counts(rows: Iterable[ImageFunnel]) -> dict[str, int]:
    """How many images ended at each step; the counts add up to the number of images."""
    counts = dict.fromkeys(STEPS, 0)
    for row in rows:
        counts[row.step] += 1
    return counts


def write_funnel(path: Path, rows: tuple[ImageFunnel, ...], *, pairs: dict[str, int]) -> None:
    """Write ``funnel.json``: ``images`` (a row each), ``steps`` (counts), ``pairs`` (counts)."""
    write_json(path, {"images": [asdict(row) for row in rows], "steps": step_counts(rows), "pairs": pairs})


def read_funnel(path: Path) -> tuple[tuple[ImageFunnel, ...], dict[str, Any]]:
    """Rows and the counts of pairs of a ``funnel.json``."""
    data = read_json(path)
    return tuple(ImageFunnel(**row) for row in data["images"]), dict(data["pairs"])
