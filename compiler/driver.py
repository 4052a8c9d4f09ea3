"""The whole road on one page: model.onnx → onnx.* → mil.* → package on disk → proof."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import UnsupportedError, UserError
from compiler.garbage import rare_collections
from compiler.ir import Module
from compiler.options import Emitted, Options, Verify
from compiler.output import Output
from compiler.report import Progress, Report, Silent
from compiler.stages import give_meaning, import_model, load_library, lower, optimize

if TYPE_CHECKING:
    import onnx

    from compiler.job import Job
    from compiler.page import Drawing
    from compiler.rewrite import Library

__all__ = [
    "Compilation",
    "Emitted",
    "Options",
    "Verify",
    "at_stage",
    "compile_model",
    "descend",
    "give_meaning",
    "import_model",
    "load_library",
    "lower",
    "optimize",
]


@dataclass(slots=True)
class Compilation:
    """A package on disk and how it came to be.

    Attributes:
        path: the package.
        module: the mil module that it holds.
        report: stages, rules, sizes, proof.
    """

    path: Path
    module: Module
    report: Report


def compile_model(
    model: str | Path | onnx.ModelProto, output: str | Path | None, options: Options, progress: Progress | None = None
) -> Compilation:
    """Compiles a model into a package and proves it. Nothing new is left at ``output`` unless the proof passed.

    Args:
        model: a file, or a model in memory.
        output: where the package goes; the model's name with ``.mlpackage`` in the current folder when None.

    Raises:
        UserError: the model, an option or the output cannot be used.
        UnsupportedError: the target or this compiler cannot do what the model needs.
        VerificationError: the package does not compute what the model computes; ``report`` holds how far it is off.
    """
    if (options.kernels is not None or options.emit == "stubs") and options.target.unit != "metal":
        raise UserError("only Metal kernels are written by hand", "--target metal")
    if options.emit == "stubs":
        from compiler import stubs

        return stubs.write_stubs(model, output, options, progress)
    if options.hybrid:
        from compiler import hybrid

        made = hybrid.compile_in_parts(model, output, options, progress)
        if made is not None:
            return made
    name = str(model) if isinstance(model, (str, Path)) else model.graph.name or "model"
    suffix, down, finish = _road(options)
    options.interface.check(options.target)
    accuracy = options.interface.accuracy(options.target.precision)
    report = Report(name, options.target, accuracy, progress or Silent())
    with rare_collections(), Output(output if output is not None else f"{Path(name).stem}{suffix}") as out:
        library = load_library(options)
        from compiler import emit  # takes a while to import; wrong rules have been refused by now
        from compiler.job import Job

        module = import_model(model, options, library, report)
        reference, tries = emit.to_prove(model, module, options)
        if reference is not None and reference.note:
            report.note(reference.note)
        made_up = _made_up(module, options, report)
        emit.know_the_model(module, report)
        before = _drawing(module, options)
        optimize(module, library, report)
        if options.compression is not None and options.compression.prune is not None:
            from compiler.compression import pruning

            model, reference = pruning.prune(options, reference, module, tries, report)
        down(module, library, report)
        final = finish(Job(model, reference, module, tries, out.draft, library, options, report, made_up))
        out.publish()
    report.output = str(out.path)
    if options.page is not None and before is not None:
        from compiler import page

        with report.stage("report") as stage:
            stage.quiet = True
            measurement = None
            if reference is not None:
                given = list(options.interface.package_inputs(tries[0]).values())
                same = not options.interface.features
                measurement = page.Measurement(reference, tries[0], given, library, same)
            if options.target.unit == "metal":
                from compiler.page import kernels

                content = kernels.collect(before, final, out.path, report, measurement)
            else:
                content = page.collect(before, final, report, measurement)
            page.write(options.page, content)
    return Compilation(out.path, final, report)


def _made_up(module: Module, options: Options, report: Report) -> list[dict[str, Any]]:
    """Inputs to compress by where the user gave none, if there are to be any."""
    if options.compression is None:
        return []
    from compiler.compression.pictures import made_up

    with report.stage("calibrate") as stage:
        stage.quiet = True
        return made_up(module, options.compression)


def descend(module: Module, library: Library, report: Report, options: Options) -> None:
    """Lowers fused operators to those of the target: of Core ML, or of Metal kernels.

    Raises:
        UnsupportedError: the target has nothing for an operator.
    """
    _road(options)[1](module, library, report)


def _road(options: Options) -> tuple[str, Callable[..., None], Callable[[Job], Module]]:
    """Where the way from fused operators leads: the package's suffix, the lowering, the writing with its proof."""
    if options.target.unit != "metal":
        return ".mlpackage", lower, _emit_and_prove
    from compiler import metal

    if options.compression is not None:
        raise UnsupportedError("Metal kernels take no compressed weights yet", "--target gpu")
    from compiler.features.image import Image

    others = [f for f in options.interface.features if not isinstance(f, Image)]
    if others:
        raise UnsupportedError("states, labels and the like are for Core ML packages", "--target gpu")
    return metal.SUFFIX, metal.lower, metal.emit_and_prove


def _emit_and_prove(job: Job) -> Module:
    from compiler.emit import emit_and_prove

    return emit_and_prove(job)


def _drawing(module: Module, options: Options) -> Drawing | None:
    """The model as it was imported, where a page is to show it."""
    if options.page is None:
        return None
    from compiler import page

    return page.draw(module)


def at_stage(model: str | Path, stage: str, options: Options) -> Module:
    """The module as it is after ``import``, ``fuse``, ``lower``, ``half``, in the ``package``, or given ``meaning``."""
    from compiler import emit
    from compiler.proof import read_package
    from compiler.proof.precision import halved

    library = load_library(options)
    report = Report(str(model), options.target)
    module = import_model(model, options, library, report)
    if stage == "import":
        return module
    optimize(module, library, report)
    if stage == "fuse":
        return module
    descend(module, library, report, options)
    if stage == "lower" or options.target.unit == "metal":
        return module
    if options.target.precision == "fp16":
        module, _ = halved(module, options.target.os, {})
    if stage == "half":
        return module
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.mlpackage"
        emit.write(module, draft, library, report)
        module = read_package(draft)
    if stage == "meaning":
        give_meaning(module, library)
    return module
