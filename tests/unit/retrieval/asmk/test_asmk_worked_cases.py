"""VLAD, ASMK and their regional forms against the worked cases (`fixtures/delf/aggregation.npz`)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from loc.retrieval.asmk.aggregate import mean_of_regions, residuals, signature
from loc.retrieval.asmk.inverted import InvertedFile
from loc.retrieval.asmk.kernel import Kernel
from loc.retrieval.asmk.words import Codebook

SETS = ("", "d5_", "d12_")
KINDS = ("asmk", "asmk_star", "rasmk", "rasmk_star")


@pytest.fixture(scope="module")
def cases(shared):
    with np.load(shared / "fixtures/delf/aggregation.npz") as arrays:
        return dict(arrays)


def images_of(cases, prefix):
    return [image for image in range(6) if f"{prefix}img{image}_features" in cases]


def case(cases, prefix, image):
    rows = cases[f"{prefix}img{image}_features"]
    ends = np.cumsum(cases[f"{prefix}img{image}_num_features_per_region"])
    return rows, np.split(rows, ends[:-1])


def aggregated(cases, prefix, image, kind, assignments=1):
    codebook = Codebook(cases[f"{prefix}codebook"])
    rows, regions = case(cases, prefix, image)
    if kind.startswith("r"):
        found = signature(mean_of_regions(regions, codebook, assignments=assignments))
    else:
        found = signature(residuals(rows, codebook, assignments=assignments))
    return found.signs() if kind.endswith("star") else found


@pytest.mark.parametrize("prefix", SETS)
@pytest.mark.parametrize("assignments", [1, 3])
def test_vlad(cases, prefix, assignments) -> None:
    codebook = Codebook(cases[f"{prefix}codebook"])
    seen = 0
    for image in images_of(cases, prefix):
        name = f"{prefix}img{image}_m{assignments}"
        rows, regions = case(cases, prefix, image)
        plain = residuals(rows, codebook, assignments=assignments)
        mean = mean_of_regions(regions, codebook, assignments=assignments)
        for kind, found in {
            "vlad_unnorm": plain,
            "vlad": plain.normalized(),
            "rvlad": mean,
            "rvlad_l2": mean.normalized(),
        }.items():
            np.testing.assert_allclose(found.dense(), cases[f"{name}_{kind}"], atol=2e-6, err_msg=kind)
        seen += 1
    assert seen


@pytest.mark.parametrize("prefix", SETS)
@pytest.mark.parametrize("assignments", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_signatures(cases, prefix, assignments, kind) -> None:
    seen = 0
    for image in images_of(cases, prefix):
        name = f"{prefix}img{image}_m{assignments}_{kind}"
        found = aggregated(cases, prefix, image, kind, assignments)
        np.testing.assert_array_equal(found.words, cases[f"{name.removesuffix('_star')}_words"])
        if kind.endswith("star"):
            np.testing.assert_array_equal(found.codes.ravel(), cases[name])
        else:
            np.testing.assert_allclose(found.codes.ravel(), cases[name], atol=2e-6)
        seen += 1
    assert seen


@pytest.mark.parametrize("prefix", SETS)
@pytest.mark.parametrize(
    ("query", "index"),
    [("asmk", "asmk"), ("asmk_star", "asmk_star"), ("asmk_star", "rasmk_star"), ("asmk", "rasmk")],
)
def test_similarities_of_pairs_and_of_the_inverted_file(cases, prefix, query, index) -> None:
    queries = [aggregated(cases, prefix, image, query) for image in images_of(cases, prefix)]
    found = [aggregated(cases, prefix, image, index) for image in images_of(cases, prefix)]
    lists = InvertedFile(found)
    what = query if query == index else f"query_{query}_index_{index}"
    for (alpha, tau), normalize in itertools.product(((1.0, 0.0), (3.0, 0.0), (3.0, 0.25)), (False, True)):
        name = f"{prefix}sim_{what}_a{alpha:g}_t{tau:g}_{'norm' if normalize else 'raw'}"
        kernel = Kernel(alpha=alpha, tau=tau, normalize=normalize)
        pairwise = np.array([[kernel(a, b) for b in found] for a in queries])
        np.testing.assert_allclose(pairwise, cases[name], atol=2e-6, err_msg=name)
        searched = np.where(cases[name] == -1, -1.0, 0)
        for row, each in enumerate(queries):
            hits = lists.search(each, kernel)
            searched[row, hits.images] = hits.scores
        np.testing.assert_allclose(searched, cases[name], atol=2e-6, err_msg=name)


def test_vlad_similarity(cases) -> None:
    for prefix in SETS:
        codebook = Codebook(cases[f"{prefix}codebook"])
        rows = [
            residuals(case(cases, prefix, image)[0], codebook).normalized().dense()
            for image in images_of(cases, prefix)
        ]
        np.testing.assert_allclose(np.array(rows) @ np.array(rows).T, cases[f"{prefix}sim_vlad"], atol=2e-6)


def test_ties_go_to_the_lower_word(cases) -> None:
    codebook, rows = Codebook(cases["tie_codebook"]), cases["tie_features"]
    for count in (1, 2):
        np.testing.assert_array_equal(codebook.nearest(rows, count), cases[f"tie_words_m{count}"])
    np.testing.assert_allclose(residuals(rows, codebook).dense(), cases["tie_vlad_unnorm"], atol=1e-6)
