"""``loc export`` and ``loc import``: the formats of other tools."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from loc.cli.console import Json, print_json, print_line, runtime

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Map = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder with a finished map, or a map's folder.")
]
Folder = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to make.")]
File = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to make.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a former export.")]
Images = Annotated[Path, typer.Option(help="Image root: names are relative to it.")]
Given = Annotated[
    Path | None, typer.Option(help="List 'name MODEL W H PARAMS' to use instead of the file's intrinsics.")
]


class ModelFormat(str, Enum):
    """How a COLMAP model is written."""

    bin = "bin"
    txt = "txt"


export = typer.Typer(
    no_args_is_help=True,
    help="Write a run for other tools: hloc, COLMAP, D2-Net, DELF, PLY, CSV, nerfstudio.",
)
import_ = typer.Typer(
    no_args_is_help=True, help="Take over what other tools made: hloc, D2-Net, DELF, Bundler, NVM."
)


def register(app: typer.Typer) -> None:
    """Add ``loc export`` and ``loc import``."""
    app.add_typer(export, name="export")
    app.add_typer(import_, name="import")


@export.command("hloc")
def export_hloc(
    run: Run,
    output: Folder,
    matches: Annotated[bool, typer.Option(help="Write matches.h5 too.")] = True,
    force: Force = False,
    json: Json = False,
) -> None:
    """features.h5, global-feats.h5, matches.h5, pairs, sfm/, results: what hloc would have written."""
    from loc.exchange.hloc_export import export_hloc as write

    done = write(run, output, matches=matches, force=force)
    _say(
        done.to_json(),
        [f"{name}: {count}" for name, count in done.items.items()],
        done.notes,
        output,
        json=json,
    )


@export.command("d2net")
def export_d2net(run: Run, output: Folder, force: Force = False, json: Json = False) -> None:
    """<image>.d2-net for every image with features: the npz files of D2-Net's authors."""
    from loc.exchange.d2net import export_d2net as write

    done = write(run, output, force=force)
    lines = [f"{kind}: {count}" for kind, count in done.counts.items()]
    _say(done.to_json(), lines, done.notes, output, json=json)


@export.command("delf")
def export_delf(run: Run, output: Folder, force: Force = False, json: Json = False) -> None:
    """<image>.delf for every image with features: the protocol buffers of DELF's authors."""
    from loc.exchange.d2net import DELF, export_d2net

    done = export_d2net(run, output, force=force, files=DELF)
    lines = [f"{kind}: {count}" for kind, count in done.counts.items()]
    _say(done.to_json(), lines, done.notes, output, json=json)


@export.command("colmap")
def export_colmap(
    run: Map,
    output: Folder,
    format: Annotated[ModelFormat, typer.Option(help="Binary or text.")] = ModelFormat.bin,  # noqa: A002
    force: Force = False,
    json: Json = False,
) -> None:
    """The map as a COLMAP model."""
    from loc.exchange.models import export_colmap as write

    _counted(write(run, output, text=format is ModelFormat.txt, force=force), output, json=json)


@export.command("ply")
def export_ply(run: Map, output: File, force: Force = False, json: Json = False) -> None:
    """The points of the map with their colours, as PLY."""
    from loc.exchange.models import export_ply as write

    _counted(write(run, output, force=force), output, json=json)


@export.command("csv")
def export_csv(run: Map, output: File, force: Force = False, json: Json = False) -> None:
    """Camera centres, poses and intrinsics of the map's images and of the localized queries."""
    from loc.exchange.models import export_csv as write

    _counted(write(run, output, force=force), output, json=json)


@export.command("nerfstudio")
def export_nerfstudio(
    run: Map,
    output: Folder,
    images: Annotated[Path | None, typer.Option(help="Image root (default: that of the run).")] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """transforms.json and the points as PLY, in nerfstudio's frame; the photos stay where they are."""
    from loc.exchange.nerfstudio import export_nerfstudio as write

    _counted(write(run, output, images=images, force=force), output, json=json)


@import_.command("hloc")
def import_hloc(
    features: Annotated[list[Path], typer.Option(help="features .h5; repeat it for several files.")],
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Run folder, new or not.")],
    globals_: Annotated[list[Path] | None, typer.Option("--globals", help="global descriptors .h5")] = None,
    matches: Annotated[list[Path] | None, typer.Option(help="matches .h5")] = None,
    pairs: Annotated[list[Path] | None, typer.Option(help="Pair lists (default: all matched pairs).")] = None,
    queries: Annotated[Path | None, typer.Option(help="Query list with intrinsics; may be a glob.")] = None,
    image_list: Annotated[Path | None, typer.Option(help="List of the database images.")] = None,
    model: Annotated[Path | None, typer.Option(help="COLMAP model with known poses.")] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the method (default: the files' names).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace RUN/imported.yaml.")] = False,
    json: Json = False,
) -> None:
    """hloc's features, global descriptors and matches become stores of a run folder, to go on with."""
    from loc.exchange.hloc_import import HlocFiles
    from loc.exchange.hloc_import import import_hloc as read

    files = HlocFiles(
        images=images,
        features=features,
        globals=globals_ or (),
        matches=matches or (),
        pairs=pairs or (),
        queries=queries,
        image_list=image_list,
        model=model,
        name=name,
    )
    with runtime("cpu", 0) as where:
        done = read(files, output, runtime=where, force=force)
    lines = [f"{kind}: {count}" for kind, count in done.counts.items()]
    _say(done.to_json(), lines, done.notes, f"go on with: loc run {done.config} -o {output}", json=json)


@import_.command("d2net")
def import_d2net(
    files: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of <image>.d2-net; ROOT if beside the photos.")
    ],
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Run folder, new or not.")],
    name: Annotated[str, typer.Option(help="What to call the method.")] = "d2net",
    force: Annotated[bool, typer.Option("--force", help="Replace RUN/imported.yaml.")] = False,
    json: Json = False,
) -> None:
    """Features in D2-Net's own files become the store of a run folder, to go on with."""
    from loc.exchange.d2net import import_d2net as read

    with runtime("cpu", 0) as where:
        done = read(files, images, output, name=name, runtime=where, force=force)
    lines = [f"{kind}: {count}" for kind, count in done.counts.items()]
    _say(done.to_json(), lines, done.notes, f"go on with: loc run {done.place} -o {output}", json=json)


@import_.command("delf")
def import_delf(
    files: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of <image>.delf; ROOT if beside the photos.")
    ],
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Run folder, new or not.")],
    name: Annotated[str, typer.Option(help="What to call the method.")] = "delf",
    force: Annotated[bool, typer.Option("--force", help="Replace RUN/imported.yaml.")] = False,
    json: Json = False,
) -> None:
    """Features in DELF's own files become the store of a run folder, to go on with."""
    from loc.exchange.d2net import DELF, import_d2net

    with runtime("cpu", 0) as where:
        done = import_d2net(files, images, output, name=name, runtime=where, force=force, kind=DELF)
    lines = [f"{kind}: {count}" for kind, count in done.counts.items()]
    _say(done.to_json(), lines, done.notes, f"go on with: loc run {done.place} -o {output}", json=json)


@import_.command("bundler")
def import_bundler(
    file: Annotated[Path, typer.Argument(metavar="FILE.out", help="Bundler file.")],
    list_: Annotated[Path, typer.Option("--list", help="Its image list, in the file's order.")],
    images: Images,
    output: Folder,
    intrinsics: Given = None,
    keep_world: Annotated[
        bool, typer.Option("--keep-world", help="Keep Bundler's world axes (default: y and z are negated).")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """A Bundler model (bundle.out) becomes a COLMAP model, to use as scene.model."""
    from loc.exchange.foreign_models import import_bundler as read

    done = read(file, list_, images, output, intrinsics=intrinsics, keep_world=keep_world, force=force)
    _counted(done, f"use it: --set scene.model={output}", json=json)


@import_.command("nvm")
def import_nvm(
    file: Annotated[Path, typer.Argument(metavar="FILE.nvm", help="VisualSFM's N-View match file.")],
    images: Images,
    output: Folder,
    intrinsics: Given = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """An NVM model becomes a COLMAP model, to use as scene.model."""
    from loc.exchange.foreign_models import import_nvm as read

    done = read(file, images, output, intrinsics=intrinsics, force=force)
    _counted(done, f"use it: --set scene.model={output}", json=json)


def _counted(counts: dict[str, Any], end: object, *, json: bool) -> None:
    _say(
        counts,
        # None: there is no such number; a note says why.
        [f"{name}: {value}" for name, value in counts.items() if name != "notes" and value is not None],
        counts.get("notes", []),
        end,
        json=json,
    )


def _say(data: Any, lines: list[str], notes: list[str], end: object, *, json: bool) -> None:
    if json:
        print_json(data)
        return
    for line in [*lines, *(f"note: {note}" for note in notes), str(end)]:
        print_line(line)
