"""A climb as one HTML page: its steps, and the front of size against the metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import UserError

if TYPE_CHECKING:
    from compiler.ladder.climb import Found

#: The plot's size, and the margin for its labels, in pixels.
WIDTH, HEIGHT, MARGIN = 640, 320, 56


def render(found: Found) -> str:
    """The page; it needs nothing from a network."""
    import jinja2

    loader = jinja2.PackageLoader(__name__, "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    content = found.to_json()
    shown = [t for t in content["trials"] if t["bytes"]]
    return environment.get_template("page.html.jinja").render(
        found=content, points=_points(shown, found.original), width=WIDTH, height=HEIGHT, margin=MARGIN
    )


def write(path: str | Path, found: Found) -> None:
    """Writes the page.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        Path(path).write_text(render(found), encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write the page {path}: {e.strerror}", "another file, with --report") from e


def _points(trials: Sequence[dict[str, Any]], original: float) -> list[dict[str, Any]]:
    """Where each trial lies: size from left to right, the metric from below."""
    if not trials:
        return []
    most = max(t["bytes"] for t in trials)
    scores = [original, *(t["score"] for t in trials)]
    low, high = min(scores), max(scores)
    reach = (high - low) or 1.0

    def place(size: float, score: float) -> dict[str, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * size / most
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (score - low) / reach
        return {"x": round(x, 1), "y": round(y, 1)}

    return [{**t, **place(t["bytes"], t["score"])} for t in trials]
