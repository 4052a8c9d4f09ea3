"""The stages that rewrite a model, from its file to the operators that a package holds."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compiler.ir import Module, Op, checking, verify, verify_ops
from compiler.options import Options
from compiler.report import Report, fires, megabytes, number_of_ops, size_on_disk
from compiler.shapes import declare_flexible

if TYPE_CHECKING:
    import onnx

    from compiler.rewrite import Library

#: How often stages canonicalize and fuse take turns at most: each may make work for the other.
TURNS = 4

#: While a module is lowered, mil.* operators still have the source's element types; pass narrow makes them Core ML's.
LOWERING = frozenset({"mil"})


def load_library(options: Options) -> Library:
    """The library's rules and the user's, checked.

    Raises:
        PlanishError: a file of rules is wrong, or no rule has a disabled name.
    """
    import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
    from compiler import meaning
    from compiler.rewrite import load_library as load

    if options.rules:
        library = load([Path(p) for p in options.rules], disabled=options.disabled)
    else:
        library = _own_library(tuple(options.disabled))
    library.compile_own()
    meaning.install(library)
    return library


@functools.lru_cache(maxsize=4)
def _own_library(disabled: tuple[str, ...]) -> Library:
    """The library's rules, whose stages a process that compiles many models resolves once."""
    from compiler.rewrite import load_library as load

    return load([], disabled=disabled)


def import_model(model: str | Path | onnx.ModelProto, options: Options, library: Library, report: Report) -> Module:
    """Stage import: the model as onnx.* operators of the newest forms, shapes known, constants folded."""
    from compiler import frontend
    from passes import fold

    with report.stage("import") as stage:
        module: Module = frontend.load(model, options.shapes, batch=options.interface.batch)
        declare_flexible(module, options.target.ios)
        options.interface.prepare(module)
        for note in module.attributes.get("notes", ()):
            report.note(note)
        report.nodes = module.attributes["nodes"]
        if isinstance(model, (str, Path)):
            report.bytes["source"] = size_on_disk(model)
        check(module, "the front end")
        rewrite(library, module, "upgrade", report)
        run(fold, module)
        options.interface.imported(module)
        before = number_of_ops(module)
        size = f", {megabytes(report.bytes['source'])}" if "source" in report.bytes else ""
        stage.what = f"{Path(report.model).name}, opset {module.attributes.get('opset', '?')}{size}"
        stage.result = f"{report.nodes} nodes → {before} ops"
    return module


def optimize(module: Module, library: Library, report: Report) -> None:
    """Stages canonicalize and fuse: fewer, larger onnx.* operators."""
    from passes import agree, cse, dce, fold

    with report.stage("fuse") as stage:
        before = number_of_ops(module)
        run(agree, module)
        run(cse, module)
        fired: Counter[str] = Counter()
        for _ in range(TURNS):
            fired.update(rewrite(library, module, "canonicalize", report))
            fused = rewrite(library, module, "fuse", report)
            fired.update(fused)
            if not fused:
                break
        run(fold, module)
        run(cse, module)
        run(dce, module)
        stage.what = fires(fired) or "nothing to fuse"
        stage.result = f"{before} → {number_of_ops(module)} ops"


#: The stages that :func:`seen_by` knows, in their order.
SEEN = ("canonicalize", "fuse", "lower", "metal")


def seen_by(stage: str, model: str | Path | onnx.ModelProto, options: Options, library: Library) -> Module:
    """A model as a stage of :data:`SEEN` finds it: what the stages before have made of it.

    Raises:
        UserError: the model cannot be used.
    """
    from passes import agree, cse

    report = Report(str(model), options.target)
    module = import_model(model, options, library, report)
    if stage == "fuse":
        run(agree, module)
        run(cse, module)
        rewrite(library, module, "canonicalize", report)
    elif stage != "canonicalize":
        optimize(module, library, report)
    return module


def lower(module: Module, library: Library, report: Report) -> None:
    """Stages lower and the unit's own: every onnx.* operator becomes mil.* operators that the target takes.

    Raises:
        UnsupportedError: an operator has no lowering; the message names its node.
    """
    from compiler import refusal
    from passes import cse, dce, layout, narrow, widen

    target = report.target
    with report.stage("lower") as stage:
        rewrite(library, module, "lower", report, LOWERING)
        run(dce, module, LOWERING)
        for op in module.walk():
            if op.defn.dialect not in ("mil", "ir"):
                raise refusal.unsupported(op, library, target)
        run(narrow, module)
        if target.precision == "fp32":
            widen.inside(module)
            check(module, "pass widen")
        run(cse, module)
        stage.what = f"{target.os.replace('ios', 'iOS ')}, {target.precision}"
        stage.result = f"{number_of_ops(module)} mil ops"
    with report.stage("shape") as stage:
        fired = Counter(rewrite(library, module, "shape", report))
        if target.unit == "ane":
            fired.update(rewrite(library, module, "ane", report))
        run(dce, module)
        stage.what, stage.result = fires(fired), f"{number_of_ops(module)} ops"
        stage.quiet = not fired
    with report.stage("layout") as stage:
        laid = layout.run(
            module,
            lambda size, kind: target.nanoseconds_moved(layout.moved_bytes(size, kind)),
            in_order=target.unit != "ane",
        )
        check(module, "pass layout")
        run(cse, module)
        if target.unit != "ane":
            rewrite(library, module, "wide", report)
            run(dce, module)
        report.interior = layout.interior(module)
        stage.what = f"{report.interior} transposes and reshapes inside"
        stage.result = f"{laid.before} → {laid.after} in all"
        stage.quiet = not laid.before


def give_meaning(module: Module, library: Library) -> None:
    """Stage meaning: mil.* operators become the onnx.* operators that say what they compute."""
    library.rewrite(module, "meaning")


def rewrite(
    library: Library, module: Module, stage: str, report: Report, untyped: frozenset[str] = frozenset()
) -> Mapping[str, int]:
    """Applies the rules of a stage until none applies.

    Args:
        untyped: dialects whose operators may have element types that they do not take.

    Returns:
        How often each rule fired.

    Raises:
        VerifyError: a rule broke the IR; only where :func:`compiler.ir.checking` says that this is looked for.
    """
    options: dict[str, Any] = {}
    if checking():

        def fired(rule: str, gone: Sequence[Op], made: Sequence[Op]) -> None:
            verify_ops([op for op in made if op.block is not None], f"rule {rule}", untyped)

        options["on_fire"] = fired
    fires = library.rewrite(module, stage, report.target, **options).fires
    report.rules.update(fires)
    check(module, f"stage {stage}", untyped)
    return fires


def run(pass_: ModuleType, module: Module, untyped: frozenset[str] = frozenset()) -> None:
    """Runs a pass, its ``run(module)``; raises as :func:`rewrite` does."""
    pass_.run(module)
    check(module, f"pass {pass_.__name__.rpartition('.')[2]}", untyped)


def check(module: Module, scope: str, untyped: frozenset[str] = frozenset()) -> None:
    """Verifies the IR, where :func:`compiler.ir.checking` says so."""
    if checking():
        verify(module, scope, untyped)
