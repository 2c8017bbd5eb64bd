"""The commands of ``loc``. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loc.cli import bench, demo, doctor, exchange, index, match_pair, retrieve, show, submit, weights
from loc.cli.console import (
    Batch,
    Device,
    FeaturesOption,
    Json,
    MatcherOption,
    Output,
    Settings,
    Workers,
    overrides,
    print_json,
    print_line,
    print_rows,
    read_config,
    runtime,
)
from loc.cli.guard import Guard
from loc.cli.running import run_and_report

app = typer.Typer(
    cls=Guard,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Visual localization in SfM workflows: from a folder of photos to a map, to query poses with a "
    "verdict, to a report. Any command takes --debug (tracebacks), --weights-dir DIR, --offline (no "
    "downloads) and --accept-license (of weights for non-commercial use).",
)
Config = Annotated[str, typer.Argument(help="YAML file, or the name of a shipped config (loc plugins).")]


def _version(show: bool) -> None:
    if show:
        from loc import __version__

        print_line(f"loc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def reconstruct(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    output: Output,
    queries: Annotated[Path | None, typer.Option(help="Folder of photos to localize in the map.")] = None,
    features: FeaturesOption = None,
    matcher: MatcherOption = None,
    settings: Settings = None,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """From a folder of photos to a map, and to poses of query photos if there are any."""
    from loc.plugins.blocks import load_config

    scene: dict[str, Any] = {"scene.layout": "folder", "scene.images": str(photos)}
    if queries is not None:
        scene["scene.queries"] = str(queries)
    chosen = {**scene, **overrides(settings, features=features, matcher=matcher)}
    run_and_report(load_config(None, chosen), output, device, workers, json=json)


def _walks_the_line(name: str, until: str, about: str) -> None:
    """Add a command that runs a config up to a stage; what earlier commands made is used again."""

    @app.command(name, help=about)
    def command(
        config: Config,
        output: Output,
        settings: Settings = None,
        device: Device = "auto",
        workers: Workers = 0,
        batch_size: Batch = 8,
        json: Json = False,
    ) -> None:
        run_and_report(
            read_config(config, settings), output, device, workers, batch_size, until=until, json=json
        )


_walks_the_line("run", "report", "Everything a config describes: map, poses, evaluation, report.")
_walks_the_line("extract", "features", "The run up to the features of all images.")
_walks_the_line("match", "matches", "The run up to the matches of the database images.")
_walks_the_line("map", "map", "The run up to the map.")
_walks_the_line("localize", "poses", "The run up to the poses of the queries, without evaluation and report.")


@app.command("localize-photo")
def localize_photo(
    photos: Annotated[list[Path], typer.Argument(help="Photos; intrinsics come from EXIF or are estimated.")],
    map_folder: Annotated[Path, typer.Option("--map", help="Run folder with a finished map.")],
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Where were these photos taken? Reads the map, writes nothing."""
    from loc.cli.results import photo_rows, query_json
    from loc.record import open_map
    from loc.runtime.runtime import Runtime
    from loc.stages.localize import Localizer

    localizer = Localizer(open_map(map_folder), runtime=Runtime(device=device))
    results = [localizer.localize(photo) for photo in photos]
    if json:
        print_json([query_json(result) for result in results])
    else:
        print_rows(*photo_rows(results))
    if all(result.status == "unreadable" for result in results):
        raise typer.Exit(3)


@app.command()
def holdout(
    model: Annotated[Path, typer.Argument(help="COLMAP model with poses (bin or txt).")],
    images: Annotated[Path, typer.Argument(help="Image root of the model.")],
    output: Output,
    queries: Annotated[Path | None, typer.Option(help="List of images to hold out.")] = None,
    every: Annotated[
        int | None, typer.Option(min=2, help="Hold out every N-th image instead (default 5).")
    ] = None,
    features: FeaturesOption = None,
    matcher: MatcherOption = None,
    settings: Settings = None,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """How well would a method localize in my scene? Map without some images, then localize them."""
    from loc.cli.results import holdout_rows
    from loc.holdout import run_holdout

    chosen = overrides(settings, features=features, matcher=matcher)
    with runtime(device, workers) as where:
        summary = run_holdout(
            model, images, output, queries=queries, every=every, overrides=chosen, runtime=where
        )
    if json:
        print_json(summary)
    else:
        print_rows(*holdout_rows(summary))


@app.command("eval")
def evaluate(
    poses: Annotated[Path, typer.Argument(help="Pose file: name qw qx qy qz tx ty tz.")],
    ground_truth: Annotated[Path, typer.Argument(help="True poses: the same format, or a COLMAP model.")],
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="POSITION,DEGREES; repeat it (default 0.25,2 0.5,5 5,10)."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.")] = None,
    json: Json = False,
) -> None:
    """Recall and median errors of a pose file; every query of the ground truth counts."""
    from loc.cli.results import evaluation_rows, parse_thresholds, unknown_note
    from loc.stages.evaluate import evaluate_files, write_page

    summary = evaluate_files(poses, ground_truth, parse_thresholds(threshold))
    if html is not None:
        write_page(html, summary, title=poses.name)
    if json:
        print_json(summary)
    else:
        print_rows(*evaluation_rows(summary))
        for line in unknown_note(summary):
            print_line(line)


@app.command()
def plan(
    config: Config,
    output: Output,
    settings: Settings = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Photos to try in memory to predict sizes and times; 0: none.")
    ] = 5,
    json: Json = False,
) -> None:
    """What each stage of a run would do, and why; nothing is written."""
    from loc.cli.results import plan_rows
    from loc.planning import plan as predict

    steps = predict(read_config(config, settings), output, sample=sample)
    if json:
        print_json([step.to_json() for step in steps])
    else:
        print_rows(*plan_rows(steps))


@app.command()
def plugins(
    name: Annotated[
        str | None, typer.Argument(help="Show one plug-in, or `config`: every option of a run.")
    ] = None,
    json: Json = False,
) -> None:
    """Extractors, global extractors, matchers and presets."""
    from loc.cli.plugin_card import config_card, plugin_card, plugin_table

    if name is None:
        data, rows = plugin_table()
    elif name == "config":
        data, rows = config_card()
    else:
        data, rows = plugin_card(name)
    if json:
        print_json(data)
    else:
        for line in rows:
            print_line(line)


@app.command()
def digest(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")], json: Json = False
) -> None:
    """A hash over everything a run computed: equal for equal results, however they were computed."""
    from loc.digest import run_digest

    found = run_digest(run_folder)
    if json:
        print_json(found)
    else:
        print_rows(["artefact", "digest"], [[name, value] for name, value in found.items()])


for module in (index, retrieve, match_pair, demo, show, submit, exchange, doctor, bench, weights):
    module.register(app)
