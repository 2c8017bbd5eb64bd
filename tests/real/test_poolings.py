"""Poolings of off-the-shelf VGG-16 on real photographs: mean average precision, small photos, one scale."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from loc.globals.gem import Gem
from loc.globals.pooling import Crow, Mac, Spoc, Trunk, VggTrunk
from loc.globals.rmac import Rmac
from loc.layouts.revisited import open_sets
from loc.metrics.retrieval import judge, score_rankings
from loc.retrieval.topk import top_k

LONG_SIDE = 256
FLOORS = {"mac": 0.80, "spoc": 0.80, "crow": 0.80, "gem": 0.85, "rmac": 0.85}


class OnePass(Trunk):
    """The network, run once for an image however many poolings ask."""

    channels = 512

    def __init__(self) -> None:
        self._net = VggTrunk("auto", "cpu")
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        return self._net.preprocessed(images)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._last is None or not torch.equal(self._last[0], pixels):
            self._last = pixels, self._net(pixels)
        return self._last[1]


def shown(path, box=None) -> torch.Tensor:
    photo = cv2.imread(str(path))[:, :, ::-1]
    factor = min(1.0, LONG_SIDE / max(photo.shape[:2]))
    if box is not None:
        x1, y1, x2, y2 = np.rint(box).astype(int)
        photo = photo[max(y1, 0) : y2, max(x1, 0) : x2]
    small = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.transpose(2, 0, 1).astype(np.float32) / 255)[None]


def test_poolings_find_the_places(shared, monkeypatch, say) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    (data,) = open_sets(shared / "data/retrieval_mini", None)
    trunk = OnePass()
    kinds = {
        cls.__name__.lower(): type(cls.__name__, (cls,), {"open_trunk": lambda _: trunk})(cls.Config())
        for cls in (Mac, Spoc, Crow, Gem, Rmac)
    }
    images = [shown(path) for path in data.database]
    images += [shown(path, box) for path, box in zip(data.queries, data.truth.boxes, strict=True)]
    rows = [{name: plugin(image)[0] for name, plugin in kinds.items()} for image in images]
    found = {}
    for name in kinds:
        table = np.stack([row[name] for row in rows])
        order, _ = top_k(table[len(data.database) :], table[: len(data.database)], len(data.database))
        scores = score_rankings(list(order), [judge(labels, "medium") for labels in data.truth.labels])
        found[name] = scores.mean_ap
        say(f"retrieval_mini at {LONG_SIDE} px: mAP % {100 * scores.mean_ap:.1f}  {name}")
    assert all(found[name] >= floor for name, floor in FLOORS.items()), found
