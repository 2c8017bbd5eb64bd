"""Landmark retrieval on real photos: an index of a few places, asked with others of them and of elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from loc.config.ranking import RerankConfig
from loc.runtime.runtime import Runtime
from loc.stages.landmarks import Retriever
from loc.stages.places import Places
from loc.stages.places_build import build_places

#: Database photos and queries of `retrieval_mini`.
DATABASE = {
    "entry": ("000", "002", "004"),
    "fountain": ("001", "003", "006"),
    "kermit": ("001", "003", "007"),
    "lunddoor": ("000", "002", "006"),
}
QUERIES = ("entry_001", "fountain_005", "kermit_002", "kermit_008", "lunddoor_001", "lunddoor_007")
#: Photos of places that the index does not hold.
ELSEWHERE = ("sacre_002", "piazza_004", "towerbridge_003")


def test_the_right_place_first_and_elsewhere_is_no_match(
    shared: Path, tmp_path: Path, say: Callable[[str], None]
) -> None:
    photos = shared / "data" / "retrieval_mini" / "jpg"
    for place, numbers in DATABASE.items():
        (tmp_path / "photos" / place).mkdir(parents=True)
        for number in numbers:
            shutil.copy(photos / f"{place}_{number}.jpg", tmp_path / "photos" / place)
    build_places(
        [tmp_path / "photos"],
        tmp_path / "index",
        features={"use": "sift", "resize_max": 400},
        globals_="vlad",
        runtime=Runtime(device="cpu", workers=1),
    )
    index = Places.open(tmp_path / "index")
    retriever = Retriever(
        index,
        verification=RerankConfig(use=index.suited_reranking()),
        runtime=Runtime(device="cpu", workers=1),
    )
    asked = [retriever.retrieve(photos / f"{name}.jpg", 3) for name in (*QUERIES, *ELSEWHERE)]
    found = asked[: len(QUERIES)]
    right = [
        answer.images[0].name.startswith(f"{name.split('_')[0]}/")
        for name, answer in zip(QUERIES, found, strict=True)
    ]
    matches = sum(answer.status == "match" for answer in found)
    inliers = [answer.images[0].verified.inliers for answer in asked if answer.images[0].verified]
    false = sum(answer.status == "match" for answer in asked[len(QUERIES) :])
    say(
        f"landmark retrieval, sift at 400 px and vlad: {sum(right)} of {len(QUERIES)} right, "
        f"{matches} believed, {false} of {len(ELSEWHERE)} photos from elsewhere believed; inliers {inliers}"
    )
    assert all(right)
    assert matches >= 5
    assert false == 0
