"""Every config that is shipped can be used as it is."""

from __future__ import annotations

import pytest

from loc.plugins.blocks import configs_folder, load_config, resolve_block

SHIPPED = sorted(path.stem for path in configs_folder().glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_and_names_plugins_that_exist(name: str) -> None:
    config = load_config(name)
    extractor = resolve_block("features", config.features)
    matcher = resolve_block("matcher", config.matcher).for_features(extractor)
    method = extractor.name
    stood_for = method.removesuffix("_ots")  # by what runs without the authors' weights
    assert name.endswith(("_sift", f"_{method}", f"_{stood_for}", "_ss", "_ms", f"_{method}_{matcher.name}"))
    text = (configs_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"loc run {name} " in text


def test_aachen_and_folder_have_the_same_methods() -> None:
    """What Aachen is run with is what a folder of photos is run with."""
    for name in ("sift", "d2net_ss", "d2net_ms", "r2d2", "disk_lightglue"):
        aachen, folder = load_config(f"aachen_{name}"), load_config(f"folder_{name}")
        assert (aachen.features, aachen.matcher) == (folder.features, folder.matcher)
    aachen, folder = load_config("aachen_delf"), load_config("folder_delf_ots")
    assert (aachen.features, aachen.matcher) == (folder.features, folder.matcher)


def test_the_two_d2nets_differ_in_their_scales() -> None:
    single, multi = (
        resolve_block("features", load_config(f"aachen_d2net_{kind}").features).config
        for kind in ("ss", "ms")
    )
    assert single.scales == (1.0,)
    assert multi.scales == (0.5, 1.0, 2.0)
    assert multi.model_copy(update={"scales": single.scales}) == single
