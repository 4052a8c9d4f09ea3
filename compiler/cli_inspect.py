"""``planish run`` and ``show``: what a package computes, the IR at any stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STAGES = ("import", "fuse", "lower", "half", "package", "meaning")


def run_command(
    package: Annotated[Path, typer.Argument(help="An ML Program package, whoever wrote it.", show_default=False)],
    inputs: Annotated[Path, typer.Option(metavar="IN.npz", help="Arrays by input name.", show_default=False)],
    outputs: Annotated[Path, typer.Option(metavar="OUT.npz", help="Where the results go.", show_default=False)],
) -> None:
    """Run a package on this machine: read it, give its operators meaning in ONNX, evaluate in onnxruntime."""
    import numpy as np

    from compiler import samples
    from compiler.driver import Options, load_library
    from compiler.errors import UserError
    from compiler.proof import MilSession, read_package

    module = read_package(package)
    main = module.main
    given = samples.fitted(samples.from_npz(inputs, [a.name for a in main.inputs]), main)
    names = list(main.output_names)
    results = MilSession(module, load_library(Options())).run(list(given.values()))
    try:
        with open(outputs, "wb") as file:
            np.savez(file, **dict(zip(names, results, strict=True)))  # type: ignore[arg-type]  # names are keywords
    except OSError as e:
        raise UserError(f"cannot write {outputs}: {e.strerror}", "another folder, with --outputs") from e
    for name, array in zip(names, results, strict=True):
        typer.echo(f"  {name}  {array.dtype}{list(array.shape)}")


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
    disable_rule: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A rule that must not fire.")] = None,
) -> None:
    """Print the IR of a model at any stage of its compilation, or of a package as it was read back."""
    from compiler import driver, ir, shapes
    from compiler.errors import UserError
    from compiler.proof import read_package
    from compiler.target import Target, known

    options = driver.Options(
        Target.of(target, os, precision), dict(shapes.parse(s) for s in shape or ()), rules or (), disable_rule or ()
    )
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
    typer.echo(ir.print_module(module))
