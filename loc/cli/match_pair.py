"""``loc match-pair``: two photos matched, counted and drawn."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import (
    Device,
    FeaturesOption,
    Json,
    MatcherOption,
    overrides,
    print_json,
    print_line,
    runtime,
)
from loc.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loc.config import RerankConfig
    from loc.stages.photopair import PhotoPair

#: What OpenCV and Pillow both write and browsers show.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_QUALITY = 92
#: Photos of different places have that many matches that some geometry fits.
_CHANCE = 25


class CheckOption(str, Enum):
    """Geometry that matches are checked with."""

    fundamental = "fundamental"
    homography = "homography"
    affine = "affine"
    none = "none"


FirstPhoto = Annotated[Path, typer.Argument(metavar="A", help="A photo.")]
SecondPhoto = Annotated[Path, typer.Argument(metavar="B", help="Another photo.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Draw both photos with their matches: .png, .jpg or .webp.")
]
Rerank = Annotated[
    str | None,
    typer.Option(
        help="Match as in landmark retrieval instead of with --matcher, B being the query: auto (what suits "
        "the features), example, d2r, delg, ratio, or options as in '{use: example, ratio: 0.9}'."
    ),
]
Check = Annotated[
    CheckOption | None,
    typer.Option(
        help="fundamental (default): any scene; homography: planes and turns; affine: a rough match of "
        "landmarks; none."
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(min=0.01, help="Of an inlier, px of photos shrunk to 1024 px; default 3, affine 20."),
]
PairSettings = Annotated[
    list[str] | None, typer.Option("--set", help="OPTION=VALUE, e.g. --set features.max_keypoints=2000")
]
Lines = Annotated[int, typer.Option(min=0, help="Most inliers that are drawn; 0: all.")]
Keypoints = Annotated[bool, typer.Option("--keypoints", help="Draw keypoints without a match, too.")]


def register(app: typer.Typer) -> None:
    """Add ``loc match-pair``."""
    app.command(name="match-pair")(match_pair)


def match_pair(
    first: FirstPhoto,
    second: SecondPhoto,
    features: FeaturesOption = None,
    matcher: MatcherOption = None,
    rerank: Rerank = None,
    check: Check = None,
    max_error: MaxError = None,
    settings: PairSettings = None,
    out: Out = None,
    lines: Lines = 200,
    keypoints: Keypoints = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Match two photos: counts of keypoints, matches and inliers, and a picture of them."""
    from loc.config.ranking import suited_reranking
    from loc.plugins.blocks import load_config, resolve_block
    from loc.stages.photopair import match_photos

    photos = (first, second)
    if out is not None:
        _check_picture(out, photos)
    given = overrides(settings, features=features, matcher=matcher)
    for name in given:
        if name.split(".")[0] not in ("features", "matcher"):
            raise ConfigError(f"{name} changes nothing here", "--set takes options of features and matcher")
    config = load_config({"globals": None}, given)
    extractor = resolve_block("features", config.features)
    plugin: Any = resolve_block("matcher", config.matcher)
    if rerank is not None:
        if matcher is not None or check is not None or max_error is not None:
            raise ConfigError(
                "--rerank matches and checks by itself, as published",
                "leave --matcher, --check and --max-error out, or give --rerank '{use: d2r, residual_px: 5}'",
            )
        plugin = _rerank_options(suited_reranking(extractor.name) if rerank == "auto" else rerank)
    elif not plugin.reads_images:
        plugin = plugin.for_features(extractor)  # one that cannot match these says so before any work
    with runtime(device, 1) as where:
        pair = match_photos(
            photos,
            extractor,
            plugin,
            check=(check or CheckOption.fundamental).value,
            max_error_px=max_error,
            runtime=where,
        )
    if out is not None:
        _draw(out, photos, pair, lines or None, keypoints=keypoints)
    _report(photos, pair, out, lines, json=json)


def _rerank_options(text: str) -> RerankConfig:
    import yaml

    from loc.config import RetrievalPairs, validate

    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError:
        options = text
    config = validate(RetrievalPairs, {"rerank": options}, where="")
    if config.rerank is None:
        raise ConfigError("--rerank is empty", "e.g. --rerank example")
    return config.rerank


def _check_picture(out: Path, photos: tuple[Path, Path]) -> None:
    """Refuse a file that cannot be the picture, before any work."""
    if out.is_dir():
        raise DataError(f"{out} is a folder", f"name a file in it: --out {out / 'matches.png'}")
    if out.suffix.lower() not in _PICTURES:
        raise ConfigError(
            f"--out {out} is no picture: it ends with none of {', '.join(_PICTURES)}",
            f"write: --out {out.with_suffix('.png')}",
        )
    for photo in photos:
        if out.exists() and photo.exists() and out.samefile(photo):
            raise ConfigError(f"--out {out} is one of the photos", "choose another name for the picture")


def _draw(
    out: Path, photos: tuple[Path, Path], pair: PhotoPair, most: int | None, *, keypoints: bool
) -> None:
    import numpy as np
    from PIL import Image

    from loc.stores.files import write_atomically, writing
    from loc.viz.matchpair import ShownPhoto, draw_matches

    none = np.zeros((0, 2))
    left, right = (
        ShownPhoto(photo, pair.matches[side], pair.keypoints[side] if keypoints else none)
        for side, photo in enumerate(photos)
    )
    picture = Image.fromarray(draw_matches(left, right, pair.inliers, most_lines=most))
    kind = {".png": "PNG", ".webp": "WEBP"}.get(out.suffix.lower(), "JPEG")
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, lambda path: picture.save(path, kind, quality=_QUALITY))


def _report(photos: tuple[Path, Path], pair: PhotoPair, out: Path | None, lines: int, *, json: bool) -> None:
    counts = [len(each) for each in pair.keypoints]
    inliers = int(pair.inliers.sum())
    if json:
        print_json(
            {
                "photos": [str(photo) for photo in photos],
                "keypoints": counts,
                "matches": pair.putative,
                "inliers": inliers,
                "check": pair.check,
                "out": None if out is None else str(out),
            }
        )
        return
    print_line(f"keypoints  {counts[0]} and {counts[1]}")
    print_line(f"matches    {pair.putative}")
    if pair.check != "none":
        chance = "; so few may agree by chance" if inliers < _CHANCE else ""
        print_line(f"inliers    {inliers} ({pair.check}{chance})")
    if out is not None:
        print_line(
            f"picture    {out}" + (f" ({lines} of {inliers} lines)" if lines and inliers > lines else "")
        )
