"""``planish swift PKG…``: compiled models as a Swift package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def swift_command(
    packages: Annotated[list[Path], typer.Argument(metavar="PKG…", help="Compiled models.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the library.", show_default="the model's with Kit, or Models")
    ] = None,
    hybrid: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The packages are parts of one model, in the order in which they run."),
    ] = None,
) -> None:
    """Write a Swift package that loads, batches, measures and compares compiled models (docs/swift.md)."""
    from codegen.swift import package

    written = package.write(packages, output, name, hybrid)
    typer.echo(f"  {written.path}: library {written.library} with {', '.join(written.models)}")
