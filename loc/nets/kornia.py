"""The networks that are kornia's."""

from __future__ import annotations

from typing import Any

from loc.errors import PluginError


def import_kornia(plugin: str, name: str) -> Any:
    """A class of ``kornia.feature``.

    Raises:
        PluginError: kornia is not installed, or too old to have it.
    """
    try:
        import kornia.feature
    except ImportError as error:
        raise PluginError(
            f"{plugin} needs kornia, which cannot be imported: {error}", "pip install 'visloc[learned]'"
        ) from error
    found = getattr(kornia.feature, name, None)
    if found is None:
        raise PluginError(
            f"kornia {kornia.__version__} has no {name}, which {plugin} needs",
            "pip install 'kornia>=0.9' (Python 3.11 or newer)",
        )
    return found
