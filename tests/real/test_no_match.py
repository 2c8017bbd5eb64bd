"""Queries without a match on real photographs: told from those with one, on places that are left out."""

from __future__ import annotations

import numpy as np

from loc.bench.rejection import asked_of, photos_of
from loc.config.ranking import RerankConfig
from loc.metrics.decisions import roc_curve
from loc.retrieval.calibration import calibrate
from loc.runtime.runtime import Runtime

#: Small photos, so that it is quick.
FEATURES = {"use": "sift", "resize_max": 256}


def test_wrong_best_images_are_rejected(shared, tmp_path, say) -> None:
    runtime = Runtime(device="cpu", workers=1)
    data = shared / "data"
    photos = photos_of(data / "retrieval_mini", None, data / "vpr_toy", ("fountain,entry",))
    assert len(photos.photos) == 103
    quick = RerankConfig(trials=300, max_keypoints=500)
    ((_, _, asked),) = asked_of(
        photos, ["vlad"], FEATURES, quick, per_place=3, workdir=tmp_path, runtime=runtime
    )
    labels = np.array([each.right for each in asked])
    found = calibrate(
        [each.evidence for each in asked],
        labels.tolist(),
        [each.place for each in asked],
        answers=[each.answer for each in asked],
        max_false_accept=0.1,
    )
    auc = roc_curve(found.scores, labels).auc
    rates = found.accepted[labels].mean(), found.accepted[~labels].mean()
    say(f"rejection, held out: AUC {auc:.3f}, {rates[0]:.1%} of right, {rates[1]:.1%} of wrong ones accepted")
    assert labels.sum() >= 15
    assert auc >= 0.95
    assert rates[0] >= 0.75
    assert rates[1] <= 0.15
