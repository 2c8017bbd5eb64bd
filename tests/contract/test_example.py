"""The README's plug-in: the code shown is the package that is built, and it passes the contract."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_extractor

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "plugin_example"


def test_readme_shows_the_example_as_it_is() -> None:
    code = (EXAMPLE / "loc_plugin_example" / "__init__.py").read_text()
    readme = (ROOT / "README.md").read_text()
    assert f"```python\n{code}```" in readme
    entry = 'opencv_sift = "loc_plugin_example:OpenCVSift"'
    assert entry in readme
    assert entry in (EXAMPLE / "pyproject.toml").read_text()
    body = [line for line in code.split("class OpenCVSift")[1].splitlines() if line.strip()]
    assert len(body) <= 22


def test_the_example_passes_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    plugin = resolve_block("features", "loc_plugin_example:OpenCVSift")
    check_extractor(plugin.cls)
    sys.modules.pop("loc_plugin_example")
