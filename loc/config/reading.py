"""YAML files and ``--set``: the tree a config is validated from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from loc.config.sections import RunConfig
from loc.errors import ConfigError

_SEE = "see: loc plugins config"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: one of the two values would be lost silently.

    Aliases are refused too: a few lines of them stand for more values than a memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor} is not supported, write its value", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise _Twice(key.value, key.start_mark.line + 1)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Twice(Exception):  # noqa: N818  (never leaves this module)
    def __init__(self, key: str, line: int) -> None:
        super().__init__(key, line)
        self.key, self.line = key, line


def _load_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except _Twice as twice:
        raise ConfigError(
            f"{source}: the key {twice.key!r} is given twice (line {twice.line})", "keep one of them"
        ) from twice
    except RecursionError as error:
        raise ConfigError(
            f"{source} is not YAML that can be read: it is nested too deeply", f"mend it; {_SEE}"
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, or raise :class:`ConfigError` with the line of the mistake."""
    try:
        data = _load_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(
            f"cannot read the config {path}: {error.strerror}", "see the shipped ones: loc plugins"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not YAML: {' '.join(str(error).split())}", f"mend the file; {_SEE}"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, got {type(data).__name__}", _SEE)
    return data


def apply_overrides(data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree ``data`` with dotted keys set; a bare block name becomes a block first."""
    tree: dict[str, Any] = _copied(data)
    for dotted, value in overrides.items():
        node, keys = tree, dotted.split(".")
        for depth, key in enumerate(keys[:-1]):
            child = node.get(key)
            if isinstance(child, str) and key in ("features", "globals", "matcher"):
                child = {"use": child}
            elif child is None:
                child = {"use": _default_block(key)} if key in ("features", "globals", "matcher") else {}
            if not isinstance(child, dict):
                where = ".".join(keys[: depth + 1])
                raise ConfigError(
                    f"--set {dotted}: {where} is not a mapping", f"set it whole: --set {where}=…"
                )
            node[key] = child
            node = child
        node[keys[-1]] = value
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    """``a.b=VALUE`` with VALUE in YAML: ``features.scales=[0.5, 1]``, ``map.mapper=global``."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"--set takes SECTION.OPTION=VALUE, got {text!r}", "example: --set matcher.ratio=0.9"
        )
    try:
        return key.strip(), _load_yaml(value, f"--set {key}")
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {key}: {value!r} is not a YAML value", "quote it for the shell: --set 'a.b=[0.5, 1]'"
        ) from error


def _default_block(section: str) -> str:
    return str(RunConfig.model_fields[section].default)


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, list) else data
