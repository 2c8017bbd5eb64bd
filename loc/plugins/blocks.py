"""From a block of a config to a validated plug-in: names, presets, options."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, create_model

from loc.config import Block, RunConfig, apply_overrides, fused_blocks, read_yaml, reranks, suggest, validate
from loc.errors import ConfigError, LocError, PluginError, StoreError
from loc.plugins.photos import Photos
from loc.plugins.precision import resolve_precision
from loc.plugins.protocols import Kind, PluginConfig
from loc.plugins.registry import list_plugins, load_plugin
from loc.weights.card import WeightFile
from loc.weights.files import find, identity, locate
from loc.weights.licence import require_licence

#: Name of the arrays in the product of a fit.
STATE = "state.npz"
SECTIONS: dict[str, Kind] = {"features": "extractor", "globals": "global", "matcher": "matcher"}


@dataclass(frozen=True)
class ResolvedPlugin:
    """A plug-in chosen by a config: its class, its validated options, and the runtime's.

    ``stage_options`` are the options that the runtime, not the plug-in, acts on
    (``resize_max`` of anything that looks at pixels). ``state`` is the product with what an extractor
    learned from the database images, or None.
    """

    kind: Kind
    name: str
    cls: Any
    config: PluginConfig
    stage_options: dict[str, Any]
    state: Path | None = None

    def build(self, *, device: str = "cpu") -> Any:
        """The plug-in, ready to be called; whatever its constructor raises names it."""
        try:
            plugin = self.cls(self.config, device=device, dtype="float32")
            if self.state is not None:
                plugin.load_state(_arrays(self.state / STATE))
            return plugin
        except LocError:
            raise
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.name} cannot be built: {type(error).__name__}: {error}",
                f"see: loc plugins {self.name}",
            ) from error

    def fingerprint_fields(self) -> dict[str, Any]:
        """What changes this plug-in's numbers, for :func:`loc.stores.fingerprint`."""
        fields = {
            "plugin": self.name,
            "version": self.cls.version,
            "config": self.config.model_dump(mode="json"),
            "stage_options": self.stage_options,
            "weights": [identity(file) for file in self.weights],
        }
        if hasattr(self.cls, "inputs"):  # files and programs that the options name
            fields |= {"inputs": self.cls.inputs(self.config)}
        return fields if self.state is None else {**fields, "fit": self.state.name}

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
    def reads_images(self) -> bool:
        """Whether it is a matcher that finds its own points."""
        return self.kind == "matcher" and reads_images(self.cls)

    @property
    def needs_fit(self) -> bool:
        """Whether this configuration learns from the database before it describes an image."""
        if not getattr(self.cls, "needs_fit", False):
            return False
        return bool(self.cls.learns(self.config)) if hasattr(self.cls, "learns") else True

    @property
    def regions(self) -> int:
        """Vectors in each row of this global extractor; more than one for a regional descriptor."""
        return int(self.cls.regions(self.config)) if hasattr(self.cls, "regions") else 1

    @property
    def own_ranking(self) -> Callable[[Any], Any] | None:
        """Makes a ranking of a database's rows, where they are no vectors to be compared by product."""
        return partial(self.cls.ranking, self.config) if hasattr(self.cls, "ranking") else None

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
            if find(file) is None and hasattr(self.config, "accept_license"):  # downloading is using
                require_licence(self.name, file, accepted=self.config.accept_license)
            locate(file)
        if getattr(self.config, "precision", None) != "auto":
            return self
        settled = {"precision": resolve_precision("auto", device())}
        return replace(self, config=self.config.model_copy(update=settled))


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"the fit {path.parent} cannot be read: {error}", f"delete the folder {path.parent} and run again"
        ) from error


class StageOptions(PluginConfig):
    """Options every plug-in that looks at pixels has, handled by the runtime."""

    resize_max: int | None = 1600


class DenseOptions(StageOptions):
    """Options of every matcher that finds its own points, handled by :mod:`loc.stages.correspond`."""

    max_keypoints: int = Field(8192, ge=1, description="most shared keypoints of an image")
    spacing_px: float | None = Field(
        None, gt=0, description="between shared keypoints, px of the stored image; null: the matcher's own"
    )


def stage_model(kind: Kind, cls: Any) -> type[StageOptions] | None:
    """The options of a plug-in that others than itself act on; None for one that sees no pixels."""
    if kind == "matcher":
        return DenseOptions if reads_images(cls) else None
    return StageOptions if kind == "extractor" or cls.source == "image" else None


def reads_images(cls: Any) -> bool:
    """Whether a matcher finds its own points in the images (:class:`loc.plugins.protocols.DenseMatcher`)."""
    return "images" in getattr(cls, "requires", ())


def configs_folder() -> Path:
    """Folder of the shipped configs: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def presets(section: str) -> dict[str, Path]:
    """Preset name → file, for one section (``features``, ``globals``, ``matcher``)."""
    return {path.stem: path for path in sorted((configs_folder() / section).glob("*.yaml"))}


def resolve_block(section: str, block: Block | str | None, *, source: str = "") -> ResolvedPlugin:
    """Validate one plug-in block; a preset's options come first, then the block's own.

    ``features: null`` is a block too: of the plug-in that only looks whether photos can be read.
    """
    kind = SECTIONS[section]
    if block is None and section == "features":
        return ResolvedPlugin(kind, "photos", Photos, Photos.Config(), dict(Photos.stage_defaults))
    block = {"use": block} if isinstance(block, str) else dict(block or {})
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
    stage_cls = stage_model(kind, cls)
    stage_fields = {} if stage_cls is None else stage_cls.model_fields
    if taken := sorted(set(stage_fields) & set(cls.Config.model_fields)):
        raise PluginError(
            f"{kind} {name} has options that the runtime acts on itself: {', '.join(taken)}",
            "rename them in its Config, or set stage_defaults where another default is wanted",
        )
    own = {key: value for key, value in block.items() if key not in stage_fields}
    merged = create_model(  # so that "did you mean" also offers the runtime's options
        cls.Config.__name__,
        __base__=_bases(cls.Config, stage_cls),
    )
    validate(merged, block, where=section, source=source, hint=f"loc plugins {name}")
    chosen = getattr(cls, "stage_defaults", {}) | {key: block[key] for key in stage_fields if key in block}
    return ResolvedPlugin(
        kind=kind,
        name=name,
        cls=cls,
        config=cls.Config.model_validate(own),
        stage_options={} if stage_cls is None else stage_cls.model_validate(chosen).model_dump(mode="json"),
    )


def _bases(config: type[PluginConfig], stage: type[StageOptions] | None) -> Any:
    """What a model of both kinds of options derives from."""
    if stage is None:
        return config
    return stage if issubclass(stage, config) else (config, stage)  # a plug-in may have no options


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
    plugins = {
        section: resolve_block(section, getattr(config, section), source=source)
        for section in SECTIONS
        if section == "features" or getattr(config, section) is not None
    }
    fused = [resolve_block("globals", block, source=source) for block in fused_blocks(config.pairs).values()]
    if config.features is None:
        described = [plugins["globals"], *fused] if "globals" in plugins else fused
        _check_without_features(config, plugins["matcher"], described, source)
    return config


def _check_without_features(
    config: RunConfig, matcher: ResolvedPlugin, described: list[ResolvedPlugin], source: str
) -> None:
    """Raise where something reads the local features that ``features: null`` does not give."""
    at = f" ({source})" if source else ""
    if not reads_images(matcher.cls):
        raise ConfigError(
            f"features: null{at}, but matcher {matcher.name} reads {', '.join(sorted(matcher.cls.requires))}",
            "name features, e.g. features=sift, or a matcher that finds its own points, e.g. matcher=loftr",
        )
    if reranks(config.pairs):
        raise ConfigError(
            f"features: null{at}, but pairs are re-ranked by local features",
            "name features, e.g. features=sift: they then serve retrieval alone; or take rerank out of pairs",
        )
    for globals_ in described:
        if globals_.cls.source == "features":
            raise ConfigError(
                f"features: null{at}, but globals {globals_.name} describes an image by its local features",
                "set globals=null (no retrieval), or name features: they then serve retrieval alone",
            )


__all__ = ["ResolvedPlugin", "configs_folder", "load_config", "presets", "resolve_block"]
