"""Re-ranking of real photographs by SIFT: it must make a ranking better."""

from __future__ import annotations

from loc.bench.roxford import retrieval_table
from loc.layouts.revisited import open_sets
from loc.runtime.runtime import Runtime


def test_ratio_improves_on_similarity(shared, tmp_path, say) -> None:
    (data,) = open_sets(shared / "data" / "retrieval_mini")
    rows = retrieval_table(
        data,
        ["vlad"],
        ["similarity", "ratio"],
        features="sift",
        resize_max=256,  # small photos, so that it is quick
        fuse=False,
        workdir=tmp_path,
        runtime=Runtime(device="cpu", workers=1),
    )
    found = {row.ranking: [100 * row.scores[name].mean_ap for name in ("medium", "hard")] for row in rows}
    for ranking, (medium, hard) in found.items():
        say(f"retrieval_mini at 256 px, VLAD and SIFT, {ranking}: mAP {medium:.1f} medium, {hard:.1f} hard")
    assert found["ratio"][0] >= found["similarity"][0] + 1
    assert found["ratio"][1] >= found["similarity"][1] + 4
