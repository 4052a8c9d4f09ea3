"""``planish export PKG model.onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    package: Annotated[Path, typer.Argument(help="An ML Program package, whoever wrote it.", show_default=False)],
    model: Annotated[Path, typer.Argument(help="The ONNX model to write.", show_default=False)],
    shape: Annotated[
        list[str] | None, typer.Option(metavar="NAME=1,3,224,224", help="Sizes for an input that leaves some open.")
    ] = None,
    function: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which function.", show_default="the package's default")
    ] = None,
    rounding: Annotated[
        bool, typer.Option("--rounding", help="Keep what half precision rounds; else the model computes in float32.")
    ] = False,
) -> None:
    """Write a package as an ONNX model: what its operators mean, under the names that the package gives."""
    from compiler import shapes
    from compiler.driver import Options, load_library
    from compiler.errors import UserError
    from compiler.execution import calls
    from compiler.export_package import package_to_onnx, save
    from compiler.proof import read_package

    sizes: dict[str, tuple[int, ...]] = {}
    for name, given in map(shapes.parse, shape or ()):
        fixed = tuple(d for d in given if isinstance(d, int))
        if len(fixed) != len(given):
            raise UserError(f"--shape {name}=… gives a range or a choice, and export needs sizes or nothing")
        sizes[name] = fixed
    module = calls.select(read_package(package), function, package)
    written = package_to_onnx(module, load_library(Options()), sizes, rounding)
    save(written, model)
    opset = next(o.version for o in written.opset_import if o.domain in ("", "ai.onnx"))
    typer.echo(f"  {model.name}  opset {opset}, {len(written.graph.node)} nodes")
