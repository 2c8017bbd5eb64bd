"""Geometry of two photos from matches alone, robustly: which matches agree with it.

D. Barath et al., MAGSAC++, CVPR 2020; OpenCV's. Seeded, one thread: the same matches give the same result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

Array = np.ndarray
_CONFIDENCE = 0.9999
_TRIALS = 100_000
#: The fewest matches that an estimate is made of.
_LEAST_FUNDAMENTAL = 8
_LEAST_HOMOGRAPHY = 5


def fundamental_matrix(
    first: Float64[Array, "n 2"], second: Float64[Array, "n 2"], *, max_error_px: float = 3.0, seed: int = 0
) -> tuple[Float64[Array, "3 3"] | None, Bool[Array, " n"]]:
    """The matrix ``F`` with ``second^T F first = 0`` for most matches, and which they are.

    Args:
        max_error_px: largest error of a match.
    """
    import cv2

    none = np.zeros(len(first), bool)
    if len(first) < _LEAST_FUNDAMENTAL:
        return None, none
    matrix, inliers = cv2.findFundamentalMat(first, second, _parameters(max_error_px, seed))
    return _checked(matrix, inliers, none)


def homography(
    first: Float64[Array, "n 2"], second: Float64[Array, "n 2"], *, max_error_px: float = 3.0, seed: int = 0
) -> tuple[Float64[Array, "3 3"] | None, Bool[Array, " n"]]:
    """The matrix ``H`` with ``second = H first`` for most matches, and which they are."""
    import cv2

    none = np.zeros(len(first), bool)
    if len(first) < _LEAST_HOMOGRAPHY:
        return None, none
    matrix, inliers = cv2.findHomography(first, second, _parameters(max_error_px, seed))
    return _checked(matrix, inliers, none)


def _parameters(max_error_px: float, seed: int) -> Any:
    import cv2

    params = cv2.UsacParams()
    params.threshold, params.confidence, params.maxIterations = max_error_px, _CONFIDENCE, _TRIALS
    params.randomGeneratorState, params.isParallel = seed, False
    params.sampler, params.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MAGSAC
    params.loMethod, params.loIterations, params.loSampleSize = cv2.LOCAL_OPTIM_SIGMA, 10, 50
    params.final_polisher = cv2.MAGSAC
    return params


def _checked(
    matrix: Any, inliers: Any, none: Bool[Array, " n"]
) -> tuple[Float64[Array, "3 3"] | None, Bool[Array, " n"]]:
    if matrix is None or matrix.shape != (3, 3):
        return None, none
    return np.asarray(matrix, np.float64), inliers.ravel().astype(bool)
