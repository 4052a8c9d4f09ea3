"""``--target metal``: from fused onnx.* operators to a folder of Metal kernels, proven on this machine's CPU.

The proof runs what was written: the source of the kernels, compiled for this CPU, dispatched by the plan, both read
back from disk. It says that the kernels compute what the model computes, not how fast a GPU does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.emit import origin
from compiler.errors import UnsupportedError, UserError, VerificationError
from compiler.ir import Builder, Module, Op, Value
from compiler.job import Job, conclude
from compiler.proof import Reference, compare
from compiler.report import Report, error_text, fires, megabytes, size_on_disk
from compiler.stages import check, rewrite, run

if TYPE_CHECKING:
    from codegen.metal.program import Program
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

SUFFIX = ".metalpackage"

#: Thread orders that a full proof runs every set of inputs in: kernels must not depend on them.
ORDERS = {"full": (0, 1), "fast": (0,)}

#: A value departs when its relative L2 error exceeds this.
_DEPARTS = {"fp32": 1e-3, "fp16": 5e-2}

#: A tensor goes into a half buffer if its relative L2 error stays below this; see :mod:`compiler.proof.precision`.
_VALUE_LOSS = 5e-3


def lower(module: Module, library: Library, report: Report) -> None:
    """Stage metal: every operator becomes metal.*, and kernels are made of them.

    Raises:
        UnsupportedError: an operator has no kernel; the message names its node.
    """
    from compiler.dialects.metal import ANCHORS
    from passes import cse, dce, fixed_rows, fuse_regions

    with report.stage("lower") as stage:
        marked = fixed_rows.fix(module)
        fired = rewrite(library, module, "metal", report)
        if marked:
            fixed_rows.cut(module, marked)
        _pictures(module)
        run(dce, module)
        run(cse, module)
        for op in module.walk():
            if op.defn.constant is None and op.defn.dialect not in ("metal", "ir"):
                at = f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""
                raise UnsupportedError(f"{op.name}{at} has no Metal kernel", "--target gpu, or a rule of stage metal")
            for value in op.results:
                if not getattr(value.type, "is_static", False):
                    raise UnsupportedError(
                        f"the shape of '{value.name}' is only known at run time, and Metal kernels are written for "
                        "shapes that are known",
                        "--shape for every open dimension, or --target gpu",
                    )
        report.placement = {"anchors": sum(op.name in ANCHORS for op in module.main.block.ops)}
        kernels = fuse_regions.run(module)
        check(module, "pass fuse_regions")
        stage.what, stage.result = fires(fired), f"{kernels} kernels"


def _pictures(module: Module) -> None:
    """Brings outputs that are pictures into textures, at the end."""
    main, end = module.main, module.main.block.terminator
    assert end is not None
    b = Builder(main.block, end)
    given: list[Value] = []
    for name, value in zip(main.output_names, main.outputs, strict=True):
        pixels = main.attributes.get(f"image.{name}")
        given.append(value if pixels is None else b.op("metal.picture", [value], {"pixels": pixels}).result)
    end.operands = tuple(given)


def emit_and_prove(job: Job) -> Module:
    """Writes the package at ``job.draft`` and proves it as far as its options ask.

    Where a proof in half precision fails, buffers whose values halves do not hold become float, and it is tried again.

    Raises:
        VerificationError: the kernels do not compute what the model computes.
        UnsupportedError: nothing here can compile the kernels to run them.
    """
    reference, lowered, report = job.reference, job.lowered, job.report
    program = _write(job, frozenset())
    if reference is None:  # --verify off
        return lowered
    with report.stage("reference") as stage:
        stage.quiet = True
        expected = [reference.run(t) for t in job.tries]
    _prove(job, expected)
    if not report.verify.passed and job.options.target.precision == "fp16":
        lost = _lost_in_half(lowered, job.tries[0])
        if lost:
            report.note(f"{len(lost)} values stay in float, which halves do not hold: first '{next(iter(lost)).name}'")
            program = _write(job, frozenset(lost))
            _prove(job, expected)
    if not report.verify.passed:
        raise _failure(program, reference, job.tries, report)
    return lowered


def _write(job: Job, full: frozenset[Value]) -> Program:
    from codegen.metal import emit, lint, package
    from codegen.metal.by_hand import Handwritten

    options, report = job.options, job.report
    with report.stage("write") as stage:
        hand = Handwritten(options.kernels) if options.kernels is not None else None
        program = emit.emit(job.lowered, options.target.precision == "fp16", full, hand)
        if hand is not None and (found := lint.check(program.source)):
            raise UserError(f"{hand.path}:{found[0]}", "what Metal's language has (docs/metal.md)")
        said = options.metadata.attributes() if options.metadata is not None else {}
        program.metadata = {**said, **origin(job.lowered, job.library, report)}
        package.write(program, job.draft)
        report.bytes["package"] = size_on_disk(job.draft)
        _describe(program, job.lowered, report)
        stage.what = f"{job.draft.name}   {len(program.dispatches)} dispatches, {program.kernels} kernels"
        stage.result = megabytes(report.bytes["package"])
    return program


def _describe(program: Program, lowered: Module, report: Report) -> None:
    from codegen.metal import estimate
    from compiler import hardware

    report.ops = {}
    for d in program.dispatches:
        report.ops[d.kind] = report.ops.get(d.kind, 0) + 1
    chip = hardware.chip(report.target.chip)
    least = estimate.estimates(program, chip)
    report.placement = {
        "predicted": False,
        "unit": "metal",
        "dispatches": len(program.dispatches),
        "kernels": program.kernels,
        "functions": program.functions,
        "anchors": (report.placement or {})["anchors"],
        "layout_copies": sum(_only_moves(op) for op in lowered.main.block.ops),
        "barriers": sum(d.wait for d in program.dispatches[1:]),
        "heap": program.heap,
        "heap_bound": program.bound,
        "macs": sum(d.macs for d in program.dispatches),
        "bytes_moved": sum(d.bytes for d in program.dispatches),
        "chip": chip.name,
        "least_ms": round(sum(row["microseconds"] for row in least) / 1e3, 4),
        "dispatched": least,
    }


def _only_moves(op: Op) -> bool:
    """Whether a kernel computes nothing: what it stores is a tensor in another order, or a copy."""
    from compiler.dialects.metal import MOVEMENT

    if op.name != "metal.kernel":
        return False
    inner = [o for o in op.regions[0].ops if not o.defn.terminator and o.defn.constant is None]
    return all(o.name in MOVEMENT or o.name == "metal.copy" for o in inner)


def sentence(facts: Mapping[str, Any]) -> str:
    """``66 dispatches of 47 kernels, 64 barriers; 0.33 MB of scratch, of which 0.33 MB are alive at once; …``."""
    from compiler import hardware

    return (
        f"{facts['dispatches']} dispatches of {facts['kernels']} kernels{_written_as(facts)}, "
        f"{facts['barriers']} barriers; "
        f"{megabytes(facts['heap'])} of scratch, of which {megabytes(facts['heap_bound'])} are alive at once; "
        f"no less than {facts['least_ms']:.2g} ms on {hardware.chip(facts['chip']).title}"
    )


def _written_as(facts: Mapping[str, Any]) -> str:
    fewer = facts.get("functions", facts["kernels"]) < facts["kernels"]
    return f" in {facts['functions']} functions" if fewer else ""


def _prove(job: Job, expected: Sequence[Sequence[Array]]) -> None:
    """Runs the package as it was written, in several orders of threads, and compares."""
    from codegen.metal import executor, package
    from codegen.metal.library import DispatchError

    names = job.lowered.main.output_names
    orders = ORDERS.get(job.options.verify, (0,))
    with job.report.stage("prove") as stage:
        session = executor.Session(package.read(job.draft))
        ours = []
        for inputs in job.tries:
            try:
                found = session.run_orders(inputs, orders)
            except DispatchError as e:
                raise VerificationError(f"kernel {e}", _wrong(job)) from e
            for other in found[1:]:
                for name in names:
                    if not np.array_equal(found[0][name], other[name], equal_nan=True):
                        raise VerificationError(
                            f"output '{name}' depends on the order in which threads run: a barrier is missing",
                            _wrong(job),
                        )
            ours.append([found[0][name] for name in names])
        conclude(stage, job.report, names, ours, expected)


def _wrong(job: Job) -> str:
    """What to do about kernels that break a rule of Metal's."""
    return "mend it" if job.options.kernels is not None else "report it with the model"


def _lost_in_half(lowered: Module, inputs: Mapping[str, Array]) -> list[Value]:
    """The values between kernels that halves do not hold, by what they are in float."""
    from codegen.metal import emit, executor
    from passes.half import constant_loss

    program = emit.emit(lowered)
    values = executor.Session(program).trace(inputs)
    stored = [r for op in lowered.main.block.ops if op.name == "metal.kernel" for r in op.results]
    lost: list[Value] = []
    for value, array in zip(stored, values, strict=True):
        if array.dtype == np.float32 and constant_loss(array, _VALUE_LOSS) is not None:
            lost.append(value)
    return lost


def _failure(
    program: Program, reference: Reference, tries: Sequence[Mapping[str, Array]], report: Report
) -> VerificationError:
    """The error that says how far the package is off, and which kernel is the first to depart from the model."""
    from codegen.metal import executor
    from codegen.metal.library import DispatchError

    worst = report.verify.worst
    assert worst is not None
    text = f"output '{worst[0]}' is off: {error_text(worst[1], report.verify.limit)}"
    inputs = tries[report.verify.failing_set or 0]
    made = [(d, program.buffers[b.buffer].name) for d in program.dispatches for b in d.bindings if b.writes]
    theirs = reference.values(inputs, [name for _, name in made])
    try:
        traced = executor.Session(program).trace(inputs)
    except DispatchError as e:
        text += f"; kernel {e}"
        traced, made = [], []
    for (d, name), array in zip(made, traced, strict=True):
        expected = theirs.get(name)
        if expected is None or array.shape != expected.shape:
            continue
        error = compare(array, expected)
        if error.badness > _DEPARTS[report.accuracy]:
            text += f"; kernel {d.kernel} is the first to depart: value '{name}', rel. L2 {error.badness:.2g}"
            break
    said = VerificationError(text, "--verify off writes the package all the same")
    said.report = report
    return said
