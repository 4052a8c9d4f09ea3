"""The options of commands that judge versions of a model by samples, and where they write what they found."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

SamplesOption = Annotated[
    Path,
    typer.Option(metavar="FILE.npz", help="Samples by input name, an axis of samples in front.", show_default=False),
]
LowerIsBetterOption = Annotated[bool, typer.Option("--lower-is-better", help="Of a metric of your own.")]
JsonOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write all that was found.")]
PageOption = Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Where to write a page.")]


def write_json(path: Path | None, found: Any) -> None:
    """Writes what was found, if it is asked for.

    Raises:
        UserError: the file cannot be written.
    """
    from compiler.errors import UserError

    if path is None:
        return
    try:
        path.write_text(json_.dumps(found, indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror}", "another file, with --json") from e
