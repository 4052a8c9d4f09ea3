"""``planish show``: the IR of a model at any stage, or of a package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STAGES = ("import", "fuse", "lower", "half", "package", "meaning")


def show_command(
    source: Annotated[
        Path, typer.Argument(metavar="MODEL|PKG", help="An ONNX model or a package.", show_default=False)
    ],
    stage: Annotated[
        str, typer.Option(help=f"{', '.join(STAGES)}: where to stop.", show_default="import, or package")
    ] = "",
    target: Annotated[str, typer.Option(help="ane, gpu, cpu or metal.")] = "ane",
    os: Annotated[str, typer.Option(help="ios16, ios17, ios18 or ios26.")] = "ios17",
    precision: Annotated[str | None, typer.Option(help="fp16 or fp32.")] = None,
    shape: Annotated[list[str] | None, typer.Option(metavar="NAME=1,3,224,224", help="An input's shape.")] = None,
    rules: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A file of rules of your own.")] = None,
    locations: Annotated[
        bool, typer.Option("--locations", help="Also each operator's nodes, and the rules that made it.")
    ] = False,
    disable_rule: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A rule that must not fire.")] = None,
) -> None:
    """Print the IR of a model at any stage of its compilation, or of a package as it was read back."""
    from codegen.metal import package as kernels
    from compiler import driver, ir, shapes
    from compiler.errors import UserError
    from compiler.execution import parts
    from compiler.proof import read_package
    from compiler.target import Target, known

    options = driver.Options(
        Target.of(target, os, precision), dict(shapes.parse(s) for s in shape or ()), rules or (), disable_rule or ()
    )
    if kernels.is_package(source):
        typer.echo(kernels.read(source).source)
        return
    if parts.is_package(source):
        plan = parts.read_plan(source)
        for path, names in plan.parts:
            typer.echo(f"// {path.name}: takes {', '.join(names)}\n")
            shown = kernels.read(path).source if kernels.is_package(path) else ir.print_module(read_package(path))
            typer.echo(shown)
        return
    is_package = source.is_dir()
    stage = known("stage", stage, STAGES) if stage else "package" if is_package else "import"
    if is_package:
        if stage not in ("package", "meaning"):
            raise UserError(
                f"{source} is a package, which has no stage '{stage}'", "--stage package or --stage meaning"
            )
        module = read_package(source)
        if stage == "meaning":
            driver.give_meaning(module, driver.load_library(options))
    else:
        module = driver.at_stage(source, stage, options)
    typer.echo(ir.print_module(module, locations=locations))
