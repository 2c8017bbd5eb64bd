import pytest

from loc.sfm.funnel import STEPS, FunnelCounter, read_funnel, step_counts, write_funnel


@pytest.fixture
def counter() -> FunnelCounter:
    counts = {
        "blank": 0,
        "sky": 40,
        "lonely": 900,
        "wrong": 900,
        "far": 900,
        "other": 900,
        "in": 900,
        "in2": 900,
    }
    counter = FunnelCounter(counts, {"broken": "not a photo"}, min_num_inliers=15)
    for a, b, matches, verified in [
        ("in", "in2", 300, 200),
        ("in", "sky", 6, 0),
        ("in2", "sky", 59, 0),
        ("in", "wrong", 60, 0),
        ("far", "in", 50, 20),
        ("in", "other", 50, 20),
        ("blank", "in", 0, 0),
    ]:
        counter.matched(a, b, matches)
        counter.verified(a, b, verified)
    return counter


def test_every_image_is_reported_at_the_step_where_it_fell(counter):
    rows = {row.name: row for row in counter.finish({"in": 150, "in2": 150}, elsewhere={"other": 4})}
    assert {name: row.step for name, row in rows.items()} == {
        "broken": "unreadable",
        "blank": "keypoints",
        "sky": "matches",
        "lonely": "matches",
        "wrong": "verification",
        "far": "registration",
        "other": "registration",
        "in": "registered",
        "in2": "registered",
    }
    assert rows["sky"].reason.startswith("its best of 2 pairs has 59 matches, too few to hold the 15")
    assert rows["lonely"].reason.startswith("it is in no pair")
    assert "another model, of 4 images" in rows["other"].reason
    assert rows["broken"].reason == "not a photo"
    assert rows["in"].reason == ""


def test_the_columns_add_up_to_the_number_of_images(counter):
    rows = counter.finish({"in": 150, "in2": 150})
    counts = step_counts(rows)
    assert tuple(counts) == STEPS
    assert sum(counts.values()) == len(rows) == 9


def test_counts_per_image_and_pair(counter):
    rows = {row.name: row for row in counter.finish({"in": 150, "in2": 149})}
    first = rows["in"]
    assert (first.keypoints, first.pairs, first.best_matches, first.matches) == (900, 6, 300, 466)
    assert (first.verified_pairs, first.verified_matches, first.points) == (3, 240, 150)
    assert (counter.pairs_with_matches, counter.pairs_verified) == (6, 3)


def test_json_round_trip(counter, tmp_path):
    rows = counter.finish({"in": 150})
    write_funnel(tmp_path / "funnel.json", rows, pairs={"listed": 7})
    assert read_funnel(tmp_path / "funnel.json") == (rows, {"listed": 7})
