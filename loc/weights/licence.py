"""Licences that must be accepted before weights are used."""

from __future__ import annotations

import os

from loc.errors import WeightsError
from loc.weights.card import WeightFile


def require_licence(plugin: str, file: WeightFile, *, accepted: bool) -> None:
    """Let weights with a restrictive licence through only if the user has accepted it.

    Args:
        plugin: name of the plug-in, for the message.
        accepted: by the configuration; ``LOC_ACCEPT_LICENSE=1`` (``--accept-license``) says the same.

    Raises:
        WeightsError: not accepted.
    """
    if accepted or os.environ.get("LOC_ACCEPT_LICENSE", "").lower() not in ("", "0", "false", "no"):
        return
    raise WeightsError(
        f"the weights of {plugin} ({file.name}) are licensed under {file.licence}",
        "if your use is allowed, add --accept-license, or accept_license: true to the plug-in's block",
    )
