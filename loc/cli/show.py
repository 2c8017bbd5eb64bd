"""``loc show``: the map, the cameras and the queries of a run in 3-D."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loc.cli.console import Json, print_json, print_line
from loc.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loc.sfm.bundle import MapBundle
    from loc.viz.scene3d import ShownQuery


class ViewOption(str, Enum):
    """Where to look from."""

    top = "top"
    oblique = "oblique"
    query = "query"


def register(app: typer.Typer) -> None:
    """Add ``loc show``."""
    app.command()(show)


def show(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with a finished map.")],
    query: Annotated[
        str | None, typer.Option(metavar="NAME", help="A query whose inliers are joined to it.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Render a picture; needs no display.")
    ] = None,
    view: Annotated[
        ViewOption | None, typer.Option(help="Default: oblique; query where one is chosen.")
    ] = None,
    width: Annotated[int, typer.Option(min=64, max=8192, help="Of the picture or window, px.")] = 1600,
    height: Annotated[int, typer.Option(min=64, max=8192)] = 1000,
    json: Json = False,
) -> None:
    """The map in 3-D: coloured points, database cameras, queries by group, failed ones, inlier rays."""
    from loc.viz.scene3d import place_camera
    from loc.viz.view3d import open_viewer, run_drawing, save_picture

    chosen = view or (ViewOption.oblique if query is None else ViewOption.query)
    if chosen is ViewOption.query and query is None:
        raise ConfigError("--view query shows what one query sees", "say which: --query NAME --view query")
    if png is not None and png.is_dir():
        raise DataError(f"{png} is a folder", f"name a file in it: --png {png / 'map.png'}")
    if png is not None:
        _check_picture(png)
    bundle, queries = _read(run_folder)
    focus = None if query is None else _find(queries, query)
    if focus is not None and (focus.camera is None or not (focus.pose or focus.truth)):
        raise DataError(
            f"the query {focus.name!r} has no pose to show: it is {focus.status}",
            "its row in the report says why it failed; without --query the others are shown",
        )
    drawing = run_drawing(bundle, queries, focus=None if focus is None else focus.name)
    camera = place_camera(drawing, chosen.value, aspect=width / height)
    if png is None:
        open_viewer(drawing, camera, title=f"loc show {run_folder}", width=width, height=height)
    else:
        save_picture(drawing, camera, png, width=width, height=height)
    told = {each.name: each.count for each in drawing.lines}
    if json:
        print_json({"png": None if png is None else str(png), "points": len(drawing.xyz), "drawn": told})
    elif png is not None:
        print_line(f"drawn      {len(drawing.xyz)} points, " + ", ".join(f"{n} {k}" for k, n in told.items()))
        print_line(f"picture    {png}")


def _check_picture(png: Path) -> None:
    """Refuse another kind of file than PNG, and to replace what is no picture."""
    if png.suffix.lower() != ".png":
        raise ConfigError(f"--png {png} does not end in .png", f"write: --png {png.with_suffix('.png')}")
    if png.is_file() and not _begins(png, b"\x89PNG"):
        raise DataError(
            f"{png} exists and is no picture: it is not replaced", "choose another name for --png"
        )


def _begins(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _read(run_folder: Path) -> tuple[MapBundle, list[ShownQuery]]:
    """The map of a run, and its queries as far as the run came."""
    from loc.layouts.lists import read_poses
    from loc.record import open_map, read_record
    from loc.stages.evaluate import TRUTH_FILE
    from loc.stages.poses import Poses
    from loc.stores.files import read_json
    from loc.viz.view3d import shown_queries

    bundle, record = open_map(run_folder), read_record(run_folder)
    poses = Poses.open(run_folder / record["poses"]) if "poses" in record else None
    truth_path = run_folder / record.get("report", "") / TRUTH_FILE
    truth = read_poses(truth_path) if "report" in record and truth_path.is_file() else {}
    table = read_json(run_folder / "scene" / "scene.json")
    return bundle, shown_queries(bundle, poses, table, truth)


def _find(queries: list[ShownQuery], name: str) -> ShownQuery:
    """The query called so; its file name is enough where only one has it."""
    from loc.config import suggest

    by_name = {query.name: query for query in queries}
    if name in by_name:
        return by_name[name]
    same_file = [query for query in queries if query.name.endswith(f"/{name}")]
    if len(same_file) == 1:
        return same_file[0]
    if not queries:
        raise ConfigError(f"no query is called {name!r}: the run has none", "leave --query out")
    if same_file:
        raise ConfigError(
            f"{len(same_file)} queries are called {name!r}",
            f"give the whole name: {same_file[0].name} or {same_file[1].name}",
        )
    some = suggest(name, sorted(by_name)) if len(by_name) <= 10 else _nearest(name, sorted(by_name))
    raise ConfigError(f"no query is called {name!r} ({len(queries)} queries)", some)


def _nearest(name: str, names: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return f"did you mean {close[0]}?"
