"""The retrieval benchmark on a set of coloured photos."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from loc.bench.reranking import reranked
from loc.bench.roxford import PARITY_ONLY, Row, crop_query, rank_options, retrieval_table
from loc.cli.app import app
from loc.cli.bench_roxford import _print_tables
from loc.config import RerankConfig
from loc.errors import ConfigError, DataError
from loc.layouts.revisited import open_sets
from loc.metrics.retrieval import Judgement, RetrievalScores
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.retrieval.verification import rerank, verify
from loc.runtime.images import read_photo
from loc.runtime.runtime import Runtime
from loc.types import LocalFeatures

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


class MeanColour:
    """The mean colour of an image."""

    class Config(PluginConfig):
        pass

    version, licence, paper = 1, "Apache-2.0", ""
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    source, color, min_side, needs_fit = "image", "rgb", 1, False

    def __init__(self, config, *, device, dtype):
        pass

    def __call__(self, images):
        rows = images.numpy().mean(axis=(2, 3))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class NeverChecked(MeanColour):
    """The same with weights that the project has never run, and that are not here either."""

    weights = (WeightFile("https://example.org/x.pth", None, "MIT", "", output_checked=False),)


class Broken(MeanColour):
    """A method that fails on every photo."""

    def __call__(self, images):
        raise ValueError("no")


METHOD, UNCHECKED, BROKEN = (f"{__name__}:{cls.__name__}" for cls in (MeanColour, NeverChecked, Broken))


def photo(path, left, right):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = left, right
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """The query's box holds its red half: red photos are right, the green one is easily found without it."""
    folder = tmp_path / "coloured"
    for name, sides in {
        "red": (RED, RED),
        "rose": (RED, (220, 60, 60)),
        "green": (GREEN, GREEN),
        "blue": (BLUE, BLUE),
        "query": (RED, GREEN),
    }.items():
        photo(folder / f"jpg/{name}.png", *sides)
    truth = {
        "imlist": ["green", "blue", "red", "rose"],
        "qimlist": ["query"],
        "gnd": [{"bbx": [0, 0, 30, 40], "easy": [2], "hard": [3], "junk": []}],
    }
    (folder / "gnd_coloured.json").write_text(json.dumps(truth))
    return folder


def table(root, methods, rankings=("similarity",), *, distractors=None, **more):
    options = {"features": "sift", "resize_max": 1024, "fuse": False, **more}
    (data,) = open_sets(root, distractors)
    return list(
        retrieval_table(
            data,
            methods,
            rankings,
            workdir=root.parent / "work",
            runtime=Runtime(device="cpu", workers=1),
            **options,
        )
    )


def test_only_what_is_inside_the_box_is_asked_for(root):
    (row,) = table(root, [METHOD])
    assert [row.scores[name].mean_ap for name in ("easy", "medium", "hard")] == [1, 1, 1]
    assert row.dimension == 3
    truth = json.loads((root / "gnd_coloured.json").read_text())
    truth["gnd"][0]["bbx"] = [30, 0, 60, 40]
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    (row,) = table(root, [METHOD])
    assert row.scores["easy"].mean_ap < 0.5


def test_methods_without_numbers_have_rows_that_say_why(root):
    rows = table(root, [UNCHECKED, "nonesuch", BROKEN, METHOD])
    assert rows[0].note == PARITY_ONLY == "parity only"
    assert "no plug-in or preset is called 'nonesuch'" in rows[1].note
    assert "failed on" in rows[2].note
    assert [bool(row.scores) for row in rows] == [False, False, False, True]


def test_rankings_and_fusion(root):
    rankings = ["similarity", "diffusion", "{expansion: {queries: 1}}"]
    rows = table(root, [METHOD, {"use": METHOD}], rankings, fuse=True)
    assert [row.ranking for row in rows] == rankings * 3
    assert {row.method for row in rows[-3:]} == {"fusion of 2"}
    assert all(row.scores["medium"].mean_ap == 1 for row in rows)


def test_distractors_are_wrong_answers(root, tmp_path):
    for name in ("x", "y"):
        photo(tmp_path / f"distractors/{name}.png", RED, RED)
    (row,) = table(root, [METHOD], distractors=tmp_path / "distractors")
    assert 0 < row.scores["hard"].mean_ap < 1


def test_a_classic_set_has_one_protocol(root):
    truth = json.loads((root / "gnd_coloured.json").read_text())
    truth["gnd"] = [{"bbx": [0, 0, 30, 40], "ok": [2, 3]}]
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    (row,) = table(root, [METHOD])
    assert list(row.scores) == ["classic"]
    assert row.scores["classic"].mean_ap == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_upright_and_of_the_stored_box(tmp_path, orientation):
    stored = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(tmp_path / "whole.png", exif=exif)
    Image.fromarray(stored[5:25, 10:50]).save(tmp_path / "part.png", exif=exif)
    crop_query(tmp_path / "whole.png", (10.2, 4.8, 49.9, 25.1), tmp_path / "crop.png", resize_max=None)
    crop, part = (read_photo(tmp_path / name, color="gray").pixels for name in ("crop.png", "part.png"))
    np.testing.assert_array_equal(crop, part)


def test_a_crop_is_shrunk_with_its_photo(tmp_path):
    photo(tmp_path / "a.png", RED, BLUE)
    for box, wh in (((30, 10, 60, 30), (15, 10)), (None, (30, 20))):
        crop_query(tmp_path / "a.png", box, tmp_path / "crops/b.png", resize_max=30)
        with Image.open(tmp_path / "crops/b.png") as image:
            assert image.size == wh
    with pytest.raises(DataError, match=r"nothing of .* is inside its box"):
        crop_query(tmp_path / "a.png", (70, 0, 90, 10), tmp_path / "c.png", resize_max=None)


def test_rankings_by_name_and_by_options():
    assert rank_options("alpha_qe").expansion.queries == 50
    assert rank_options("{diffusion: {k: 7}}").diffusion.k == 7
    with pytest.raises(ConfigError, match="no ranking is called 'difusion'"):
        rank_options("difusion")
    with pytest.raises(ConfigError, match="kk"):
        rank_options("{diffusion: {kk: 7}}")
    for option in ("fusion: {of: [vlad]}", "k: 3", "min_similarity: 0.5"):
        with pytest.raises(ConfigError, match="changes no ranking here"):
            rank_options(f"{{expansion: {{queries: 2}}, {option}}}")


def test_junk_takes_no_place_among_the_verified():
    """Ids 0 and 1 are junk of one protocol; the right image, 4, is third without them."""
    order = np.array([[0, 1, 2, 3, 4, 5, -1]])
    counts = {0: 50, 1: 40, 2: 0, 3: 5, 4: 30, 5: 99}
    asked = []

    def inliers(query, row):
        asked.append(row)
        return counts[row]

    none, both = np.zeros(0, np.int64), np.array([0, 1])
    (ranking,) = reranked(order, [Judgement(np.array([4]), both)], 3, inliers)
    assert ranking.tolist() == [4, 3, 2, 5]
    assert asked == [2, 3, 4]
    (ranking,) = reranked(order, [Judgement(np.array([4]), none)], 3, inliers)
    assert ranking.tolist() == [0, 1, 2, 3, 4, 5]


def test_reranking_equals_that_of_the_pairs():
    rng = np.random.default_rng(0)
    image = LocalFeatures(
        rng.uniform(0, 300, (30, 2)).astype(np.float32),
        np.ones(30, np.float32),
        rng.normal(size=(30, 16)).astype(np.float32),
        (400, 300),
    )
    images = [image.select(np.arange(n)) for n in (0, 9, 30, 0, 20, 9)]
    config = RerankConfig(candidates=5)
    ranked = rerank(image, [(row, -float(row)) for row in range(6)], images.__getitem__, config)
    order = reranked(
        np.arange(6)[None],
        [Judgement(np.array([0]), np.zeros(0, np.int64))],
        5,
        lambda query, row: verify(image, images[row], config).inliers,
    )
    assert order[0].tolist() == [row for row, *_ in ranked] == [2, 4, 1, 0, 3, 5]


def textured(seed, tint):
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 24, 1)).repeat(3, axis=2)
    small = Image.fromarray((0.7 * pixels + 0.3 * np.array(tint)).astype(np.uint8))
    return small.resize((240, 160), Image.Resampling.BICUBIC)


def test_matches_correct_colours(root):
    """The photo with the query's texture has another colour than the query; the box cuts off the rest."""
    textured(1, RED).save(root / "jpg/query.png")
    textured(1, BLUE).save(root / "jpg/red.png")
    for seed, name in enumerate(("rose", "green", "blue"), start=2):
        textured(seed, RED).save(root / f"jpg/{name}.png")
    truth = json.loads((root / "gnd_coloured.json").read_text())
    truth["gnd"] = [{"bbx": [0, 0, 160, 160], "easy": [2], "hard": [], "junk": [3]}]
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    rankings = ["similarity", "delg", "{rerank: {use: d2r, candidates: 1}}"]
    rows = table(root, [METHOD, {"use": METHOD}], rankings, fuse=True)
    found = [row.scores["medium"].mean_ap for row in rows]
    assert found[0] < 0.5
    assert found == [found[0], 1, found[0]] * 3
    assert np.isnan(rows[1].scores["hard"].mean_ap)


def test_reranking_without_weights_says_why(root):
    (row,) = table(root, [METHOD], ["d2r"], features="delf")
    assert not row.scores
    assert "delf" in row.note


def test_photos_that_cannot_be_read_are_counted(root):
    (root / "jpg/blue.png").write_bytes(b"no photo")
    (row,) = table(root, [METHOD])
    assert row.scores["medium"].mean_ap == 1
    assert row.note == "photos without a descriptor: 1"


def test_a_query_that_cannot_be_read_finds_nothing(root):
    """It counts, with 0; the other query is not touched."""
    truth = json.loads((root / "gnd_coloured.json").read_text())
    truth |= {"qimlist": ["damaged", "query"], "gnd": truth["gnd"] * 2}
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    photo(root / "jpg/damaged.png", RED, GREEN)
    rankings = ["similarity", "diffusion", "aqe", "delg"]
    for row in table(root, [METHOD], ["similarity"]):
        assert row.scores["medium"].ap.tolist() == [1, 1]
        assert row.note == ""
    data = (root / "jpg/damaged.png").read_bytes()
    (root / "jpg/damaged.png").write_bytes(data[:60])
    rows = table(root, [METHOD, {"use": METHOD}], rankings, fuse=True)
    assert len(rows) == 12
    for row in rows:
        assert row.scores["medium"].ap[0] == 0
        assert row.scores["medium"].recall[0].tolist() == [0, 0, 0]
        assert row.scores["medium"].num_queries == 2
    assert rows[0].scores["medium"].ap[1] == 1
    assert rows[0].note == "photos without a descriptor: 1 (queries, which find nothing: 1)"


def test_a_set_without_hard_images(root):
    truth = json.loads((root / "gnd_coloured.json").read_text())
    truth["gnd"] = [{"bbx": [0, 0, 30, 40], "easy": [2, 3], "junk": []}]
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    (row,) = table(root, [METHOD])
    assert [row.scores[name].mean_ap for name in ("easy", "medium")] == [1, 1]
    assert row.scores["hard"].num_queries == 0
    truth["gnd"] = [{"ok": [2]}, {"easy": [2]}]
    truth["qimlist"] *= 2
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    with pytest.raises(DataError, match="classic Oxford, Paris and INSTRE have"):
        table(root, ["nonesuch"])


def test_what_is_mistyped_is_told_before_photos_are_read(root, tmp_path):
    (tmp_path / "file").touch()
    for more, match in (
        (["--methods", "nonesuch"], "no plug-in or preset is called 'nonesuch'"),
        (["--methods", " , "], "is no list of plug-ins"),
        (["--features", "sft"], "no plug-in or preset is called 'sft'"),
        (["--features", "{use: d2net_ss, wieghts: ots}"], "wieghts"),
        (["--features", "sift,disk"], "is more than one"),
        (["--methods", METHOD, "-o", str(tmp_path / "file")], "is no folder"),
    ):
        result = CliRunner().invoke(app, ["bench", "roxford", "--root", str(root), *more])
        assert result.exit_code == 2
        assert match in result.output


def test_a_protocol_without_right_images_has_no_number(root):
    truth = json.loads((root / "gnd_coloured.json").read_text())
    truth["gnd"][0] |= {"easy": [2, 3], "hard": []}
    (root / "gnd_coloured.json").write_text(json.dumps(truth))
    arguments = ["bench", "roxford", "--root", str(root), "--methods", METHOD, "--workers", "1"]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    (line,) = (line for line in result.output.splitlines() if line.startswith(METHOD))
    assert line.split()[2:5] == ["100.0", "100.0", "–"]


def test_tables_fit_a_terminal(capsys):
    def row(method, ranking, value=0.0, **more):
        each = RetrievalScores((10,), np.array([value]), np.array([[value]]), np.array([[value]]))
        scores = dict.fromkeys(("easy", "medium", "hard"), each)
        return Row("coloured", method, ranking, 32768, scores, **more)

    long = "asmk (words=1024, regions=rmac, query_assignments=1)"
    _print_tables(
        [
            row("gem", "similarity", 0.5),
            row(long, "similarity", 1.0),
            row("gem", "diffusion", 0.25, note="photos without a descriptor: 1"),
            Row("coloured", "delg", "", note=PARITY_ONLY),
            Row("coloured", "asmk", "diffusion", note="has no vectors " * 8),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    first, second = lines.index("coloured, similarity (%)"), lines.index("coloured, diffusion (%)")
    assert lines[first + 1].split() == ["mAP", "mP@10"]
    assert lines[first + 2].split() == ["method", "dim", *["easy", "medium", "hard"] * 2]
    assert lines[first + 3] == long
    assert lines[first + 4].split() == ["32768", *["100.0"] * 6]
    assert lines[first + 5].split() == ["gem", "32768", *["50.0"] * 6]
    assert lines[second + 4] == "  photos without a descriptor: 1"
    rest = lines[lines.index("coloured, without numbers") + 1 :]
    assert rest[0].split() == ["delg", "parity", "only"]
    assert rest[1].startswith("asmk, diffusion  has no vectors")


def test_command(root):
    arguments = ["bench", "roxford", "--root", str(root), "--methods", f"{METHOD},{UNCHECKED}"]
    result = CliRunner().invoke(app, [*arguments, "--workers", "1", "--device", "cpu", "--rank", "aqe"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "coloured, aqe (%)" in lines
    assert any(METHOD in line and line.split()[1:5] == ["3", *["100.0"] * 3] for line in lines)
    assert any(UNCHECKED in line and line.endswith(PARITY_ONLY) for line in lines)
    result = CliRunner().invoke(app, [*arguments, "--workers", "1", "--json"])
    rows = json.loads(result.output[result.output.index("[") :])
    assert rows[0]["medium"]["mAP"] == 1
    assert rows[1]["note"] == PARITY_ONLY
    arguments[-1] = f"[{{use: '{METHOD}', resize_max: 20}}]"
    result = CliRunner().invoke(app, [*arguments, "--workers", "1", "--json"])
    rows = json.loads(result.output[result.output.index("[") :])
    assert rows[0]["method"] == f"{METHOD} (resize_max=20)"
    arguments[-1] = "[vlad, 3]"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "is no list of plug-ins" in result.output
