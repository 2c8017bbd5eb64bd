"""Licences and unverified weights, as the lists show them."""

from __future__ import annotations

import json

import pytest

from loc.cli import main
from loc.plugins.blocks import resolve_block
from loc.plugins.standing import UNVERIFIED, commercial_ok, commercial_use, weights_verified
from loc.weights.card import WeightFile

YES, NO, UNKNOWN = (
    WeightFile(f"https://x/{name}.pth", None, "some", "paper", commercial_ok=name)
    for name in (True, False, None)
)


def plugin(*files: WeightFile, **card: bool) -> type:
    return type("Plugin", (), {"weights": files, **card})


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (plugin(), None),
        (plugin(commercial_ok=True), True),
        (plugin(YES), True),
        (plugin(YES, UNKNOWN), None),
        (plugin(YES, UNKNOWN, NO), False),
        (plugin(YES, commercial_ok=False), False),
    ],
)
def test_commercial_use_is_as_narrow_as_the_narrowest_licence(cls, expected) -> None:
    assert commercial_ok(cls) is expected
    assert commercial_use(expected) in ("yes", "no", "unknown")


@pytest.mark.parametrize(
    ("block", "verified"),
    [
        ("sift", True),
        ("disk", True),
        ({"use": "d2net", "weights": "ots"}, True),
        ("d2net", False),
        ("d2net_ms", False),
        ({"use": "r2d2", "weights": "r2d2_WAF_N16"}, False),
        ("r2d2", True),
    ],
)
def test_verified_weights_of_a_configuration(block, verified) -> None:
    assert weights_verified(resolve_block("features", block)) is verified


def shown(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


def test_lists_show_the_mark_and_the_licence(capsys) -> None:
    (line,) = (each for each in shown(capsys, "plugins").splitlines() if each.startswith("  d2net "))
    assert line.split()[:3] == ["d2net", "visloc", "unknown"]
    assert f"{UNVERIFIED}: d2_tf.pth, d2_tf_no_phototourism.pth; " in line
    card = shown(capsys, "plugins", "r2d2")
    assert "commercial use: no" in card
    assert f"{UNVERIFIED}: r2d2_WAF_N16.pt" in card
    assert UNVERIFIED not in shown(capsys, "plugins", "disk")
    rows = {line.split()[0]: line for line in shown(capsys, "weights", "list").splitlines()}
    assert rows["d2_tf.pth"].endswith(UNVERIFIED)
    assert UNVERIFIED not in rows["d2_ots.pth"]
    (card,) = json.loads(shown(capsys, "weights", "list", "d2_tf.pth", "--json"))
    assert card["output_checked"] is False
