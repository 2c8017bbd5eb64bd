"""Average precision with junk, against the worked cases of the reference evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loc.errors import ConfigError, DataError
from loc.metrics.retrieval import (
    REVISITED,
    Judgement,
    average_precision,
    judge,
    positive_ranks,
    precision_at,
    recall_at,
    score_rankings,
)

KS = (1, 5, 10)


def ids(*values):
    return np.array(values, np.int64)


@pytest.fixture(scope="module")
def worked(shared):
    return json.loads((shared / "fixtures/delf/metrics.json").read_text())


@pytest.mark.parametrize("protocol", REVISITED)
def test_revisited_case(worked, protocol):
    case, expected = worked["revisited"], worked["revisited"]["expected"][protocol]
    labels = [
        {name: np.array(entry[name], np.int64) for name in ("easy", "hard", "junk")} for entry in case["gnd"]
    ]
    scores = score_rankings(
        [np.array(ranks) for ranks in case["ranks"]], [judge(each, protocol) for each in labels], case["k"]
    )
    assert scores.mean_ap == pytest.approx(expected["mAP"], abs=1e-12)
    assert scores.mean_precision == pytest.approx(expected["mP_at_k"], abs=1e-12)
    assert scores.mean_recall == pytest.approx(expected["mR_at_k"], abs=1e-12)
    assert scores.num_queries == expected["num_valid_queries"]
    per_query = [np.nan if value is None else value for value in expected["AP_per_query"]]
    np.testing.assert_allclose(scores.ap, per_query, atol=1e-12)
    for ours, theirs in (
        (scores.precision, expected["P_at_k_per_query"]),
        (scores.recall, expected["R_at_k_per_query"]),
    ):
        rows = [[np.nan] * len(KS) if row is None else row for row in theirs]
        np.testing.assert_allclose(ours, rows, atol=1e-12)


def test_worked_rank_lists(worked):
    for case in worked["revisited_worked"]:
        positives, junk = case["positive_ranks"], case["junk_ranks"]
        ranking = np.arange(max([*positives, *junk]) + 3)  # an image's id is its rank
        ranks = positive_ranks(ranking, Judgement(ids(*positives), ids(*junk)))
        assert ranks.tolist() == case["adjusted_ranks"]
        assert average_precision(ranks, len(positives)) == pytest.approx(case["AP"], abs=1e-12)
        assert [precision_at(ranks, k) for k in KS] == pytest.approx(case["P_at_k"], abs=1e-12)
        assert [recall_at(ranks, k, len(positives)) for k in KS] == pytest.approx(case["R_at_k"], abs=1e-12)


def test_cases_of_the_sheet():
    assert average_precision(ids(0, 1), 2) == 1
    assert average_precision(ids(1), 1) == 0.25
    junk_first = Judgement(positives=ids(5), ignored=ids(9))
    assert average_precision(positive_ranks(ids(9, 5, 1), junk_first), 1) == 1
    assert precision_at(ids(0, 1, 2), 10) == 1
    assert precision_at(ids(1, 2, 3), 10) == 0.75  # the last at rank 3: four images count


def test_classic_protocol_and_instre_without_junk():
    classic = {"ok": ids(1, 2), "junk": ids(0)}
    assert score_rankings([ids(0, 1, 2, 3)], [judge(classic, "classic")]).mean_ap == 1
    instre = {"ok": ids(1, 2)}
    # Ranks 1 and 2: (0/1 + 1/2) / 2 and (1/2 + 2/3) / 2, halved.
    assert score_rankings([ids(0, 1, 2, 3)], [judge(instre, "classic")]).mean_ap == pytest.approx(5 / 12)


def test_a_ranking_may_end_early_or_be_filled():
    judgement = judge({"ok": ids(3, 4), "junk": ids()}, "classic")
    full = score_rankings([ids(3, 0, 1, 2, 4)], [judgement])
    cut = score_rankings([ids(3, 0, -1, -1)], [judgement])
    assert cut.mean_ap == 0.5 < full.mean_ap
    assert cut.mean_recall == (0.5, 0.5, 0.5)
    nothing = score_rankings([ids()], [judgement])
    assert nothing.mean_ap == 0
    assert nothing.mean_precision == (0, 0, 0)


def test_queries_without_a_right_image_are_in_no_mean():
    labels = [{"easy": ids(), "hard": ids(1), "junk": ids()}, {"easy": ids(0), "hard": ids(), "junk": ids()}]
    scores = score_rankings([ids(0, 1)] * 2, [judge(each, "easy") for each in labels])
    assert scores.num_queries == 1
    assert scores.mean_ap == 1
    assert scores.to_json()["AP"] == [None, 1.0]
    none = score_rankings([], [])
    assert none.to_json()["mAP"] is None


def test_what_is_right_and_junk_counts_as_right():
    assert judge({"ok": ids(2), "junk": ids(2, 3)}, "classic").ignored.tolist() == [3]


def test_a_label_that_is_not_there_has_no_images():
    labels = {"easy": ids(1), "junk": ids(2)}
    hard, medium = (judge(labels, protocol) for protocol in ("hard", "medium"))
    assert (hard.positives.tolist(), hard.ignored.tolist()) == ([], [1, 2])
    assert (medium.positives.tolist(), medium.ignored.tolist()) == ([1], [2])
    assert np.isnan(score_rankings([ids(0, 1)], [hard]).mean_ap)
    assert judge({"hard": ids(1)}, "easy").positives.tolist() == []


def test_errors():
    with pytest.raises(ConfigError, match="no protocol is called 'Medium'"):
        judge({"ok": ids(1)}, "Medium")
    with pytest.raises(DataError, match="has the labels junk, ok, and hard needs hard"):
        judge({"ok": ids(1), "junk": ids()}, "hard")
    with pytest.raises(DataError, match="and classic needs ok"):
        judge({"easy": ids(1), "junk": ids()}, "classic")
    with pytest.raises(DataError, match="and easy needs easy"):
        judge({"junk": ids()}, "easy")
    with pytest.raises(DataError, match="twice"):
        positive_ranks(ids(1, 2, 1), judge({"ok": ids(1)}, "classic"))
    with pytest.raises(DataError, match="1 rankings, but ground truth of 0"):
        score_rankings([ids(1)], [])


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1), st.sets(st.integers(0, 11)))
def test_ignored_images_are_as_if_they_were_not_there(order, positives, ignored):
    judgement = Judgement(ids(*sorted(positives)), ids(*sorted(ignored - positives)))
    without = ids(*(each for each in order if each in positives or each not in ignored))
    bare = Judgement(judgement.positives, ids())
    assert score_rankings([ids(*order)], [judgement]).to_json() == score_rankings([without], [bare]).to_json()
    assert 0 <= score_rankings([ids(*order)], [judgement]).mean_ap <= 1
