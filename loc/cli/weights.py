"""``loc weights``: what is here, where it is from, and under which licence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import Json, print_json, print_line, print_rows
from loc.cli.weights_convert import convert

if TYPE_CHECKING:
    from loc.weights.card import WeightFile

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
    for plugin, file in _chosen(names):
        found = find(file)
        cards.append(
            {
                "file": file.name,
                "plugin": plugin,
                "licence": file.licence,
                "commercial_ok": file.commercial_ok,
                "output_checked": file.output_checked,
                "path": str(found) if found else None,
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
                card["path"] or "—",
                "" if card["output_checked"] else UNVERIFIED,
            ]
            for card in cards
        ],
    )


def fetch(names: Names = None) -> None:
    """Download weights into the cache; what is partly there is continued."""
    from loc.errors import WeightsError
    from loc.weights.files import locate

    failed: list[WeightsError] = []
    for _, file in _chosen(names):
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
    for _, file in _chosen(names):
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
    for _, file in _chosen(names):
        found = find(file)
        if found is None:
            raise WeightsError(f"{file.name} is not on this machine", f"loc weights fetch {file.name}")
        print_line(str(found))


def _chosen(names: list[str] | None) -> list[tuple[str, WeightFile]]:
    """(plug-in, file) of all plug-ins that have weights, or those of the plug-ins or files named."""
    from loc.config import suggest
    from loc.errors import ConfigError, PluginError
    from loc.plugins.registry import list_plugins, load_plugin

    known: list[tuple[str, Any]] = []
    for info in list_plugins():
        try:
            cls = load_plugin(info.kind, info.name)
        except PluginError:  # `loc plugins` tells of it
            continue
        known += [(info.name, file) for file in getattr(cls, "weights", ())]
    if not names:
        return known
    wanted: list[tuple[str, Any]] = []
    for name in names:
        found = [(plugin, file) for plugin, file in known if Path(name).name in (plugin, file.name)]
        if not found:
            there = sorted({each for plugin, file in known for each in (plugin, file.name)})
            raise ConfigError(
                f"no plug-in or weights file is called {name!r}",
                f"{suggest(name, there)}   see: loc weights list",
            )
        wanted += [pair for pair in found if pair not in wanted]
    return wanted
