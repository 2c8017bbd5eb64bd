"""``loc retrieve``: which landmark is this? Ranked, verified images of an index, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import Device, FeaturesOption, Json, print_json, print_line

if TYPE_CHECKING:
    from loc.stages.landmarks import Answer

_STATUS = {
    "match": "match",
    "no_match": "no match",
    "ranked": "not verified",
    "nothing_found": "nothing found",
    "unreadable": "unreadable",
}


def register(app: typer.Typer) -> None:
    """Add ``loc retrieve``."""
    app.command()(retrieve)


def retrieve(
    queries: Annotated[list[Path], typer.Argument(metavar="QUERY...", help="Photos, or folders of photos.")],
    index: Annotated[Path, typer.Option("--index", metavar="DIR", help="Index that loc index build made.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Images per query.")] = 10,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Count matches that agree.")] = True,
    candidates: Annotated[int, typer.Option(min=1, help="Best images that are verified.")] = 100,
    rerank: Annotated[
        str,
        typer.Option(
            help="How they are verified: d2r, delg, example (published for DELF), ratio; auto: what "
            "suits the index's features."
        ),
    ] = "auto",
    features: FeaturesOption = None,
    rejection: Annotated[
        Path | None, typer.Option(help="Calibration of your own: loc bench rejection --save FILE.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with the photos.")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Which photos of an index show the place of a photo, and whether any does."""
    from loc.config import validate
    from loc.config.ranking import RerankConfig
    from loc.retrieval.rejection import Rejection
    from loc.runtime.runtime import Runtime
    from loc.stages.landmarks import Retriever
    from loc.stages.places import Places

    if html is not None:
        _check_page(html)

    def by(use: str) -> RerankConfig:
        return validate(RerankConfig, {"use": use, "candidates": candidates}, where="rerank")

    verification = by(rerank) if rerank != "auto" else None  # a mistake is told before the index is read
    places = Places.open(index)
    verification = verification or by(places.suited_reranking(features))
    retriever = Retriever(
        places,
        verification=verification if verify else None,
        features=features,
        rejection=None if rejection is None else Rejection.read(rejection),
        runtime=Runtime(device=device),
    )
    answers = [retriever.retrieve(photo, k) for photo in _photos(queries)]
    if html is not None:
        from loc.viz.retrieved import write_page

        write_page(html, answers, title=f"Photos looked up in {index.name}")
    print_answers(answers, json=json)


def print_answers(answers: list[Answer], *, json: bool) -> None:
    """Ranked images per query on stdout; exit code 3 where not one query could be read."""
    if json:
        print_json([answer_json(answer) for answer in answers])
    else:
        for number, answer in enumerate(answers):
            if number:
                print_line()
            for line in answer_lines(answer):
                print_line(line)
    if answers and all(answer.status == "unreadable" for answer in answers):
        raise typer.Exit(3)


def answer_json(answer: Answer) -> dict[str, Any]:
    """One query with its images, for machines."""
    return {
        "query": answer.query,
        "status": answer.status,
        "reason": answer.reason,
        "probability": answer.probability,
        "threshold": answer.note,
        "images": [
            {
                "name": found.name,
                "score": found.score,
                "inliers": None if found.verified is None else found.verified.inliers,
                "path": None if found.path is None else str(found.path),
            }
            for found in answer.images
        ],
        "seconds": {step: round(spent, 6) for step, spent in answer.seconds.items()},
    }


def answer_lines(answer: Answer) -> list[str]:
    """One query for people: the verdict, then a row per image."""
    from loc.cli.results import printable

    verdict = _STATUS[answer.status]
    if answer.probability is not None:
        verdict += f", score {answer.probability:.3f} ({printable(answer.note)})"
    lines = [f"{printable(answer.query)}: {verdict}"]
    if answer.reason:
        lines.append(f"  {printable(answer.reason)}")
    if not answer.images:
        return lines
    width = max(len(printable(found.name)) for found in answer.images)
    for place, found in enumerate(answer.images, start=1):
        inliers = "" if found.verified is None else f"  {found.verified.inliers:5d} inliers"
        score = f"{found.score:.0f}" if found.score > 1.5 else f"{found.score:.4f}"
        lines.append(f"  {place:3d}  {printable(found.name).ljust(width)}  {score:>7}{inliers}".rstrip())
    return lines


def _check_page(page: Path) -> None:
    """Refuse a file that is no page before any work: it may be a photo, and would be overwritten."""
    from loc.errors import ConfigError, DataError

    if page.is_dir():
        raise DataError(f"{page} is a folder", f"name a file in it: --html {page / 'found.html'}")
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--html {page} is no page: it does not end with .html", f"write: --html {page}.html"
        )


def _photos(queries: list[Path]) -> list[Path]:
    """The queries, folders replaced by the photos in them."""
    from loc.errors import DataError
    from loc.runtime.images import list_photos

    photos: list[Path] = []
    for query in queries:
        names = list_photos(query) if query.is_dir() else None
        if names == []:
            raise DataError(f"there is no photo in {query}", "give photos, or folders of photos")
        photos += [query] if names is None else [query / name for name in names]
    return photos
