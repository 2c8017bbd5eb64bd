"""Validation of configs: sections that refuse unknown keys, and errors that name the fix."""

from __future__ import annotations

import difflib
import re
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from loc.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        if first["type"] == "union_tag_not_found":
            return ConfigError(f"{dotted} does not say which kind it is: `use:` is missing{at}", see.strip())
        kinds = re.findall(r"'([^']+)'", first["ctx"]["expected_tags"])
        wrong = str(first["ctx"]["tag"])
        return ConfigError(f"{dotted}: {wrong!r} is none of its kinds{at}", suggest(wrong, kinds) + see)
    got = first.get("input")
    shown = f", got {got!r}" if isinstance(got, str | int | float | bool | list) else ""
    return ConfigError(f"{dotted}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}{at}", see.strip())


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The nested model that a location of a validation error points into."""
    options: list[type[BaseModel]] = []
    for key in location:
        tagged = [each for each in options if each.model_fields["use"].default == key]
        field = model.model_fields.get(key)
        nested = models_in(field.annotation) if field is not None else []
        if tagged:
            model = tagged[0]
        elif len(nested) == 1:
            model = nested[0]
        elif nested:
            options = nested
    return model


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type names; those of a union are told apart by their ``use``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def type_name(annotation: Any) -> str:
    """A type as a reader of options wants it.

    >>> type_name(Literal["a", "b"] | None), type_name(int | None)
    ("'a' or 'b' or None", 'int or None')
    """
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return " or ".join(map(type_name, get_args(annotation)))
    if get_origin(annotation) is None and isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return "mapping"
        return "None" if annotation is type(None) else annotation.__name__
    return str(annotation).replace("typing.", "")


def _option_names(model: type[BaseModel]) -> dict[str, str]:
    out = {}
    for name, field in model.model_fields.items():
        kind = type_name(field.annotation)
        default = "" if field.is_required() else f", default {field.default}"
        out[field.alias or name] = f"{kind}{default}"
    return out
