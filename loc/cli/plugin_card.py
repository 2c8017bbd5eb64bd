"""What ``loc plugins`` shows."""

from __future__ import annotations

from typing import Any

from loc.config import suggest
from loc.errors import ConfigError, LocError
from loc.plugins.blocks import SECTIONS, StageOptions, configs_folder, presets
from loc.plugins.registry import list_plugins, load_plugin

_TITLES = {"extractor": "extractors", "global": "global extractors", "matcher": "matchers"}


def plugin_table() -> tuple[dict[str, Any], list[str]]:
    """All plug-ins, presets and configs, as data and as lines; a broken plug-in is listed as such."""
    data: dict[str, Any] = {title: [] for title in _TITLES.values()}
    lines: list[str] = []
    for kind, title in _TITLES.items():
        lines.append(f"{title}:")
        for info in list_plugins(kind):  # type: ignore[arg-type]
            card = {"name": info.name, "target": info.target, "distribution": info.distribution}
            try:
                cls = load_plugin(info.kind, info.name)
                card |= {"licence": getattr(cls, "licence", "not stated"), "paper": getattr(cls, "paper", "")}
            except LocError as error:
                card["error"] = error.message
            data[title].append(card)
            about = card.get("error") or f"{card['licence']}; {card['paper']}"
            lines.append(f"  {info.name:<14} {info.distribution:<12} {about}")
    data["presets"] = {section: sorted(presets(section)) for section in SECTIONS}
    data["configs"] = sorted(path.stem for path in configs_folder().glob("*.yaml"))
    for section, names in data["presets"].items():
        if names:
            lines.append(f"presets for {section}: {', '.join(names)}")
    lines.append(f"configs: {', '.join(data['configs'])}")
    lines.append("one plug-in with its options: loc plugins NAME")
    return data, lines


def plugin_card(name: str) -> tuple[dict[str, Any], list[str]]:
    """One plug-in: what it is, and every option with its type, default and meaning."""
    infos = [info for info in list_plugins() if info.name == name]
    if not infos:
        raise ConfigError(
            f"no plug-in is called {name!r}",
            f"{suggest(name, [info.name for info in list_plugins()])}   see: loc plugins",
        )
    info = infos[0]
    cls = load_plugin(info.kind, name)
    models = [cls.Config]
    if info.kind == "extractor" or getattr(cls, "source", None) == "image":
        models.append(StageOptions)
    options = {
        field: {
            "type": getattr(item.annotation, "__name__", None) or str(item.annotation),
            "default": item.default,
            "about": item.description or "",
        }
        for model in models
        for field, item in model.model_fields.items()
    }
    data = {
        "name": name,
        "kind": info.kind,
        "target": info.target,
        "distribution": info.distribution,
        "version": cls.version,
        "licence": getattr(cls, "licence", "not stated"),
        "paper": getattr(cls, "paper", ""),
        "about": (cls.__doc__ or "").strip().splitlines()[0] if cls.__doc__ else "",
        "options": options,
    }
    lines = [f"{name}: {info.kind} of {info.distribution} ({info.target}), version {cls.version}"]
    lines += [f"  {data['about']}", f"  licence: {data['licence']}", f"  paper: {data['paper']}", "options:"]
    for field, item in options.items():
        lines.append(f"  {field} ({item['type']}, default {item['default']})  {item['about']}".rstrip())
    return data, lines
