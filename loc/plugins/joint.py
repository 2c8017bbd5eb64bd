"""Local features and a global descriptor out of one pass of one network, where a method has both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from loc.plugins.blocks import ResolvedPlugin
from loc.types import LocalFeatures


@dataclass(frozen=True, eq=False)
class Described:
    """Both results of one image; ``vector`` is ``(d,)`` float32."""

    features: LocalFeatures
    vector: np.ndarray


@dataclass(frozen=True)
class JointPlugin(ResolvedPlugin):
    """An extractor that hands out :class:`Described`; ``companion`` is the global extractor it saves."""

    companion: ResolvedPlugin | None = None

    def build(self, *, device: str = "cpu") -> Any:
        """The extractor's own object for both, ready to be called."""
        if self.companion is None:
            return super().build(device=device)
        return self.cls.joined(self.config, self.companion.config, device=device)


def joint(extractor: ResolvedPlugin, companion: ResolvedPlugin) -> JointPlugin | None:
    """Both plug-ins as one, if one pass of the extractor's network gives what each gives alone.

    An extractor's class says so with ``gives(config, cls, config of the global extractor)``, and has
    ``joined(config, config, device=…)``. Both must see the same pixels.
    """
    gives = getattr(extractor.cls, "gives", None)
    if (
        gives is None
        or getattr(companion.cls, "source", None) != "image"
        or extractor.stage_options != companion.stage_options
        or extractor.cls.color != companion.cls.color
        or not gives(extractor.config, companion.cls, companion.config)
    ):
        return None
    return JointPlugin(
        extractor.kind,
        extractor.name,
        extractor.cls,
        extractor.config,
        extractor.stage_options,
        state=extractor.state,
        companion=companion,
    )
