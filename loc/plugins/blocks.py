"""From a block of a config to a validated plug-in: names, presets, options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import create_model

from loc.config import Block, RunConfig, apply_overrides, read_yaml, suggest, validate
from loc.errors import ConfigError, LocError, PluginError
from loc.plugins.precision import resolve_precision
from loc.plugins.protocols import Kind, PluginConfig
from loc.plugins.registry import list_plugins, load_plugin
from loc.weights.card import WeightFile
from loc.weights.files import find, identity, locate

SECTIONS: dict[str, Kind] = {"features": "extractor", "globals": "global", "matcher": "matcher"}


@dataclass(frozen=True)
class ResolvedPlugin:
    """A plug-in chosen by a config: its class, its validated options, and the runtime's.

    ``stage_options`` are the options that the runtime, not the plug-in, acts on
    (``resize_max`` of anything that looks at pixels).
    """

    kind: Kind
    name: str
    cls: Any
    config: PluginConfig
    stage_options: dict[str, Any]

    def build(self, *, device: str = "cpu") -> Any:
        """The plug-in, ready to be called; whatever its constructor raises names it."""
        try:
            return self.cls(self.config, device=device, dtype="float32")
        except LocError:
            raise
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.name} cannot be built: {type(error).__name__}: {error}",
                f"see: loc plugins {self.name}",
            ) from error

    def fingerprint_fields(self) -> dict[str, Any]:
        """What changes this plug-in's numbers, for :func:`loc.stores.fingerprint`."""
        return {
            "plugin": self.name,
            "version": self.cls.version,
            "config": self.config.model_dump(mode="json"),
            "stage_options": self.stage_options,
            "weights": [identity(file) for file in self.weights],
        }

    @property
    def weights(self) -> tuple[WeightFile, ...]:
        """The files this configuration needs."""
        if hasattr(self.cls, "weights_for"):
            chosen: tuple[WeightFile, ...] = self.cls.weights_for(self.config)
            return chosen
        return tuple(getattr(self.cls, "weights", ()))

    def for_features(self, extractor: ResolvedPlugin) -> ResolvedPlugin:
        """This matcher set up for the features of ``extractor``; most match anything and stay as they are.

        Raises:
            PluginError: it cannot match these features.
        """
        if not hasattr(self.cls, "for_features"):
            return self
        return replace(self, config=self.cls.for_features(self.config, extractor.name))

    @property
    def is_here(self) -> bool:
        """Whether all of its weights are on this machine."""
        return all(find(file) is not None for file in self.weights)

    def ready(self, device: Callable[[], str], *, fetch: bool = True) -> ResolvedPlugin:
        """This plug-in with its weights on this machine, and `precision: auto` replaced by what it means.

        Both are part of the fingerprint, so this comes before any folder is named.

        Args:
            device: gives the device's name for torch; called only where the answer matters.
            fetch: bring missing weights here; without, they stay missing.

        Raises:
            WeightsError: weights are missing and cannot be downloaded, or are not the expected ones.
        """
        for file in self.weights if fetch else ():
            locate(file)
        if getattr(self.config, "precision", None) != "auto":
            return self
        settled = {"precision": resolve_precision("auto", device())}
        return replace(self, config=self.config.model_copy(update=settled))


class StageOptions(PluginConfig):
    """Options every plug-in that looks at pixels has, handled by the runtime."""

    resize_max: int | None = 1600


def configs_folder() -> Path:
    """Folder of the shipped configs: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def presets(section: str) -> dict[str, Path]:
    """Preset name → file, for one section (``features``, ``globals``, ``matcher``)."""
    return {path.stem: path for path in sorted((configs_folder() / section).glob("*.yaml"))}


def resolve_block(section: str, block: Block | str, *, source: str = "") -> ResolvedPlugin:
    """Validate one plug-in block; a preset's options come first, then the block's own."""
    kind = SECTIONS[section]
    block = {"use": block} if isinstance(block, str) else dict(block)
    name = block.pop("use", None)
    if not isinstance(name, str):
        raise ConfigError(f"{section} needs `use:` with the name of a plug-in", "see: loc plugins")
    registered = {info.name for info in list_plugins(kind)}
    known = presets(section)
    if name not in registered and name in known:
        block = {**read_yaml(known[name]), **block}
        source = source or str(known[name])
        name = block.pop("use")
    elif name not in registered and ":" not in name:
        raise ConfigError(
            f"{section}: no plug-in or preset is called {name!r}{f' ({source})' if source else ''}",
            f"{suggest(name, sorted(registered | set(known)))}   see: loc plugins",
        )
    cls = load_plugin(kind, name)
    looks_at_pixels = kind == "extractor" or getattr(cls, "source", None) == "image"
    stage_fields = StageOptions.model_fields if looks_at_pixels else {}
    own = {key: value for key, value in block.items() if key not in stage_fields}
    merged = create_model(  # so that "did you mean" also offers the runtime's options
        cls.Config.__name__,
        __base__=(cls.Config, StageOptions) if looks_at_pixels else cls.Config,
    )
    validate(merged, block, where=section, source=source, hint=f"loc plugins {name}")
    stage = StageOptions.model_validate(
        getattr(cls, "stage_defaults", {}) | {key: block[key] for key in stage_fields if key in block}
    )
    return ResolvedPlugin(
        kind=kind,
        name=name,
        cls=cls,
        config=cls.Config.model_validate(own),
        stage_options=stage.model_dump(mode="json") if looks_at_pixels else {},
    )


def load_config(
    path: str | Path | dict[str, Any] | None = None, overrides: dict[str, Any] | None = None
) -> RunConfig:
    """Read and validate a run's configuration: a YAML file, a shipped config's name, or a dict.

    Args:
        path: file, name of a shipped config, mapping, or None for the defaults.
        overrides: dotted keys set on the tree before validation, as by ``--set``.

    Raises:
        ConfigError: naming the key, what is allowed, and the nearest valid name.
    """
    source = ""
    if path is None or isinstance(path, dict):
        data = dict(path or {})
    else:
        file = Path(path)
        shipped = {item.stem: item for item in sorted(configs_folder().glob("*.yaml"))}
        if not file.exists() and str(path) in shipped:
            file = shipped[str(path)]
        elif not file.exists():
            raise ConfigError(
                f"no config {path}", f"give a YAML file or a shipped one: {', '.join(shipped) or 'none'}"
            )
        source, data = str(file), read_yaml(file)
    data = apply_overrides(data, overrides or {})
    config = validate(RunConfig, data, where="", source=source, hint="loc plugins config")
    for section in SECTIONS:
        block = getattr(config, section)
        if block is not None:
            resolve_block(section, block, source=source)
    return config


__all__ = ["ResolvedPlugin", "configs_folder", "load_config", "presets", "resolve_block"]
