"""Stages write and prove: the package on disk, read back and compared with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler import frontend
from compiler.features.base import Draft
from compiler.ir import Module, Op, clone_module
from compiler.job import Job, conclude
from compiler.options import Options
from compiler.proof import Reference, hold_to_shapes, read_package, run_mil
from compiler.report import Report, count_ops, megabytes, size_on_disk
from compiler.shapes import is_flexible, sizes_to_try
from compiler.stages import check

if TYPE_CHECKING:
    import onnx

    from compiler.metadata import Metadata
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

#: How many sets of inputs a proof makes up.
SETS = {"full": 2, "fast": 1, "off": 0}

#: How often operators may be moved to f32 and the package written anew before giving up.
ROUNDS = 6


def emit_and_prove(job: Job) -> Module:
    """Stages write and prove: the package at ``job.draft``, proven as far as its options ask.

    Where half precision is to blame for a failed proof, values that it cannot hold are scaled, then the operators that
    lose too much move to f32, and the package is written anew. A package that is to be compressed is proven before that
    and after.
    """
    from compiler.proof.blame import failure
    from compiler.proof.precision import Trial, culprits, halved, norms_in_full, rescaled, split
    from passes import rescale

    reference, lowered, tries = job.reference, job.lowered, job.tries
    library, options, report = job.library, job.options, job.report
    target = options.target
    expected = _expected(reference, tries, report)
    keep: dict[Op, str] = {}
    given = [options.interface.package_inputs(t) for t in tries]
    names = lowered.main.output_names
    wanted = [options.interface.package_outputs(names, e) for e in expected]
    due = [dict(zip(names, e, strict=True)) for e in expected]

    compression = options.compression if options.compression is not None and options.compression.compresses else None
    if compression is not None:
        from compiler.compression.road import unique_names

    def stored() -> Module:
        if compression is not None:
            unique_names(lowered)  # weights and layers of all that is made of it are told by their names
        final, kept = halved(lowered, target.os, keep) if target.precision == "fp16" else (lowered, {})
        check(final, "pass half")
        if options.interface.features or compression is not None:
            final = final if final is not lowered else clone_module(lowered)
            options.interface.seal(final)
            check(final, "the interface")
        report.kept = [
            {"op": op.name, "node": op.loc.nodes[0] if op.loc.nodes else "", "reason": why} for op, why in kept.items()
        ]
        if compression is None:
            _predict(final, report)
        return final

    def put(final: Module) -> None:
        write(final, job.draft, library, report, options.metadata)

    trial = Trial(lowered, [list(t.values()) for t in tries], expected, library, target.os)
    if target.precision == "fp16":
        keep.update(norms_in_full(trial, report))
    unscaled = target.precision == "fp16" and reference is not None
    for _ in range(ROUNDS):
        final = stored()
        if unscaled and any(rescale.takes_scales(k["op"]) and k["reason"].startswith("constant") for k in report.kept):
            unscaled, note = False, rescaled(trial)
            if note:
                report.note(note)
                final = stored()
        put(final)
        package = None
        if reference is not None:
            package = _prove(job, given, wanted, due, compression is not None)
            if not report.verify.passed and target.precision == "fp32":
                moved = _measure_own_noise(reference, tries, expected, report)
                _prove(job, given, wanted, due)
                if not report.verify.passed and _holds_between_roundings(job, reference, moved):
                    _prove(job, given, wanted, due)
        if reference is None or report.verify.passed:
            if compression is None:
                return final
            from compiler.compression.road import Road
            from compiler.compression.stage import compress

            road = Road(
                lowered,
                keep,
                tries,
                given,
                wanted,
                options.interface,
                library,
                report,
                job.draft,
                package or read_package(job.draft),
                final,
                stored,
                put,
                job.made_up,
            )
            small = final
            try:
                small = compress(compression, road)
            finally:
                _predict(small, report)
            return small
        with report.stage("locate") as stage:
            stage.quiet = True
            blamed = target.precision == "fp16" and trial.judge_full().passed
            note = rescaled(trial) if blamed and unscaled else ""
            more = culprits(trial, keep) if blamed and not note else {}
            note = note or (split(trial, keep, more) if more else "")
        unscaled = False
        if note:
            report.note(note)
            continue
        if not more:
            break
        keep.update(more)
        report.note(f"moved {len(more)} operators to f32: {next(iter(more.values()))}")
    assert reference is not None
    if compression is not None:
        _predict(final, report)
    raise failure(job.model, reference, trial, tries, options, report)


def know_the_model(module: Module, report: Report) -> None:
    """Notes what the model's own arithmetic means for the proof; see :mod:`compiler.proof.noise`."""
    from compiler.proof import noise

    if report.target.precision == "fp32" and noise.computes_in_half(module):
        report.limit = noise.HIGHEST
        report.note(f"the model itself computes in half precision: the proof's limit is {report.limit:.0e}")


def to_prove(
    model: str | Path | onnx.ModelProto, module: Module, options: Options
) -> tuple[Reference | None, list[dict[str, Array]]]:
    """What to prove against and on: the original model, and sets of inputs in the order of the module's.

    Nothing where nothing is to be proven.
    """
    from compiler.execution import samples

    if options.verify == "off":
        return None, []
    names = list(module.main.output_names)
    interface = options.interface
    reference = interface.reference(model, names)

    def run(one: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(names, reference.run(one), strict=True))

    calibrated = options.compression.data if options.compression is not None else None
    if options.inputs is None and calibrated is not None:
        from compiler.compression import calibration

        main_names = [a.name for a in module.main.inputs]
        several = calibration.samples(calibrated, module.main)[: SETS[options.verify]]
        sets = [dict(zip(main_names, one, strict=True)) for one in several]
    elif options.inputs is None:
        # Both bounds of flexible shapes are tried, and with "full" a size between.
        count = SETS[options.verify] + is_flexible(module)
        sets = interface.draw(samples.generate(module.main, count, lambda i: sizes_to_try(module, i)), run)
    else:
        inputs = [a.name for a in module.main.inputs if a.name not in interface.not_given()]
        given = options.inputs if isinstance(options.inputs, Mapping) else samples.from_npz(options.inputs, inputs)
        sets = [samples.fitted(one, module.main) for one in interface.split(given, module.main)]
    return reference, interface.chain(sets, run)


def _expected(reference: Reference | None, tries: Sequence[Mapping[str, Array]], report: Report) -> list[list[Array]]:
    if reference is None:
        return []
    with report.stage("reference") as stage:
        stage.quiet = True
        expected = [reference.run(t) for t in tries]
        reference.close()
        return expected


def _measure_own_noise(
    reference: Reference,
    tries: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
    report: Report,
) -> float:
    """Sets the limit of a proof at fp32 to twice what the model moves by itself, within bounds; how far that is."""
    from compiler.proof import noise

    with report.stage("reference") as stage:
        stage.quiet = True
        moved = noise.own_noise(reference, tries, expected)
    limit = min(2 * moved, noise.HIGHEST)
    if limit > report.verify.limit:
        report.limit = limit
        report.note(f"the limit is {limit:.1e}: onnxruntime's own answers differ by {moved:.1e}, see docs/proof.md")
    return moved


def _holds_between_roundings(job: Job, reference: Reference, moved: float) -> bool:
    """Whether a package whose outputs move further than any limit lets them is right from one rounding to the next.

    If so, twice what the model moves by itself is the limit, as high as that may be.
    """
    from compiler.proof import noise, roundings

    report = job.report
    if 2 * moved <= noise.HIGHEST or job.options.interface.features:
        return False
    with report.stage("prove") as stage:
        stage.quiet = True
        found = roundings.stretches(job.draft, job.library, reference, job.tries)
    if not found.hold:
        return False
    report.limit = 2 * moved
    report.note(f"{found}; all together to {report.limit:.1e}, as onnxruntime's own answers differ by {moved:.1e}")
    return True


def origin(module: Module, library: Library, report: Report) -> dict[str, str]:
    """Where a package comes from, as it says itself: compiler, model, rules."""
    from importlib.metadata import version

    from compiler.execution import description
    from compiler.features.batch import ROWS_APART

    rows = {description.ROWS: description.APART} if module.attributes.get(ROWS_APART) else {}
    return {
        "planish.version": version("planish"),
        "planish.source": Path(report.model).name,
        "planish.source.sha256": module.attributes["sha256"],
        "planish.rules.sha256": library.hash,
        **rows,
    }


def write(module: Module, draft: Path, library: Library, report: Report, metadata: Metadata | None = None) -> None:
    """Stage write; ``metadata`` is what the package says besides where it comes from."""
    from codegen import mil

    with report.stage("write") as stage:
        said = metadata or mil.Metadata()
        mil.write(
            module,
            draft,
            os=report.target.os,
            metadata=replace(said, user={**said.user, **origin(module, library, report)}),
        )
        frontend.let_go()
        report.bytes["package"] = size_on_disk(draft)
        stage.what, stage.result = draft.name, megabytes(report.bytes["package"])


def _prove(
    job: Job,
    tries: Sequence[Mapping[str, Array]],
    expected: Sequence[Mapping[str, Array]],
    due: Sequence[Mapping[str, Array]],
    keep: bool = False,
) -> Module | None:
    """Reads the package back and compares what it computes with what the model computes.

    Args:
        tries, expected: in the order of the package's inputs and outputs; it may have to call them otherwise.
        due: what the module should give before it is sealed.

    Returns:
        What was read, to ``keep``.
    """
    with job.report.stage("prove") as stage:
        package = read_package(job.draft)
        said = list(zip(package.main.output_names, [v.type for v in package.main.outputs], strict=True))
        kept = clone_module(package) if keep else None
        results = run_mil(package, [list(t.values()) for t in tries], job.library)
        if not job.options.interface.features:
            hold_to_shapes(said, results)
        ours = [dict(zip(expected[0], r, strict=True)) for r in results]
        given, wanted = [dict(t) for t in tries], [dict(e) for e in expected]
        draft = Draft(job.draft, given, [dict(d) for d in due], job.library)
        ours, wanted = job.options.interface.compared(ours, wanted, draft)
        names = list(wanted[0])
        mine, theirs = ([[one[n] for n in names] for one in side] for side in (ours, wanted))
        conclude(stage, job.report, names, mine, theirs)
    return kept


def _predict(module: Module, report: Report) -> None:
    """What the package holds, and what is predicted to run where."""
    from compiler import placement

    report.ops = count_ops(module)
    report.placement = placement.describe(placement.predict(module, report.target))
