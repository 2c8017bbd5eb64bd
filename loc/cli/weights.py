"""``loc weights``: what is here, where it is from, and under which licence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from loc.cli.console import Json, print_json, print_line, print_rows
from loc.cli.weights_convert import convert

if TYPE_CHECKING:
    from loc.weights.card import WeightFile


class _Listed(NamedTuple):
    """A file of a plug-in; ``needed`` is False where another file takes its place or it takes none."""

    plugin: str
    file: WeightFile
    needed: bool


Names = Annotated[list[str] | None, typer.Argument(help="Plug-ins or file names; none: all.")]


def register(app: typer.Typer) -> None:
    """Add ``loc weights``."""
    weights = typer.Typer(
        no_args_is_help=True, help="Weights of plug-ins: list, fetch, verify, path, convert."
    )
    weights.command("list")(list_weights)
    weights.command()(fetch)
    weights.command()(verify)
    weights.command()(path)
    weights.command()(convert)
    app.add_typer(weights, name="weights")


def list_weights(names: Names = None, json: Json = False) -> None:
    """Every file of weights: its plug-in, licence, and where it is on this machine."""
    from loc.plugins.standing import UNVERIFIED, commercial_use
    from loc.weights.files import find, pinned

    cards: list[dict[str, Any]] = []
    for plugin, file, needed in _chosen(names):
        found = find(file)
        cards.append(
            {
                "file": file.name,
                "plugin": plugin,
                "licence": file.licence,
                "commercial_ok": file.commercial_ok,
                "output_checked": file.output_checked,
                "path": str(found) if found else None,
                "needed": needed,
                "offered": file.offered,
                "sha256": file.sha256 or pinned(file),
                "sha256_is": "published" if file.sha256 else ("pinned" if pinned(file) else None),
                "url": file.url,
                "mirrors": list(file.mirrors),
                "paper": file.paper,
                "note": file.note,
            }
        )
    if json:
        print_json(cards)
        return
    print_rows(
        ["file", "plug-in", "commercial use", "licence", "where", ""],
        [
            [
                card["file"],
                card["plugin"],
                commercial_use(card["commercial_ok"]),
                card["licence"],
                card["path"] or _absence(needed=card["needed"], offered=card["offered"]),
                "" if card["output_checked"] else UNVERIFIED,
            ]
            for card in cards
        ],
    )


def _absence(*, needed: bool, offered: bool) -> str:
    """What stands for the place of a file that is not here."""
    if not offered:
        return "offered nowhere"
    return "—" if needed else "not needed"


def fetch(names: Names = None) -> None:
    """Download weights into the cache; what is partly there is continued."""
    from loc.errors import WeightsError
    from loc.weights.files import locate

    failed: list[WeightsError] = []
    for _, file in _wanted(names):
        try:
            print_line(str(locate(file)))
        except WeightsError as error:  # the others may still come
            failed.append(error)
    if failed:
        message = "; ".join(error.message for error in failed)
        raise WeightsError(f"{len(failed)} could not be fetched: {message}", failed[0].next_step)


def verify(
    names: Names = None,
    repin: Annotated[bool, typer.Option("--repin", help="Trust the files that are here now.")] = False,
) -> None:
    """Check the SHA-256 of every file that is here; of those named, each must be."""
    from loc.errors import WeightsError
    from loc.weights import files

    failed: list[WeightsError] = []
    for _, file, _ in _chosen(names):
        found = files.find(file)
        try:
            if found is not None:
                trust = repin and file.sha256 is None
                digest = files.repin(file, found) if trust else files.verify(file, found)
                print_line(f"ok  {file.name}  {digest}")
            elif names and file.name in names:
                raise WeightsError(f"{file.name} is not on this machine", f"loc weights fetch {file.name}")
        except WeightsError as error:  # the others are checked all the same
            failed.append(error)
    if failed:
        raise WeightsError("; ".join(error.message for error in failed), failed[0].next_step)


def path(names: Names = None) -> None:
    """The folders that are searched; with names: where those files are."""
    from loc.errors import WeightsError
    from loc.weights.files import find, search_folders

    if not names:
        for folder in search_folders():
            print_line(str(folder))
        return
    for _, file in _wanted(names):
        found = find(file)
        if found is None:
            raise WeightsError(f"{file.name} is not on this machine", f"loc weights fetch {file.name}")
        print_line(str(found))


def _wanted(names: list[str] | None) -> list[tuple[str, WeightFile]]:
    """(plug-in, file) without what is not needed, unless it is named itself."""
    own = {Path(name).name for name in names or ()}
    return [(plugin, file) for plugin, file, needed in _chosen(names) if needed or file.name in own]


def _chosen(names: list[str] | None) -> list[_Listed]:
    """The files of all plug-ins that have weights, or those of the plug-ins or files named."""
    from loc.config import suggest
    from loc.errors import ConfigError, PluginError
    from loc.plugins.registry import list_plugins, load_plugin
    from loc.weights.files import needed

    known: list[_Listed] = []
    for info in list_plugins():
        try:
            cls = load_plugin(info.kind, info.name)
        except PluginError:  # `loc plugins` tells of it
            continue
        files = getattr(cls, "weights", ())
        known += [_Listed(info.name, file, file in needed(files)) for file in files]
    if not names:
        return known
    wanted: list[_Listed] = []
    for name in names:
        found = [each for each in known if Path(name).name in (each.plugin, each.file.name)]
        if not found:
            there = sorted({each for plugin, file, _ in known for each in (plugin, file.name)})
            raise ConfigError(
                f"no plug-in or weights file is called {name!r}",
                f"{suggest(name, there)}   see: loc weights list",
            )
        wanted += [each for each in found if each not in wanted]
    return wanted
