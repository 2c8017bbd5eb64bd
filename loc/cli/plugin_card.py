"""What ``loc plugins`` shows."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from loc.config import RunConfig, models_in, section_models, suggest, type_name
from loc.errors import ConfigError, LocError
from loc.plugins.blocks import SECTIONS, configs_folder, presets, stage_model
from loc.plugins.registry import list_plugins, load_plugin
from loc.plugins.standing import UNVERIFIED, commercial_ok, commercial_use, unverified_files

_TITLES = {"extractor": "extractors", "global": "global extractors", "matcher": "matchers"}
_ROW = "{:<19}{:<12}{:<16}{}"


def plugin_table() -> tuple[dict[str, Any], list[str]]:
    """All plug-ins, presets and configs, as data and as lines; a broken plug-in is listed as such."""
    data: dict[str, Any] = {title: [] for title in _TITLES.values()}
    lines: list[str] = []
    for kind, title in _TITLES.items():
        lines.append(_ROW.format(f"{title}:", "from", "commercial use", "licence; paper"))
        for info in list_plugins(kind):  # type: ignore[arg-type]
            card: dict[str, Any] = {
                "name": info.name,
                "target": info.target,
                "distribution": info.distribution,
            }
            try:
                cls = load_plugin(info.kind, info.name)
                card |= _standing(cls)
            except LocError as error:
                card["error"] = error.message
            data[title].append(card)
            use = "" if "error" in card else commercial_use(card["commercial_ok"])
            about = card.get("error") or "; ".join([*_marks(card), card["licence"], card["paper"]])
            lines.append(_ROW.format(f"  {info.name}", info.distribution, use, about))
    data["presets"] = {section: sorted(presets(section)) for section in SECTIONS}
    data["configs"] = sorted(path.stem for path in configs_folder().glob("*.yaml"))
    for section, names in data["presets"].items():
        if names:
            lines.append(f"presets for {section}: {', '.join(names)}")
    lines.append(f"configs: {', '.join(data['configs'])}")
    lines.append("one plug-in with its options: loc plugins NAME; the options of a run: loc plugins config")
    return data, lines


def config_card() -> tuple[dict[str, Any], list[str]]:
    """Every section and option of a run's config with its type, default and meaning."""
    data: dict[str, Any] = {}
    lines: list[str] = []
    for section, field in RunConfig.model_fields.items():
        models = section_models(section)
        if not models:  # a block of a plug-in
            data[section] = {"default": field.default}
            lines += [f"{section}: NAME, or {{use: NAME, OPTION: …}} (default {field.default})"]
            lines += ["  its options: loc plugins NAME"]
        for model in models:
            use = model.model_fields.get("use")
            title = section if use is None else f"{section}: - use: {use.default}"
            data[title] = options = _options([model])
            lines.append(title if use is not None else f"{title}:")
            lines += _option_lines({name: item for name, item in options.items() if name != "use"})
    return data, lines


def _options(models: list[type[BaseModel]]) -> dict[str, dict[str, Any]]:
    return {
        item.alias or name: {
            "type": type_name(item.annotation),
            "default": None if item.is_required() else to_jsonable_python(item.default),
            "about": item.description or "",
            **({"options": _options(nested)} if (nested := models_in(item.annotation)) else {}),
        }
        for model in models
        for name, item in model.model_fields.items()
    }


def _option_lines(options: dict[str, dict[str, Any]], indent: str = "  ") -> list[str]:
    """One line per option, followed by those of the mapping that it is."""
    lines = []
    for name, item in options.items():
        lines.append(f"{indent}{name} ({item['type']}, default {item['default']})  {item['about']}".rstrip())
        lines += _option_lines(item.get("options", {}), f"{indent}  ")
    return lines


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
    models: list[type[BaseModel]] = [cls.Config]
    stage = stage_model(info.kind, cls)
    if stage is not None:
        models.append(stage)
    options = _options(models)
    for option, value in getattr(cls, "stage_defaults", {}).items():
        options[option]["default"] = value
    data = {
        "name": name,
        "kind": info.kind,
        "target": info.target,
        "distribution": info.distribution,
        "version": cls.version,
        **_standing(cls),
        "about": (cls.__doc__ or "").strip().splitlines()[0] if cls.__doc__ else "",
        "options": options,
    }
    lines = [f"{name}: {info.kind} of {info.distribution} ({info.target}), version {cls.version}"]
    lines += [f"  {data['about']}", f"  licence: {data['licence']}"]
    lines += [f"  commercial use: {commercial_use(data['commercial_ok'])}", f"  paper: {data['paper']}"]
    lines += [f"  {mark}" for mark in _marks(data)]
    lines += ["options:", *_option_lines(options)]
    return data, lines


def _standing(cls: Any) -> dict[str, Any]:
    """Licence, paper, and what users must know before they rely on a plug-in."""
    return {
        "licence": getattr(cls, "licence", "not stated"),
        "paper": getattr(cls, "paper", ""),
        "commercial_ok": commercial_ok(cls),
        "weights": [file.name for file in getattr(cls, "weights", ())],
        "weights_not_verified": [file.name for file in unverified_files(cls)],
    }


def _marks(card: dict[str, Any]) -> list[str]:
    """At most one line: which weights the project has never run."""
    names = card["weights_not_verified"]
    if not names:
        return []
    return [UNVERIFIED if names == card["weights"] else f"{UNVERIFIED}: {', '.join(names)}"]
