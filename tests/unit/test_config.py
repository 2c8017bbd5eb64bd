from __future__ import annotations

import pytest

from loc.config import parse_override
from loc.errors import ConfigError, LocError, PluginError
from loc.extractors.sift import Sift
from loc.plugins.blocks import configs_folder, load_config, resolve_block
from loc.plugins.protocols import PluginConfig


def message_of(data: object, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(data, overrides or None)
    assert caught.value.next_step
    return str(caught.value)


def test_defaults_load_and_dump_as_yaml_round_trip() -> None:
    config = load_config()
    again = load_config(config.model_dump(mode="json", by_alias=True))
    assert again == config


def test_every_shipped_config_loads() -> None:
    names = [path.stem for path in configs_folder().glob("*.yaml")]
    assert "folder_sift" in names
    for name in names:
        load_config(name)


@pytest.mark.parametrize(
    ("data", "first", "second"),
    [
        ({"map": {"maper": 1}}, "map.maper is not an option of map", "did you mean mapper"),
        ({"featurs": 1}, "featurs is not an option of a run", "did you mean features"),
        (
            {"features": {"use": "sift", "max_kpts": 9}},
            "features.max_kpts is not an option of features",
            "did you mean max_keypoints",
        ),
        ({"features": "sfit"}, "no plug-in or preset is called 'sfit'", "did you mean sift?"),
        ({"pairs": [{"use": "retrieval", "kk": 3}]}, "kk is not an option of", "did you mean k "),
        ({"pairs": [{"use": "retrieval", "k": 0}]}, "pairs.0.retrieval.k: input should be greater", ""),
        ({"map": {"mapper": "foo"}}, "'incremental' or 'global', got 'foo'", ""),
        ({"matcher": {"ratio": 0.9}}, "matcher needs `use:`", "loc plugins"),
        ({"matcher": {"use": "nearest", "ratio": "x"}}, "matcher.ratio", ""),
    ],
)
def test_mistakes_name_the_fix(data: dict, first: str, second: str) -> None:
    text = message_of(data)
    assert first in text
    assert second in text


def test_overrides_edit_the_tree_before_validation() -> None:
    config = load_config(None, {"matcher.ratio": 0.7, "map.mapper": "global", "features.resize_max": 800})
    assert config.matcher == {"use": "nearest", "ratio": 0.7}
    assert config.map.mapper == "global"
    assert config.features == {"use": "sift", "resize_max": 800}


def test_override_syntax() -> None:
    assert parse_override("features.scales=[0.5, 1]") == ("features.scales", [0.5, 1])
    assert parse_override("globals=null") == ("globals", None)
    with pytest.raises(ConfigError, match=r"SECTION.OPTION=VALUE"):
        parse_override("matcher.ratio")
    with pytest.raises(ConfigError, match="is not a YAML value") as caught:
        parse_override("features.scales=[0.5")
    assert caught.value.next_step


def test_a_key_given_twice_is_refused(tmp_path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("map:\n  mapper: global\n  mapper: incremental\n")
    assert "the key 'mapper' is given twice (line 3)" in message_of(str(file))
    file.write_text("map: {mapper: global}\nmatcher: nearest\nmap: {}\n")
    assert "the key 'map' is given twice (line 3)" in message_of(str(file))
    with pytest.raises(ConfigError, match="--set map: the key 'mapper' is given twice"):
        parse_override("map={mapper: global, mapper: incremental}")
    file.write_text("map: {mapper: global}\nlocalize: {focal: fixed}\n")
    assert load_config(str(file)).map.mapper == "global"


def test_files_that_are_no_config(tmp_path) -> None:
    assert "no config" in message_of(str(tmp_path / "missing.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    assert "is not YAML" in message_of(str(broken))
    broken.write_text("- 1")
    assert "must hold a mapping" in message_of(str(broken))
    broken.write_text("!!python/object/apply:os.system ['true']")
    assert "is not YAML" in message_of(str(broken))


def test_stage_options_are_kept_apart_from_the_plugins() -> None:
    plugin = resolve_block("features", {"use": "sift", "resize_max": 640})
    assert plugin.stage_options == {"resize_max": 640}
    assert "resize_max" not in plugin.config.model_dump()
    assert plugin.fingerprint_fields() != resolve_block("features", "sift").fingerprint_fields()


def test_class_by_path_and_its_mistakes() -> None:
    assert resolve_block("features", "loc.extractors.sift:Sift").name == "loc.extractors.sift:Sift"
    with pytest.raises(LocError, match=r"cannot import nowhere\.module:X"):
        resolve_block("features", "nowhere.module:X")
    with pytest.raises(LocError, match="has no 'Nope'"):
        resolve_block("features", "loc.extractors.sift:Nope")
    with pytest.raises(LocError, match="is not an extractor: it lacks"):
        resolve_block("features", "loc.matchers.nearest:Nearest")


class Shadowing(Sift):
    """An extractor whose own option has the name of one of the runtime's."""

    class Config(PluginConfig):
        resize_max: int = 100


def test_an_option_that_a_plug_in_would_never_get_is_refused() -> None:
    with pytest.raises(PluginError, match="options that the runtime acts on itself: resize_max"):
        resolve_block("features", {"use": f"{__name__}:Shadowing"})
