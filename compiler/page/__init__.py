"""``--report out.html``: one page that holds all a compile has to show, and needs nothing from a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler.errors import UserError
from compiler.page.content import Measurement, collect
from compiler.page.graph import Drawing, draw

__all__ = ["Drawing", "Measurement", "collect", "draw", "render", "write"]


def render(content: Mapping[str, Any]) -> str:
    """The page as HTML with its script and style inside."""
    import jinja2

    loader = jinja2.PackageLoader(__name__, "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)

    def raw(name: str) -> str:
        text, _, _ = loader.get_source(environment, name)
        return text

    # A script element ends at the first "</", whatever is around it: no "<" may stand in the data.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = environment.get_template("page.html.jinja")
    return page.render(content=content, data=data, style=raw("page.css"), script=raw("page.js"))


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes the page.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        Path(path).write_text(render(content), encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write the page {path}: {e.strerror}", "another file, with --report") from e
