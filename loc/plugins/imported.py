"""What was computed elsewhere and imported: blocks that find it in the run folder and compute nothing.

``loc import hloc`` fills the stores of these blocks; ``features: {use: imported, name: NAME}`` refers
to them. ``name`` stands for the method (hloc's file names do: ``feats-superpoint-n4096-r1024``), so a
store can grow by more images of the same method, and another method is another name. What was not
imported is missing: a photo is skipped with the reason, a pair is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from loc.conventions import PixelOrigin
from loc.errors import ConfigError, DataError
from loc.plugins.protocols import Arrays, PluginConfig, WeightFile
from loc.types import LocalFeatures, Matches


class ImportedConfig(PluginConfig):
    """``name`` is what the import called the method; it is the store's identity."""

    name: str = ""


class _Imported:
    Config: ClassVar[type[PluginConfig]] = ImportedConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "that of what made the imported file"
    paper: ClassVar[str] = "imported; see the file's own documentation"
    weights: ClassVar[tuple[WeightFile, ...]] = ()

    def __init__(self, config: ImportedConfig, *, device: str, dtype: str) -> None:  # noqa: ARG002
        if not config.name:
            raise ConfigError(
                "a block `use: imported` needs `name`, what the import called the method",
                "loc import hloc … -o RUN writes the whole block to RUN/imported.yaml",
            )
        self.name = config.name


class ImportedFeatures(_Imported):
    """Local features of ``loc import hloc --features``."""

    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    parallel: ClassVar[Literal["batch", "process"]] = "process"
    min_side: ClassVar[int] = 1
    ranked: ClassVar[bool] = False

    def __call__(self, images: Any) -> list[LocalFeatures]:  # noqa: ARG002
        """Only photos that are not in the store get here."""
        raise DataError(
            f"no features of this photo, as it is now, were imported under the name {self.name}",
            "import them too: loc import hloc --features … --images … -o RUN",
        )


class ImportedGlobals(_Imported):
    """Global descriptors of ``loc import hloc --globals``."""

    source: ClassVar[Literal["image", "features"]] = "image"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    parallel: ClassVar[Literal["batch", "process"]] = "process"
    min_side: ClassVar[int] = 1
    needs_fit: ClassVar[bool] = False

    def fit(self, inputs: Iterable[LocalFeatures]) -> Arrays:  # noqa: ARG002
        return {}

    def load_state(self, state: Arrays) -> None:  # noqa: ARG002
        return None

    def __call__(self, inputs: Any) -> np.ndarray:  # noqa: ARG002
        """Only photos that are not in the store get here."""
        raise DataError(
            f"no global descriptor of this photo, as it is now, was imported under the name {self.name}",
            "import them too: loc import hloc --features … --globals … --images … -o RUN",
        )


class ImportedMatches(_Imported):
    """Matches of ``loc import hloc --matches``."""

    requires: ClassVar[frozenset[str]] = frozenset()

    def prepare(self, features: LocalFeatures) -> None:  # noqa: ARG002
        return None

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> list[Matches]:  # noqa: ARG002
        """Only pairs that are not in the store get here."""
        raise DataError(
            f"the run asks for pairs of which no matches were imported under the name {self.name}",
            "use the imported list (pairs: [{use: list, for: both, path: RUN/imported/pairs.txt}]), "
            "import their matches too, or match here: --set matcher=nearest",
        )
