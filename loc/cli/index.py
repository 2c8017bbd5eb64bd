"""``loc index``: photos that can be searched with photos, in a folder that grows and shrinks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import (
    Device,
    FeaturesOption,
    Json,
    Settings,
    Workers,
    overrides,
    print_json,
    print_line,
    print_rows,
    runtime,
)

if TYPE_CHECKING:
    from loc.stages.places import Added, Places

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the index.")]
Names = Annotated[Path | None, typer.Option("--names", help="Of a .npy: text file, a name per row.")]


def register(app: typer.Typer) -> None:
    """Add ``loc index``."""
    index = typer.Typer(
        no_args_is_help=True,
        help="Photos that can be searched with photos: build, add, remove, compact, search, info.",
    )
    for command in (build, add, remove, compact, search, info):
        index.command()(command)
    app.add_typer(index, name="index")


def build(
    photos: Annotated[Path, typer.Argument(help="Folder of photos; or vectors: hloc's .h5, or .npy.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the index.")],
    globals_: Annotated[
        str | None, typer.Option("--globals", help="Global extractor or preset; default: gem or vlad.")
    ] = None,
    features: FeaturesOption = None,
    of: Annotated[
        str | None, typer.Option(help="global: a vector per photo; local: every descriptor, which vote.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="auto, exact, ivf or ivfpq; auto goes by size.")] = None,
    settings: Settings = None,
    names: Names = None,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Make an index of a folder of photos; run it again to resume, or to add what is new."""
    from loc.errors import ConfigError
    from loc.stages.places_build import build_places
    from loc.stages.places_vectors import are_vectors

    chosen = _blocks(
        settings, features=features, globals=globals_, index=None if kind is None else {"kind": kind}
    )
    if of not in (None, "global", "local"):
        raise ConfigError(f"--of is global or local, got {of!r}", "global: a vector per photo; local: votes")
    given = are_vectors(photos)
    if given and (of or "features" in chosen or "globals" in chosen):
        raise ConfigError(
            f"{photos} holds vectors: no extractor is needed for them",
            "leave out --of, --features and --globals",
        )
    with runtime(device, workers) as where:
        places, added = build_places(
            [photos],
            output,
            of="vectors" if given else of,  # type: ignore[arg-type]
            features=chosen.get("features"),
            globals_=chosen.get("globals"),
            index=_index_config(chosen.get("index")),
            runtime=where,
            names_file=names,
        )
    _print_added(places, added, json=json)


def add(
    folder: Folder,
    photos: Annotated[list[Path], typer.Argument(help="Folders of photos, or photos.")],
    prefix: Annotated[str, typer.Option(help="Comes before the names from a new folder.")] = "",
    names: Names = None,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Add photos; those that are there and unchanged are left as they are."""
    from loc.stages.places import Places

    places = Places.open(folder)
    with runtime(device, workers) as where:
        added = places.add(photos, runtime=where, prefix=prefix, names_file=names)
    _print_added(places, added, json=json)


def remove(
    folder: Folder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, or globs: 'old/*'.")],
    json: Json = False,
) -> None:
    """Take images out of an index; no photo is touched."""
    from loc.cli.results import printable
    from loc.stages.places import Places

    places = Places.open(folder)
    gone = places.remove(names)
    if json:
        print_json({"removed": gone, "images": len(places.table.images)})
        return
    for name in gone:
        print_line(f"removed    {printable(name)}")
    print_line(f"images     {len(places.table.images)}")


def compact(folder: Folder, json: Json = False) -> None:
    """Make the index anew from what is left of it: smaller and faster, the same images."""
    from loc.stages.places import Places

    places = Places.open(folder)
    before = _total(places)
    places.compact()
    if json:
        print_json({"bytes_before": before, "bytes": _total(places), "vectors": places.vectors.info()})
    else:
        vectors = places.vectors.info()
        kept = vectors["bytes_with_earlier_generation"] - vectors["bytes"]
        print_line(f"vectors    {vectors['kind']}, {before / 1e6:.1f} → {_total(places) / 1e6:.1f} MB")
        print_line(f"kept       {kept / 1e6:.1f} MB of it for readers, until the next compaction")


def search(
    folder: Folder,
    queries: Annotated[list[Path], typer.Argument(metavar="QUERY...", help="Photos, or a file of vectors.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Images per query.")] = 20,
    names: Names = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The most similar images of each photo, unverified: see loc retrieve for what is believed."""
    from loc.cli.retrieve import print_answers
    from loc.runtime.runtime import Runtime
    from loc.stages.landmarks import Retriever, search_vectors
    from loc.stages.places import Places
    from loc.stages.places_vectors import are_vectors

    places = Places.open(folder)
    if all(are_vectors(query) for query in queries):
        answers = [each for query in queries for each in search_vectors(places, query, k, names_file=names)]
    else:
        retriever = Retriever(places, runtime=Runtime(device=device))
        answers = [retriever.search(query, k) for query in queries]
    print_answers(answers, json=json)


def info(folder: Folder, json: Json = False) -> None:
    """What an index holds, what it was made with, and whether compaction is advised."""
    from loc.stages.places import Places

    found = Places.open(folder).info()
    if json:
        print_json(found)
        return
    vectors = found["vectors"]
    photos = f"{found['images']}"
    photos += f", {found['blank']} of them blank: no search finds them" if found["blank"] else ""
    photos += f", {found['photos_missing']} no longer where they were" if found["photos_missing"] else ""
    rows = [["images", photos], ["made of", _made_of(found)]]
    for section, method in found["methods"].items():
        weights = ", ".join(found["weights"][section])
        rows.append([section, f"{method}, weights {weights}" if weights else method])
    if found["rerank"] is not None:
        rows.append(["verified", f"as by --rerank {found['rerank']}, unless loc retrieve is told otherwise"])
    for section, fit in found["fits"].items():
        rows.append(["learned", f"{section} {fit}: at the first build; queries and added photos use it"])
    for root in found["folders"]:
        rows.append(["photos in", root["path"] + (f" as {root['prefix']}/" if root["prefix"] else "")])
    rows.append(["vectors", f"{vectors['vectors']} of {vectors['dim']} values, {_layout(vectors)}"])
    rows.append(
        ["compaction", "advised: loc index compact DIR" if vectors["compaction_advised"] else "not needed"]
    )
    sizes = [f"{part} {size / 1e6:.1f} MB" for part, size in found["bytes"].items() if size >= 1e5]
    rows.append(["on disk", ", ".join(sizes) or "less than 0.1 MB"])
    print_rows(["what", "value"], rows)


def _blocks(settings: list[str] | None, **chosen: Any) -> dict[str, Any]:
    """Blocks of ``features``, ``globals`` and ``index`` by options, then every ``--set``."""
    from loc.config import apply_overrides, suggest
    from loc.errors import ConfigError

    wanted = {name: value for name, value in chosen.items() if value is not None}
    given = overrides(settings)
    for key in given:
        if key.split(".")[0] not in chosen:
            raise ConfigError(
                f"--set {key} is no option of an index", suggest(key.split(".")[0], list(chosen))
            )
    return apply_overrides(wanted, given)


def _index_config(block: dict[str, Any] | None) -> Any:
    from loc.config import validate
    from loc.config.index import IndexConfig

    return None if block is None else validate(IndexConfig, block, where="index")


def _print_added(places: Places, added: Added, *, json: bool) -> None:
    from loc.cli.results import printable

    vectors = places.vectors.info()
    if json:
        print_json(
            {
                "index": str(places.folder),
                "images": len(places.table.images),
                "features": places.card.features,
                "globals": places.card.globals,
                "new": added.new,
                "changed": added.changed,
                "unchanged": added.unchanged,
                "blank": added.blank,
                "skipped": added.skipped,
                "vectors": vectors,
            }
        )
        return
    card = places.card
    names = [block["use"] for block in (card.features, card.globals) if block is not None]
    print_line(
        f"index      {places.folder}: {len(places.table.images)} images, {' → '.join(names) or 'vectors'}"
    )
    counts = f"{len(added.new)} new, {len(added.changed)} changed, {added.unchanged} as they were"
    print_line(f"this time  {counts}")
    for name in added.blank:
        print_line(f"blank      {printable(name)}: nothing was found on it, no search finds it")
    for name, reason in added.skipped.items():
        print_line(f"skipped    {printable(name)}: {printable(reason)}")


def _made_of(found: dict[str, Any]) -> str:
    return {
        "global": "one global descriptor per photo",
        "local": "all local descriptors, which vote",
        "vectors": "vectors that were given to it",
    }[found["of"]]


def _layout(vectors: dict[str, Any]) -> str:
    text = str(vectors["kind"])
    if vectors["lists"] is not None:
        text += f", {vectors['probes']} of {vectors['lists']} lists searched"
    changed = [(vectors["delta_vectors"], "added since compaction"), (vectors["dead_vectors"], "removed")]
    return ", ".join([text, *(f"{count} {what}" for count, what in changed if count)])


def _total(places: Places) -> int:
    return sum(places.info()["bytes"].values())
