"""The configuration of a run: pydantic models, YAML, ``--set``, and errors that name the fix.

A plug-in block (``features``, ``globals``, ``matcher``) is ``{use: NAME, option: value, …}`` or a
bare name (a plug-in or a preset); its options are validated by the plug-in's own ``Config``
(:mod:`loc.plugins.blocks`). There is no inheritance, no interpolation and no ``eval``.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loc.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
Block = dict[str, Any]


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SceneConfig(Section):
    """Where the photos are and what is known about them (see :mod:`loc.layouts`).

    Relative paths are relative to the working directory.
    """

    layout: Literal["folder", "colmap", "hloc"] = "folder"
    images: Path | None = Field(None, description="image root: names are relative to it")
    queries: Path | None = Field(
        None, description="folder: a folder of query photos; hloc and colmap: a query list"
    )
    masks: Path | None = Field(None, description="folder of masks, <name>.png; zero hides keypoints")
    model: Path | None = Field(None, description="colmap: reference model with known poses")
    image_list: Path | None = Field(None, description="hloc: list of database images")
    intrinsics: Path | None = Field(None, description="list 'name MODEL W H params…' (globs allowed)")
    cameras: Literal["per_folder", "per_image", "single"] = "per_folder"
    camera_model: str = "SIMPLE_RADIAL"
    ground_truth: Path | None = Field(None, description="true query poses: name qw qx qy qz tx ty tz")


class ExhaustivePairs(Section):
    use: Literal["exhaustive"] = "exhaustive"
    for_: Literal["map", "query", "both"] = Field("map", alias="for")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RetrievalPairs(Section):
    use: Literal["retrieval"] = "retrieval"
    for_: Literal["map", "query", "both"] = Field("both", alias="for")
    k: int = Field(20, ge=1, description="database images per image")
    min_similarity: float | None = None
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class CovisibilityPairs(Section):
    use: Literal["covisibility"] = "covisibility"
    for_: Literal["map"] = Field("map", alias="for")
    k: int = Field(20, ge=1, description="images that share most 3-D points of the reference model")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ListedPairs(Section):
    use: Literal["list"] = "list"
    for_: Literal["map", "query", "both"] = Field("map", alias="for")
    path: Path
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class AutoPairs(Section):
    """Exhaustive below ``exhaustive_below`` database images, retrieval with ``k`` above."""

    use: Literal["auto"] = "auto"
    for_: Literal["map", "query", "both"] = Field("both", alias="for")
    exhaustive_below: int = Field(60, ge=0)
    k: int = Field(20, ge=1)
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


PairsConfig = Annotated[
    ExhaustivePairs | RetrievalPairs | CovisibilityPairs | ListedPairs | AutoPairs,
    Field(discriminator="use"),
]


class MapConfig(Section):
    """How the map is made (:mod:`loc.stages.map`)."""

    mode: Literal["auto", "reconstruct", "triangulate"] = Field(
        "auto", description="auto: triangulate if every database image has a known pose"
    )
    mapper: Literal["incremental", "global"] = "incremental"
    verification: Literal["auto", "two_view", "known_poses"] = Field(
        "auto", description="auto: known_poses when triangulating, two_view otherwise"
    )
    max_error_px: float = Field(4.0, gt=0, description="verification threshold")
    min_num_inliers: int = Field(15, ge=1, description="verified matches below which a pair is dropped")
    min_model_size: int = Field(3, ge=2)
    refine_intrinsics: Literal["auto", "always", "never"] = Field(
        "auto", description="auto: cameras whose focal length is not known"
    )
    deterministic: bool = Field(True, description="pin native threads that change results")
    timeout_s: float | None = Field(None, gt=0, description="stop a hanging mapper after this long")


class LocalizeConfig(Section):
    """Pose estimation of queries and the thresholds of their status (:mod:`loc.stages.localize`)."""

    max_error_px: float = Field(12.0, gt=0, description="RANSAC threshold")
    min_inliers_ok: int = Field(30, ge=3)
    min_inlier_ratio_ok: float = Field(0.25, ge=0, le=1)
    min_inliers: int = Field(12, ge=3, description="below: pnp_failed")
    max_rotation_std_deg: float = Field(
        0.2, gt=0, description="ok: formal standard deviation of the rotation at most this"
    )
    max_position_std: float = Field(
        0.02, gt=0, description="ok: that of the position, relative to the distance of the inliers"
    )
    focal: Literal["auto", "fixed", "estimate"] = Field(
        "auto", description="auto: given intrinsics are fixed, EXIF's refined, a guess estimated"
    )


class EvaluateConfig(Section):
    """Recall thresholds as [world units, degrees]."""

    thresholds: tuple[tuple[float, float], ...] = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))


class RunConfig(Section):
    """Everything that changes the numbers of a run; device and workers live in ``Runtime``."""

    scene: SceneConfig = SceneConfig()
    features: Block | str = "sift"
    globals: Block | str | None = "vlad"
    matcher: Block | str = "nearest"
    pairs: tuple[PairsConfig, ...] = (AutoPairs(),)
    map: MapConfig = MapConfig()
    localize: LocalizeConfig = LocalizeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


_SEE = "see: loc plugins config"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: one of the two values would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise _Twice(key.value, key.start_mark.line + 1)
            if isinstance(key, yaml.ScalarNode):
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


def validate(model: type[M], data: dict[str, Any], *, where: str, source: str = "", hint: str = "") -> M:
    """Build ``model`` from ``data``; a mistake becomes a :class:`ConfigError` that names the fix.

    Args:
        where: dotted prefix of the keys in messages, e.g. ``features``.
        source: file the data came from, for the message.
        hint: what to type to see the options, appended to the next step.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _config_error(model, error, where=where, source=source, hint=hint) from error


def suggest(wrong: str, candidates: list[str]) -> str:
    """``did you mean X?`` or the list of what there is."""
    close = difflib.get_close_matches(wrong, candidates, n=1, cutoff=0.5)
    if not close:  # `max_kpts` is far from `max_keypoints` by edit distance, yet what was meant
        stem = wrong.split("_")[0]
        close = [name for name in candidates if name.split("_")[0] == stem][:1]
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(candidates))}"


def _config_error(
    model: type[BaseModel], error: ValidationError, *, where: str, source: str, hint: str
) -> ConfigError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    dotted = ".".join([where, *location]) if where else ".".join(location)
    at = f" ({source})" if source else ""
    see = f"   see: {hint or 'loc plugins config'}"
    if first["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        names = _option_names(owner)
        parent = ".".join(dotted.split(".")[:-1]) or "a run"
        described = suggest(location[-1], list(names))
        for name, about in names.items():
            if f"mean {name}?" in described:
                described = f"did you mean {name} ({about})?"
        return ConfigError(f"{dotted} is not an option of {parent}{at}", described + see)
    got = first.get("input")
    shown = f", got {got!r}" if isinstance(got, str | int | float | bool | list) else ""
    return ConfigError(f"{dotted}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}{at}", see.strip())


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The nested model that a location of a validation error points into."""
    for key in location:
        field = model.model_fields.get(key)
        nested = field.annotation if field is not None else None
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            model = nested
        else:
            for candidate in (ExhaustivePairs, RetrievalPairs, CovisibilityPairs, ListedPairs, AutoPairs):
                if candidate.model_fields["use"].default == key:
                    model = candidate
    return model


def section_models(section: str) -> tuple[type[BaseModel], ...]:
    """What validates a section of :class:`RunConfig`; none for a block of a plug-in."""
    if section == "pairs":
        return (AutoPairs, ExhaustivePairs, RetrievalPairs, CovisibilityPairs, ListedPairs)
    kind = RunConfig.model_fields[section].annotation
    return (kind,) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def type_name(annotation: Any) -> str:
    """A type as a reader of options wants it.

    >>> type_name(Literal["a", "b"]), type_name(Path | None)
    ("'a' or 'b'", 'Path or None')
    """
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if isinstance(annotation, UnionType):
        return " or ".join(map(type_name, get_args(annotation)))
    if get_origin(annotation) is None and isinstance(annotation, type):
        return "None" if annotation is type(None) else annotation.__name__
    return str(annotation).replace("typing.", "")


def _option_names(model: type[BaseModel]) -> dict[str, str]:
    out = {}
    for name, field in model.model_fields.items():
        kind = type_name(field.annotation)
        default = "" if field.is_required() else f", default {field.default}"
        out[field.alias or name] = f"{kind}{default}"
    return out


def _default_block(section: str) -> str:
    return str(RunConfig.model_fields[section].default)


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, list) else data
