"""The first build of an index of photos: its method is settled here, and learned once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loc.config.index import IndexConfig
from loc.errors import ConfigError, DataError, StoreError
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.runtime.runtime import Runtime
from loc.stages.places import PARTS, Added, Places, taking_turns
from loc.stages.places_describe import settled
from loc.stages.places_files import FILE, Card, Of, read_card, write_card
from loc.stages.places_photos import given_photos
from loc.stores.files import remove_tree


def build_places(
    items: Sequence[Path],
    folder: Path,
    *,
    of: Of | None = None,
    features: dict[str, Any] | str | None = None,
    globals_: dict[str, Any] | str | None = None,
    index: IndexConfig | None = None,
    runtime: Runtime | None = None,
    names_file: Path | None = None,
) -> tuple[Places, Added]:
    """Make an index of photos, or go on with one whose build was stopped.

    Of a finished index what is new or changed is added, as by :meth:`Places.add`.

    Args:
        items: a folder of photos; of given vectors, their file.
        of: default ``global``, or that of the index that is there.
        features, globals_: plug-in blocks; default sift, and :func:`default_globals`. ``features="none"``: no
            local features until a search wants to verify.

    Raises:
        StoreError: the folder holds an index made otherwise.
        DataError: the folder holds something else, or nothing in ``items`` can be described.
    """
    runtime = runtime or Runtime()
    started = (folder / FILE).is_file() and (read_card(folder).complete or (folder / "images").is_dir())
    if started:
        card = _same_method(folder, of, features, globals_, index)
        if index is not None and not card.complete and index.model_dump(mode="json") != card.index:
            card = card.model_copy(update={"index": index.model_dump(mode="json")})
            started = False
    else:
        card = _new_card(of or "global", features, globals_, index or IndexConfig(), runtime)
        _refuse_foreign(folder)
        _require_there(items, card)
    with taking_turns(folder):
        if not started:
            remove_tree(folder / "vectors")  # of an unfinished build: made again from what is in the stores
            write_card(folder, card)
        places = Places(folder)
        added = places.add(items, runtime=runtime, names_file=names_file)
        if not places.has_vectors:
            raise DataError(
                f"there is nothing to index: no vector for any of {len(places.table.images) or 'the'} images",
                "check that the photos can be read and are not blank: loc doctor PHOTOS",
            )
        if not places.card.complete:
            places.compact()  # trains and lays out what `auto` chooses for so many
            places.write(places.card.model_copy(update={"complete": True}))
    return places, added


def default_globals() -> str:
    """The global extractor of a new index: ``gem`` where its weights are at hand, else ``vlad``.

    Nothing is downloaded for it, and the index says which it was (docs/index.md has both measured).
    """
    return "gem" if resolve_block("globals", "gem").is_here else "vlad"


def _new_card(
    of: Of,
    features: dict[str, Any] | str | None,
    globals_: dict[str, Any] | str | None,
    index: IndexConfig,
    runtime: Runtime,
) -> Card:
    options: dict[str, Any] = index.model_dump(mode="json")
    if of == "vectors":
        return Card(of=of, index=options)
    extractor = _ready("features", "sift" if features is None else features, runtime)
    describer = None if of == "local" else _ready("globals", globals_ or default_globals(), runtime)
    if extractor is None and (describer is None or describer.cls.source == "features"):
        what = "an index of local features" if describer is None else f"globals {describer.name}"
        raise ConfigError(f"{what} cannot be made without local features", "name some: --features sift")
    if describer is not None and describer.own_ranking is not None:
        raise ConfigError(
            f"globals {describer.name} are visual words, and the index holds vectors",
            "take vlad, rvlad or gem, or index the local features themselves: --of local",
        )
    return Card(
        of=of,
        features=None if extractor is None else settled(extractor),
        globals=None if describer is None else settled(describer),
        index=options,
    )


def _ready(section: str, block: dict[str, Any] | str, runtime: Runtime) -> ResolvedPlugin | None:
    if block == "none" and section == "features":
        return None
    return resolve_block(section, block).ready(runtime.torch_device)


def _same_method(
    folder: Path,
    of: Of | None,
    features: dict[str, Any] | str | None,
    globals_: dict[str, Any] | str | None,
    index: IndexConfig | None,
) -> Card:
    """The card of the index that is there, if it is the one that was asked for."""
    card = read_card(folder)
    asked: dict[str, Any] = {} if of is None else {"of": of}
    if index is not None and card.complete:
        asked["index"] = index.model_dump(mode="json")
    for section, block in (("features", features), ("globals", globals_)):
        if block == "none":
            asked[section] = None
        elif block is not None:
            known = getattr(card, section) or {}
            options = settled(resolve_block(section, block))
            asked[section] = {  # precision: auto is what it was settled to
                name: known.get(name) if value == "auto" else value for name, value in options.items()
            }
    for name, value in asked.items():
        if value != getattr(card, name):
            raise StoreError(
                f"{folder} is an index with {name} {_told(getattr(card, name), value)}, "
                f"and {_told(value, getattr(card, name))} was asked for",
                "leave the option out to go on with that index, or choose another folder with -o",
            )
    return card


def _require_there(items: Sequence[Path], card: Card) -> None:
    """Raise where there is nothing to build of, before anything is written."""
    if card.of != "vectors":
        given_photos(items, card, {})
    for item in items:
        if not item.exists():
            raise DataError(f"{item} does not exist", "give hloc's global descriptors (.h5), or a .npy")


def _told(value: Any, other: Any) -> str:
    """A block in a few words: of the same plug-in, the options that differ."""
    if not isinstance(value, dict):
        return "none" if value is None else str(value)
    if not isinstance(other, dict) or other.get("use") != value.get("use"):
        return str(value.get("use"))
    return ", ".join(f"{key}={each}" for key, each in value.items() if other.get(key) != each)


def _refuse_foreign(folder: Path) -> None:
    """An index in a folder of other things, of photos perhaps, would be a mess to take apart."""
    if not folder.is_dir():
        return
    known = {*PARTS, FILE, ".lock"}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if foreign:
        raise DataError(
            f"{folder} is no index, and it is not empty: it has {foreign[0]!r}",
            "choose a new folder with -o",
        )
