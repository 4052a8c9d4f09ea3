"""The whole road on one page: model.onnx → onnx.* → mil.* → package on disk → proof."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compiler.errors import PlanishError, UnsupportedError, VerificationError
from compiler.ir import Module, Op
from compiler.output import Output
from compiler.proof import Reference, judge, read_package, run_mil
from compiler.report import (
    Progress,
    Report,
    Silent,
    count_ops,
    error_text,
    fires,
    megabytes,
    number_of_ops,
    size_on_disk,
)
from compiler.shapes import Shape, declare_flexible, is_flexible, sizes_to_try
from compiler.target import Target

if TYPE_CHECKING:
    import onnx

    from compiler.locate import Departure
    from compiler.precision import Trial
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Verify = Literal["full", "fast", "off"]

#: How many sets of inputs a proof makes up.
SETS = {"full": 2, "fast": 1, "off": 0}

#: How often operators may be moved to f32 and the package written anew before giving up.
ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile: what the command line's options say.

    Attributes:
        shapes: the shape of an input by its name; a dimension is a size, a span or a choice of sizes.
        rules: files of rules besides the library's own.
        disabled: names of rules that must not fire.
        inputs: what to prove on in place of made-up inputs: arrays by input name, or an .npz file of them.
    """

    target: Target = field(default_factory=Target)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    rules: Sequence[str | Path] = ()
    disabled: Sequence[str] = ()
    verify: Verify = "full"
    inputs: Mapping[str, Array] | str | Path | None = None


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
    name = str(model) if isinstance(model, (str, Path)) else model.graph.name or "model"
    if options.target.unit == "metal":
        raise UnsupportedError("kernels for --target metal cannot be generated yet", "--target gpu")
    report = Report(name, options.target, options.target.precision, progress or Silent())
    library = load_library(options)
    with Output(output if output is not None else f"{Path(name).stem}.mlpackage") as out:
        module = import_model(model, options, library, report)
        tries = _inputs(module, options)
        _know_the_model(module, report)
        optimize(module, library, report)
        lower(module, library, report)
        final = _emit_and_prove(model, module, tries, out.draft, library, options, report)
        out.publish()
    report.output = str(out.path)
    return Compilation(out.path, final, report)


def load_library(options: Options) -> Library:
    """The library's rules and the user's, checked.

    Raises:
        PlanishError: a file of rules is wrong, or no rule has a disabled name.
    """
    from compiler import meaning
    from compiler.rewrite import load_library as load

    library = load([Path(p) for p in options.rules], disabled=options.disabled)
    meaning.install(library)
    return library


def import_model(model: str | Path | onnx.ModelProto, options: Options, library: Library, report: Report) -> Module:
    """Stage import: the model as onnx.* operators of the newest forms, shapes known, constants folded."""
    from compiler import frontend
    from passes import fold

    with report.stage("import") as stage:
        module: Module = frontend.load(model, options.shapes)
        declare_flexible(module, options.target.ios)
        for note in module.attributes.get("notes", ()):
            report.note(note)
        report.nodes = module.attributes["nodes"]
        if isinstance(model, (str, Path)):
            report.bytes["source"] = size_on_disk(model)
        _rewrite(library, module, "upgrade", report)
        fold.run(module)
        before = number_of_ops(module)
        size = f", {megabytes(report.bytes['source'])}" if "source" in report.bytes else ""
        stage.what = f"{Path(report.model).name}, opset {module.attributes.get('opset', '?')}{size}"
        stage.result = f"{report.nodes} nodes → {before} ops"
    return module


def _know_the_model(module: Module, report: Report) -> None:
    """Notes what the model's own arithmetic means for the proof; see :mod:`compiler.noise`."""
    from compiler import noise

    if report.target.precision == "fp32":
        report.rounds_activations = noise.rounds_activations(module)
        if noise.computes_in_half(module):
            report.limit = noise.FLOAT_MODEL
            report.note(f"the model itself computes in half precision: the proof's limit is {report.limit:.0e}")


def optimize(module: Module, library: Library, report: Report) -> None:
    """Stages canonicalize and fuse: fewer, larger onnx.* operators."""
    from passes import cse, dce, fold

    with report.stage("fuse") as stage:
        before = number_of_ops(module)
        cse.run(module)
        fired = {**_rewrite(library, module, "canonicalize", report)}
        for rule, count in _rewrite(library, module, "fuse", report).items():
            fired[rule] = fired.get(rule, 0) + count
        fold.run(module)
        cse.run(module)
        dce.run(module)
        stage.what = fires(fired) or "nothing to fuse"
        stage.result = f"{before} → {number_of_ops(module)} ops"


def lower(module: Module, library: Library, report: Report) -> None:
    """Stages lower and the unit's own: every onnx.* operator becomes mil.* operators that the target takes.

    Raises:
        UnsupportedError: an operator has no lowering; the message names its node.
    """
    from passes import cse, dce, narrow, widen
    from rules import limits

    target = report.target
    with report.stage("lower") as stage:
        _rewrite(library, module, "lower", report)
        dce.run(module)
        for op in module.walk():
            if op.defn.dialect not in ("mil", "ir"):
                at = f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""
                why = limits.reason(op)
                if why is not None:
                    raise UnsupportedError(f"{op.name}{at} cannot be compiled: {why}", "a model without it")
                raise UnsupportedError(
                    f"{op.name}{at} has no lowering to Core ML for {target.os}",
                    f"a rule for it in a file given with --rules; planish rules explain says why none fits {op.name}",
                )
        narrow.run(module)
        if target.precision == "fp32":
            widen.inside(module)
        cse.run(module)
        stage.what = f"{target.os.replace('ios', 'iOS ')}, {target.precision}"
        stage.result = f"{number_of_ops(module)} mil ops"
    if target.unit == "ane":
        with report.stage("shape") as stage:
            fired = _rewrite(library, module, "ane", report)
            dce.run(module)
            stage.what, stage.result = fires(fired), f"{number_of_ops(module)} ops"
            stage.quiet = not fired


def at_stage(model: str | Path, stage: str, options: Options) -> Module:
    """The module as it is after ``import``, ``fuse``, ``lower``, ``half``, in the ``package``, or given ``meaning``."""
    from compiler.precision import halved

    library = load_library(options)
    report = Report(str(model), options.target)
    module = import_model(model, options, library, report)
    if stage == "import":
        return module
    optimize(module, library, report)
    if stage == "fuse":
        return module
    lower(module, library, report)
    if stage == "lower":
        return module
    if options.target.precision == "fp16":
        module, _ = halved(module, options.target.os, {})
    if stage == "half":
        return module
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.mlpackage"
        _write(module, draft, library, report)
        module = read_package(draft)
    if stage == "meaning":
        give_meaning(module, library)
    return module


def give_meaning(module: Module, library: Library) -> None:
    """Stage meaning: mil.* operators become the onnx.* operators that say what they compute."""
    library.rewrite(module, "meaning")


def _emit_and_prove(
    model: str | Path | onnx.ModelProto,
    lowered: Module,
    tries: Sequence[Mapping[str, Array]],
    draft: Path,
    library: Library,
    options: Options,
    report: Report,
) -> Module:
    """Stages write and prove: the package at ``draft``, proven as far as ``options`` ask.

    Where half precision is to blame for a failed proof, the operators that lose too much move to f32 and the package is
    written anew.
    """
    from compiler.precision import Trial, culprits, halved

    target = options.target
    expected = _expected(model, tries, report)
    keep: dict[Op, str] = {}
    for _ in range(ROUNDS):
        final, kept = halved(lowered, target.os, keep) if target.precision == "fp16" else (lowered, {})
        _write(final, draft, library, report)
        _describe(final, kept, report)
        if not tries:
            return final
        _prove(draft, lowered.main.output_names, tries, expected, library, report)
        if not report.verify.passed and target.precision == "fp32":
            _measure_own_noise(model, tries, expected, report)
            _prove(draft, lowered.main.output_names, tries, expected, library, report)
        if report.verify.passed:
            return final
        trial = Trial(lowered, [list(t.values()) for t in tries], expected, library, target.os)
        with report.stage("locate") as stage:
            stage.quiet = True
            more = culprits(trial, keep) if target.precision == "fp16" and trial.judge_full().passed else {}
        if not more:
            break
        keep.update(more)
        report.note(f"moved {len(more)} operators to f32: {next(iter(more.values()))}")
    raise _failure(model, trial, tries, options, report)


def _inputs(module: Module, options: Options) -> list[dict[str, Array]]:
    """The sets of inputs to prove on, in the order of the module's inputs."""
    from compiler import samples

    if options.verify == "off":
        return []
    if options.inputs is None:
        # Both bounds of flexible shapes are tried, and with "full" a size between.
        count = SETS[options.verify] + is_flexible(module)
        return samples.generate(module.main, count, lambda i: sizes_to_try(module, i))
    names = [a.name for a in module.main.inputs]
    given = options.inputs if isinstance(options.inputs, Mapping) else samples.from_npz(options.inputs, names)
    return [samples.fitted(given, module.main)]


def _expected(
    model: str | Path | onnx.ModelProto, tries: Sequence[Mapping[str, Array]], report: Report
) -> list[list[Array]]:
    if not tries:
        return []
    with report.stage("reference") as stage:
        stage.quiet = True
        reference = Reference(model)
        return [reference.run(t) for t in tries]


def _measure_own_noise(
    model: str | Path | onnx.ModelProto,
    tries: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
    report: Report,
) -> None:
    """Sets the limit of a proof at fp32 to twice what the model moves by itself, within bounds."""
    from compiler import noise

    with report.stage("reference") as stage:
        stage.quiet = True
        moved = noise.own_noise(model, tries, expected)
    limit = min(2 * moved, noise.ROUNDING_MODEL if report.rounds_activations else noise.FLOAT_MODEL)
    if limit > report.verify.limit:
        report.limit = limit
        report.note(f"the limit is {limit:.1e}: onnxruntime's own answers differ by {moved:.1e}, see docs/proof.md")


def _write(module: Module, draft: Path, library: Library, report: Report) -> None:
    from importlib.metadata import version

    from codegen import mil

    origin = {
        "planish.version": version("planish"),
        "planish.source": Path(report.model).name,
        "planish.source.sha256": module.attributes["sha256"],
        "planish.rules.sha256": library.hash,
    }
    with report.stage("write") as stage:
        mil.write(module, draft, os=report.target.os, metadata=mil.Metadata(user=origin))
        report.bytes["package"] = size_on_disk(draft)
        stage.what, stage.result = draft.name, megabytes(report.bytes["package"])


def _prove(
    draft: Path,
    names: Sequence[str],
    tries: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
    library: Library,
    report: Report,
) -> None:
    """Reads the package back and compares what it computes with what the model computes.

    Args:
        names: what the model calls its outputs; a package may have to call them otherwise.
    """
    with report.stage("prove") as stage:
        package = read_package(draft)
        ours = run_mil(package, [list(t.values()) for t in tries], library)
        report.verify = judge(names, ours, expected, report.accuracy, report.limit)
        for note in report.verify.notes:
            report.note(note)
        worst = report.verify.worst
        if worst is None or not report.verify.passed:
            stage.quiet = True
        else:
            stage.what = f"{worst[0]}   {error_text(worst[1], report.verify.limit)}"
            stage.result = "proven" if len(names) == 1 else f"worst of {len(names)} outputs"


def _describe(module: Module, kept: Mapping[Op, str], report: Report) -> None:
    """What the package holds, and what is predicted to run where."""
    from compiler import placement

    report.ops = count_ops(module)
    report.kept = [
        {"op": op.name, "node": op.loc.nodes[0] if op.loc.nodes else "", "reason": why} for op, why in kept.items()
    ]
    report.placement = placement.describe(placement.predict(module, report.target))


def _failure(
    model: str | Path | onnx.ModelProto,
    trial: Trial,
    tries: Sequence[Mapping[str, Array]],
    options: Options,
    report: Report,
) -> VerificationError:
    """The error that says how far the package is off, which operator departs first, and which rule made it."""
    from compiler.locate import locate

    worst = report.verify.worst
    assert worst is not None
    name, error = worst
    text = f"output '{name}' is off: {error_text(error, report.verify.limit)}"
    with report.stage("locate") as stage:
        stage.quiet = True
        index = report.verify.failing_set or 0
        departure = locate(trial, Reference(model), tries[index], index)
        guilty = _guilty(departure, model, tries, trial.expected, options, report.accuracy)
    remedy = "--verify off writes the package all the same"
    if departure is not None:
        text += f"; {departure}"
    if guilty is not None:
        text += f"; without rule '{guilty}' the proof passes"
        remedy = f"--disable-rule {guilty}"
    failure = VerificationError(text, remedy)
    failure.report = report
    return failure


def _guilty(
    departure: Departure | None,
    model: str | Path | onnx.ModelProto,
    tries: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
    options: Options,
    accuracy: str,
) -> str | None:
    """The rule without which the f32 program is right, among those that made the operator that departs."""
    for rule in departure.rules[:8] if departure is not None else ():
        without = replace(options, disabled=[*options.disabled, rule])
        report = Report("", options.target)
        try:
            library = load_library(without)
            module = import_model(model, without, library, report)
            optimize(module, library, report)
            lower(module, library, report)
            names = module.main.output_names
            verdict = judge(names, run_mil(module, [list(t.values()) for t in tries], library), expected, accuracy)
        except PlanishError:
            continue  # a lowering that nothing replaces: the model cannot be compiled without it
        if verdict.passed:
            return rule
    return None


def _rewrite(library: Library, module: Module, stage: str, report: Report) -> Mapping[str, int]:
    fired = library.rewrite(module, stage, report.target).fires
    report.rules.update(fired)
    return fired
