"""A comparison as one HTML page that needs nothing from a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler.errors import UserError


def render(found: Mapping[str, Any]) -> str:
    """The page; ``found`` is what :func:`compiler.comparison.compare` gives."""
    import jinja2

    loader = jinja2.PackageLoader(__name__, "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html.jinja").render(found=found, scale=scale)


def write(path: str | Path, found: Mapping[str, Any]) -> None:
    """Writes the page.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        Path(path).write_text(render(found), encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write the page {path}: {e.strerror}", "another file, with --report") from e


def scale(verdict: Mapping[str, Any]) -> dict[str, float]:
    """Where the interval of a difference lies on a bar of 100 units that has 0 in its middle."""
    difference = verdict["difference"]
    reach = max(abs(difference["low"]), abs(difference["high"])) or 1.0
    place = {key: 50.0 + 45.0 * difference[key] / reach for key in ("low", "mean", "high")}
    return {**place, "width": place["high"] - place["low"]}
