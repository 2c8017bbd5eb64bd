"""Buckets: every pair once, of one padded size, within the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loc.runtime.buckets import buckets, padded


@given(st.integers(0, 20_000))
def test_padding_is_tight_and_ascending(count) -> None:
    bound = padded(count)
    assert count <= bound < count + (256 if count <= 2048 else 1024)
    assert padded(bound) == bound
    assert padded(count + 1) >= bound


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=40), st.integers(1, 9))
def test_every_pair_is_in_one_bucket_of_its_size(sizes, limit) -> None:
    found = buckets(sizes, limit)
    assert sorted(number for bucket in found for number in bucket) == [
        number for number, (first, second) in enumerate(sizes) if first and second
    ]
    for bucket in found:
        assert len(bucket) <= limit
        assert len({(padded(sizes[number][0]), padded(sizes[number][1])) for number in bucket}) == 1


def test_a_size_opens_no_more_buckets_than_it_needs() -> None:
    sizes = [(100, 300), (2000, 2000), (256, 257), (1, 512), (1900, 1800)]
    assert buckets(sizes, 8) == [[0, 2, 3], [1, 4]]
    assert buckets(sizes, 8, most_entries=2 * 256 * 512) == [[0, 2], [3], [1], [4]]
    assert buckets(sizes, 2) == [[0, 2], [3], [1, 4]]
