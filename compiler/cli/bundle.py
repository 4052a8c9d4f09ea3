"""``planish bundle OUT.mlpackage NAME=MODEL.onnx …``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer


def bundle_command(
    output: Annotated[Path, typer.Argument(metavar="OUT.mlpackage", help="The package.", show_default=False)],
    part: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=MODEL.onnx[:x=1,3,224,224]…",
            help="A function: its name, and its model with shapes, or a package that exists.",
            show_default=False,
        ),
    ],
    target: Annotated[str, typer.Option(help="ane, gpu or cpu: the unit to shape the package for.")] = "ane",
    os: Annotated[str, typer.Option(help="ios18 or ios26: the oldest release to run on.")] = "ios18",
    precision: Annotated[
        str | None, typer.Option(help="fp16 or fp32.", show_default="fp16 on ane and gpu, fp32 on cpu")
    ] = None,
    default: Annotated[
        str | None, typer.Option(metavar="NAME", help="What runs when no function is named.", show_default="the first")
    ] = None,
    verify: Annotated[str, typer.Option(help="full, fast or off: how much to prove.")] = "full",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Put several models, or one at several shapes, into one package as functions that share their weights."""
    from compiler.cli.console import Lines
    from compiler.driver import Options
    from compiler.multifunction import bundle, parse_part
    from compiler.report import megabytes
    from compiler.target import Target, known

    start = perf_counter()
    options = Options(
        Target.of(target, os, precision),
        verify=known("verification", verify, ("full", "fast", "off")),  # type: ignore[arg-type]  # just checked
    )
    lines = Lines(quiet)
    try:
        done = bundle(output, list(map(parse_part, part)), options, default, lines)
    finally:
        lines.stop()
    lines.end("bundle", f"{len(part)} functions, each as it was proven", megabytes(done.size))
    lines.end("", "as packages of their own", megabytes(done.apart))
    lines.console.print(f"{done.path} in {perf_counter() - start:.1f} s", style="bold", markup=False)
