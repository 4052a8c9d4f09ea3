"""``compile MODEL``: a package, its proof, and what was done."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli import compress, wishes

if TYPE_CHECKING:
    from compiler.cli.console import Lines
    from compiler.driver import Compilation


def compile_command(
    model: Annotated[Path, typer.Argument(help="The ONNX model.", show_default=False)],
    target: Annotated[str, typer.Option(help="ane, gpu, cpu or metal: the unit to shape the package for.")] = "ane",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The package.", show_default="MODEL.mlpackage here")
    ] = None,
    os: Annotated[str, typer.Option(help="ios16, ios17, ios18 or ios26: the oldest release to run on.")] = "ios17",
    precision: Annotated[
        str | None, typer.Option(help="fp16 or fp32.", show_default="fp16 on ane and gpu, fp32 on cpu")
    ] = None,
    chip: Annotated[
        str, typer.Option(help="A12 to A18, M1 to M5: the chip to predict placement and time for.")
    ] = "A17",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,3,224,224", help="An input's shape; 1..8 is a range, 1|4|8 a choice of sizes."),
    ] = None,
    rules: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A file of rules of your own.")] = None,
    disable_rule: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A rule that must not fire.")] = None,
    verify: Annotated[str, typer.Option(help="full, fast or off: how much to prove.")] = "full",
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="What to prove on, by input name.", show_default="made up")
    ] = None,
    batch: wishes.BatchOption = None,
    image: wishes.ImageOption = None,
    state: wishes.StateOption = None,
    labels: wishes.LabelsOption = None,
    nms: wishes.NmsOption = None,
    io: wishes.IoOption = None,
    rename: wishes.RenameOption = None,
    describe: wishes.DescribeOption = None,
    description: wishes.DescriptionOption = "",
    author: wishes.AuthorOption = "",
    license: wishes.LicenseOption = "",
    model_version: wishes.VersionOption = "",
    metadata: wishes.MetadataOption = None,
    quantize: compress.QuantizeOption = None,
    calibrate: compress.CalibrateOption = None,
    budget: compress.BudgetOption = None,
    max_error: compress.MaxErrorOption = None,
    ranges: compress.RangesOption = None,
    range_method: compress.RangeMethodOption = "mse",
    prune: compress.PruneOption = None,
    importance: compress.ImportanceOption = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the report.")] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="Where to write a page with graph, placement, sizes, errors."
        ),
    ] = None,
    swift: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write a Swift package that runs the model (docs/swift.md)."),
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Metal kernels for what Core ML cannot express, in a folder of parts.")
    ] = False,
    emit: Annotated[
        str, typer.Option(help="package, or stubs: a file of the Metal kernels that rules name, to write by hand.")
    ] = "package",
    kernels: Annotated[
        Path | None, typer.Option(metavar="FILE.metal", help="Kernels written by hand, in place of those.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Compile an ONNX model into a Core ML package and prove that it computes what the model computes."""
    import compiler
    from compiler import shapes
    from compiler.cli.console import Lines
    from compiler.errors import UserError, VerificationError
    from compiler.report import Report

    start = perf_counter()
    said = {"author": author, "license": license, "description": description, "version": model_version}
    wished = wishes.wishes(batch, image, state, labels, nms, io, rename, describe, said, metadata)
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        raise UserError(f"{json} is no file that the report could be written to", "--json FILE in a folder that exists")
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        raise UserError(f"{page} is no file that the page could be written to", "--report FILE in a folder that exists")
    lines = Lines(quiet)
    try:
        done = compiler.compile(
            model,
            target,
            output,
            os=os,
            precision=precision,
            chip=chip,
            shapes=dict(shapes.parse(s) for s in shape or ()),
            rules=rules or (),
            disable_rules=disable_rule or (),
            verify=verify,
            inputs=inputs,
            wishes=wished,
            report=page,
            quantize=quantize,
            calibrate=calibrate,
            budget=budget,
            max_error=max_error,
            ranges=ranges,
            range_method=range_method,
            prune=prune,
            importance=importance,
            hybrid=hybrid,
            emit=emit,
            kernels=kernels,
            progress=lines,
        )
    except VerificationError as e:
        if json is not None and isinstance(e.report, Report):
            e.report.write(json)
        raise
    finally:
        lines.stop()
    if json is not None:
        done.report.write(json)
    if swift is not None:
        from codegen.swift import package

        written = package.write([done.path], swift)
        lines.end("swift", f"{written.path.name}   library {written.library} with {', '.join(written.models)}", "")
    _summary(done, lines, perf_counter() - start)


def _summary(done: Compilation, lines: Lines, seconds: float) -> None:
    """The last lines: where it is predicted to run and why not elsewhere, what stayed in f32, how to learn of rules,
    how long it took."""
    from compiler import hybrid, metal, placement

    report = done.report
    if done.path.suffix == ".metal":
        lines.console.print(f"{report.output} in {seconds:.1f} s", style="bold", markup=False)
        return
    if report.placement.get("unit") == "hybrid":
        lines.end("plan", hybrid.sentence(report.placement), "")
    elif report.target.unit == "metal":
        lines.end("plan", metal.sentence(report.placement), "")
    else:
        lines.end("predict", placement.sentence(report.placement), "")
        for line in placement.reasons(report.placement)[:4]:
            lines.end("", line, "")
    for kept in report.kept[:5]:
        at = f" at node '{kept['node']}'" if kept["node"] else ""
        lines.end("", f"{kept['op']}{at} computes in fp32: {kept['reason']}", "")
    if len(report.kept) > 5:
        lines.end("", f"and {len(report.kept) - 5} more; --json FILE lists them", "")
    if report.rules:
        count = f"{len(report.rules)} in {report.rules.total()} places"
        lines.end("rules", f"{count}; planish rules explain NAME shows one, --json FILE lists all", "")
    proven = "half precision emulated, placement predicted" if report.target.precision == "fp16" else "fp32"
    status = "" if report.verify.passed else "; not proven (--verify off)"
    lines.console.print(f"{report.output} in {seconds:.1f} s ({proven}{status})", style="bold", markup=False)
