"""``loc submit``: the result file of a benchmark from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import Json, print_json, print_line

if TYPE_CHECKING:
    from loc.stages.submission import Submission

_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add ``loc submit``."""
    app.command()(submit)


def submit(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with poses.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write, e.g. Aachen_eval_METHOD.txt.")
    ],
    names: Annotated[
        str | None,
        typer.Option(
            help="basename, camera (last two parts) or path; default: that of the layout's benchmark."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a benchmark's result file: checked, and how many queries of each group it has."""
    from loc.errors import ConfigError
    from loc.stages.submission import make_submission, name_rule

    if output.is_dir():
        raise ConfigError(
            f"-o {output} is a folder", "give a file, for example Aachen_eval_METHOD.txt in that folder"
        )
    _check_target(output)
    found = _read(run_folder)
    made = make_submission(
        found["results"],
        found["groups"],
        found["bundle"],
        names=name_rule(names, found["layout"]),
        known_poses=found["known_poses"],
    )
    made.write(output)
    notes = _notes(made, output, found["layout"])
    if json:
        print_json(
            {
                "file": str(output),
                "names": made.names,
                "poses": len(made.lines),
                "groups": {
                    group: {
                        "queries": each.queries,
                        "submitted": each.submitted,
                        "missing": list(each.missing),
                    }
                    for group, each in made.groups.items()
                },
                "notes": notes,
            }
        )
        return
    for group, each in made.groups.items():
        print_line(f"{group:<6} {each.submitted} of {each.queries} queries")
        for name in each.missing[:_SHOWN]:
            print_line(f"       no pose: {name}")
        if len(each.missing) > _SHOWN:
            print_line(f"       … and {len(each.missing) - _SHOWN} more (--json lists all)")
    for note in notes:
        print_line(f"note: {note}")
    print_line(f"wrote  {output} ({len(made.lines)} poses, names: {made.names})")


def _check_target(output: Path) -> None:
    """Replace only what is a result file itself."""
    from loc.errors import DataError
    from loc.layouts.lists import read_poses

    if not output.exists():
        return
    try:
        read_poses(output)
    except DataError as error:
        raise DataError(
            f"{output} exists and is no result file: it is not replaced", "choose another name for -o"
        ) from error


def _read(run_folder: Path) -> dict[str, Any]:
    """What a submission needs of a run folder."""
    from loc.errors import SubmissionError
    from loc.record import open_map, read_record
    from loc.stages.poses import Poses
    from loc.stores.files import read_json
    from loc.types import Pose

    record = read_record(run_folder)
    if "poses" not in record:
        raise SubmissionError(
            f"{run_folder} has no poses of queries: its last run ended before them",
            "run it to the end: loc run CONFIG -o RUN",
        )
    rows = read_json(run_folder / "scene" / "scene.json")["images"]
    results = Poses.open(run_folder / record["poses"]).results
    return {
        "layout": record["config"]["scene"]["layout"],
        "results": results,
        "bundle": open_map(run_folder),
        "groups": _groups([result.name for result in results], rows),
        "known_poses": {
            row["name"]: Pose.from_json(row["pose"]) for row in rows if row["role"] == "db" and row["pose"]
        },
    }


def _groups(queries: list[str], rows: list[dict[str, Any]]) -> dict[str, str]:
    from loc.layouts.names import group_of

    listed = {row["name"]: row["group"] for row in rows if row["role"] == "query"}
    return {name: listed.get(name) or group_of(name) for name in queries}  # a photo that was unreadable


def _notes(made: Submission, output: Path, layout: str) -> list[str]:
    """What the server would accept and the sender may regret."""
    notes = [
        f"no {group} query has a pose: the server counts the whole condition as failed"
        for group, each in made.groups.items()
        if each.submitted == 0
    ]
    if layout == "aachen":
        notes += [
            f"the run has no {group} queries: the server counts the whole condition as failed"
            for group in ("day", "night")
            if group not in made.groups
        ]
        if not (output.name.startswith("Aachen_eval_") and output.suffix == ".txt"):
            notes.append(f"the benchmark wants the file name Aachen_eval_METHOD.txt, this is {output.name}")
    return notes
