"""What a plug-in is: one class with one method, and a card of class attributes.

Everything else (reading files, resizing, device, batching, rescaling keypoints, casting,
validation, progress) belongs to the runtime. See :mod:`loc.plugins.contract` for the checks that
every plug-in must pass, and the README for a complete example in 20 lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict

from loc.conventions import PixelOrigin
from loc.types import Correspondences, LocalFeatures, Matches
from loc.weights.card import WeightFile

Kind = Literal["extractor", "global", "matcher"]
Arrays = dict[str, np.ndarray]


class PluginConfig(BaseModel):
    """Base of every plug-in's options: frozen, unknown keys refused, all with defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Plugin(Protocol):
    """The card that all kinds share.

    A class may also say ``commercial_ok: bool``, whether its licence allows commercial use; its weights
    say it of themselves.
    """

    Config: ClassVar[type[PluginConfig]]
    #: Raised when outputs change: it is part of the fingerprint of what the plug-in made.
    version: ClassVar[int]
    #: SPDX identifier or one sentence.
    licence: ClassVar[str]
    paper: ClassVar[str]


@runtime_checkable
class Extractor(Plugin, Protocol):
    """Local features of a batch of images of one size.

    ``__call__`` receives float32 images ``(b, c, h, w)`` in [0, 1], RGB or grey, upright, and
    returns one :class:`LocalFeatures` per image, keypoints in px of *these* images in the declared
    ``pixel_origin``. A plug-in whose method has a rule for the size of the image defines
    ``resized_wh(wh, resize_max)``; one whose default is not 1600 px defines
    ``stage_defaults = {"resize_max": …}``. With ``parallel = "batch"`` images are a ``torch.Tensor`` on
    ``device``; with ``"process"`` they are a NumPy array of batch 1 and the plug-in runs in several
    processes.

    An extractor that learns from the database (a PCA of its descriptors) sets ``needs_fit = True``. Without a
    state it gives its raw descriptors: ``fit`` gets the :class:`LocalFeatures` of at most 64 database images
    that it made so, in order of their names and never of a query, and returns arrays by name;
    ``load_state`` takes them back, raises :class:`loc.errors.StoreError` on those of another configuration,
    and changes what is called from then on. The state is an artefact of its own, part of the fingerprint of
    the features, and kept by a map. One that learns only with certain options defines ``learns(config)``, as
    a global extractor does.

    An extractor whose pass gives a global descriptor too defines two class methods:
    ``gives(config, cls, other)``, whether with ``config`` it gives what the global extractor ``cls`` gives
    with the options ``other``, and ``joined(config, other, device=…)``, an object that is called as the
    extractor is and returns :class:`loc.plugins.joint.Described`. One pass then fills both stores.
    """

    pixel_origin: ClassVar[PixelOrigin]
    color: ClassVar[Literal["rgb", "gray"]]
    parallel: ClassVar[Literal["batch", "process"]]
    #: Images with a shorter side, px, give no keypoints and are never shown to the plug-in.
    min_side: ClassVar[int]
    #: The best N by score are a sensible selection.
    ranked: ClassVar[bool]
    weights: ClassVar[tuple[WeightFile, ...]]

    def __init__(self, config: Any, *, device: str, dtype: str) -> None: ...

    def __call__(self, images: Any) -> list[LocalFeatures]: ...


@runtime_checkable
class GlobalExtractor(Plugin, Protocol):
    """One descriptor per image, from pixels or aggregated from local features.

    With ``source = "features"``, ``__call__`` receives a list of :class:`LocalFeatures` (stored
    image, corner origin); with ``"image"`` the same images as an :class:`Extractor`. It returns
    ``(b, d)`` float32 rows of unit L2 norm (a row of zeros where an image has nothing to
    aggregate); the dot product is the similarity.

    A plug-in that learns from the database (codebook, PCA) sets ``needs_fit = True``: ``fit`` gets
    the inputs of the database images, in order of their names, and returns arrays; ``load_state``
    takes them back. The state is an artefact of its own and part of the fingerprint. With
    ``source = "image"`` the inputs are float32 ``(c, h, w)`` in [0, 1], one at a time. One that learns only
    with certain options defines ``learns(config)``, a class method that says whether it does.

    A plug-in whose rows hold several vectors of an image one after another (its regions, zeros for
    none) defines ``regions(config)``, a class method that returns how many; diffusion then runs on them.

    A plug-in whose images are no vectors (visual words and their codes) returns a list of ``(n,)`` uint8
    arrays instead, and defines ``ranking(config, rows)``, a class method that returns what ranks the images
    of these rows: called as :class:`loc.retrieval.ranking.Ranking`. One whose options name files or programs
    defines ``inputs(config)``, what a fingerprint says of their content; one that describes regions of an
    image that its features do not tell defines ``boxes(config)``, see :mod:`loc.retrieval.asmk.boxes`.
    """

    source: ClassVar[Literal["image", "features"]]
    color: ClassVar[Literal["rgb", "gray"]]
    min_side: ClassVar[int]
    needs_fit: ClassVar[bool]
    weights: ClassVar[tuple[WeightFile, ...]]

    def __init__(self, config: Any, *, device: str, dtype: str) -> None: ...

    def fit(self, inputs: Iterable[LocalFeatures]) -> Arrays: ...

    def load_state(self, state: Arrays) -> None: ...

    def __call__(self, inputs: Any) -> np.ndarray: ...


@runtime_checkable
class Matcher(Plugin, Protocol):
    """Matches of a list of image pairs.

    ``prepare`` is called once per image and its result handed to every pair the image is in (move
    descriptors to the device there); ``__call__`` gets pairs of prepared features and returns one
    :class:`Matches` per pair. Results must not depend on how pairs are grouped into calls.

    A matcher that computes pairs in batches says with an attribute ``pairs_at_once`` how many pairs a call
    should have (without it: 16); the fewer, the sooner a killed run's work is on disk.

    A matcher with weights for certain features defines ``for_features(config, extractor)``, a class
    method that returns the options for an extractor's name or raises :class:`loc.errors.PluginError`.
    """

    #: Fields of LocalFeatures the matcher reads, e.g. {"descriptors"} or {"descriptors", "scores"}.
    requires: ClassVar[frozenset[str]]
    weights: ClassVar[tuple[WeightFile, ...]]

    def __init__(self, config: Any, *, device: str, dtype: str) -> None: ...

    def prepare(self, features: LocalFeatures) -> Any: ...

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> list[Matches]: ...


@runtime_checkable
class DenseMatcher(Plugin, Protocol):
    """Correspondences of a list of image pairs, from pixels: a matcher that finds its own points.

    Registered as a matcher; ``requires`` is ``frozenset({"images"})``. ``prepare`` is called once per
    image with float32 ``(c, h, w)`` in [0, 1], upright, a ``torch.Tensor`` on ``device``, and its result
    handed to every pair the image is in (run the backbone there). ``__call__`` gets pairs of what
    ``prepare`` returned, of any two sizes, and returns one :class:`Correspondences` per pair: px of *these*
    images in the declared ``pixel_origin``. Results must not depend on how pairs are grouped into calls.

    Reading, resizing (``stage_defaults = {"resize_max": …}``) and carrying points to the stored image
    are the runtime's; making keypoints that pairs share is :mod:`loc.stages.correspond`'s. A class may
    say in ``noise_px`` how exact its points are, px of the images it is shown (default 1).
    """

    requires: ClassVar[frozenset[str]]
    pixel_origin: ClassVar[PixelOrigin]
    color: ClassVar[Literal["rgb", "gray"]]
    #: Images with a shorter side, px, have no correspondences and are never shown to the plug-in.
    min_side: ClassVar[int]
    weights: ClassVar[tuple[WeightFile, ...]]

    def __init__(self, config: Any, *, device: str, dtype: str) -> None: ...

    def prepare(self, image: Any) -> Any: ...

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> list[Correspondences]: ...


__all__ = [
    "DenseMatcher",
    "Extractor",
    "GlobalExtractor",
    "Kind",
    "Matcher",
    "Plugin",
    "PluginConfig",
    "WeightFile",
]
