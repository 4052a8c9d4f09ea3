"""``planish run PKG``: what a package computes, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run_command(
    package: Annotated[Path, typer.Argument(help="An ML Program, whoever wrote it, or kernels.", show_default=False)],
    inputs: Annotated[Path, typer.Option(metavar="IN.npz", help="Arrays by input name.", show_default=False)],
    outputs: Annotated[Path, typer.Option(metavar="OUT.npz", help="Where the results go.", show_default=False)],
    function: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which function.", show_default="the package's default")
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="How many labels of a classifier to print.", min=0)] = 5,
) -> None:
    """Run a package on this machine: an ML Program in onnxruntime, Metal kernels compiled for the CPU."""
    import numpy as np

    from codegen.metal import executor
    from codegen.metal import package as kernels
    from compiler.driver import Options, load_library
    from compiler.errors import UserError
    from compiler.execution import calls, parts, samples
    from compiler.proof import read_package

    classes: dict[str, tuple[str | int, ...]] = {}
    if kernels.is_package(package):
        program = kernels.read(package)
        named = [program.buffers[i].name for i in program.of_kind("input")]
        results = executor.Session(program).run(samples.from_npz(inputs, named))
    elif parts.is_package(package):
        whole = parts.Session(package, load_library(Options()))
        results = whole.run(samples.from_npz(inputs, whole.plan.inputs))
    else:
        module = calls.select(read_package(package), function, package)
        classes = calls.classes(module.main)
        given = samples.from_npz(inputs, calls.inputs_of(module.main))
        results = calls.run_calls(module, load_library(Options()), given)
    try:
        with open(outputs, "wb") as file:
            np.savez(file, **results)  # type: ignore[arg-type]  # names are keywords
    except OSError as e:
        raise UserError(f"cannot write {outputs}: {e.strerror}", "another folder, with --outputs") from e
    for name, array in results.items():
        typer.echo(f"  {name}  {array.dtype}{list(array.shape)}")
        if name in classes and array.ndim == 1:
            for i in np.argsort(-array, kind="stable")[:top]:
                typer.echo(f"    {array[i]:.4f}  {classes[name][i]}")
