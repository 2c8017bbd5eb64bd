"""Self-contained HTML pages from the templates here: escaped, silent, without a network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from loc import __version__

TEMPLATES = Path(__file__).parent / "templates"


def render_page(name: str, **values: Any) -> str:
    """A template filled in; whatever comes from outside is escaped, a value that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page: str = environment.get_template(name).render(
        **values, version=__version__, script=Markup(script), script_hash=f"sha256-{allowed}"
    )
    return page


def _percent(share: float) -> str:
    """A share as recall tables write it: one digit, and none where all or nothing is reached."""
    return f"{100 * share:.0f}" if share in (0, 1) else f"{100 * share:.1f}"


def _number(value: Any, digits: int = 3) -> str:
    """Numbers as people read them: integers with thin spaces, others with some digits."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u2009")
    if value != 0 and abs(value) < 10 ** (-digits - 1):
        return f"{value:.1e}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
