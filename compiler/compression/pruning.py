"""Stage prune: channels cut out of the fused model, which is then what the rest of the road compiles and proves.

Three comparisons lead from the original to the package: the fused model computes what the original does, within 1e-4;
so does the pruned one what the fused one does where nothing takes the channels that went; and the package is proven
against the pruned one as any package is. How far the pruned model is from the original is measured, not proven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.compression import calibration, importance
from compiler.errors import UnsupportedError, UserError, VerificationError
from compiler.execution import evaluate
from compiler.ir import Module, clone_module
from compiler.options import Options
from compiler.proof import Reference, Verdict, judge
from compiler.report import Report, error_text, number
from passes import prune as pruner

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]

#: The greatest relative difference of pruned and masked model, and of fused and original one.
LIMIT = 1e-4


def prune(
    options: Options, reference: Reference | None, module: Module, tries: Sequence[Mapping[str, Array]], report: Report
) -> tuple[onnx.ModelProto, Reference | None]:
    """Prunes a module of onnx.* operators in place.

    Returns:
        The pruned model, and how to run it.

    Raises:
        UserError: no channel can be cut out, or outputs are further from the original's than allowed.
        VerificationError: the module, or what was made of it, is not what it should be.
    """
    settings = options.compression
    assert settings is not None
    assert settings.prune is not None
    if options.interface.features:
        raise UnsupportedError("a pruned model cannot get other inputs and outputs at once", "--prune alone")
    names = module.main.output_names
    with report.stage("prune") as stage:
        given = calibration.samples(settings.data, module.main) if settings.data is not None else []
        scores = importance.scores(settings.judged_by, module, given)
        original = [reference.run(t) for t in tries] if reference is not None else []
        masked = None
        if reference is not None:
            fused = judge(names, _run(module, tries), original, "fp32", report.limit)
            if not fused.passed:
                raise _failure("the fused model does not compute what the original does", fused, report)
            masked = clone_module(module)
            pruner.masked(masked, settings.prune, scores)
        done = pruner.run(module, settings.prune, scores)
        if not done.channels:
            raise nothing_to_cut(module)
        if masked is not None:
            _check(names, _run(module, tries), _run(masked, tries), original, report)
        stage.what = f"{done.channels} of {done.of} channels"
        stage.result = f"MACs {_less(done.macs)}, parameters {_less(done.parameters)}"
    model = evaluate.to_onnx(module)
    report.compression["pruning"] = {
        "amount": settings.prune,
        "importance": settings.judged_by,
        "channels": done.channels,
        "channels_before": done.of,
        "macs": done.macs[1],
        "macs_before": done.macs[0],
        "parameters": done.parameters[1],
        "parameters_before": done.parameters[0],
    }
    if reference is None:
        return model, None
    pruned = Reference(model)
    report.original = original
    distance = judge(names, [pruned.run(t) for t in tries], original, "fp32")
    report.compression["pruning"]["distance"] = distance.to_json()["outputs"]
    worst = distance.worst
    if worst is not None:
        with report.stage("distance") as stage:
            stage.what = f"{worst[0]}   {error_text(worst[1], LIMIT).replace(f' (limit {number(LIMIT)})', '')}"
            stage.result = "from the original"
        if settings.max_error is not None and worst[1].badness > settings.max_error:
            raise UserError(
                f"pruned, output '{worst[0]}' is {number(worst[1].badness)} from the original's, "
                f"more than {number(settings.max_error)}",
                "a smaller --prune, and training of what is left",
            )
    return model, pruned


def nothing_to_cut(module: Module) -> UserError:
    """What is said of a module of onnx.* operators that cannot be pruned."""
    found = pruner.obstacle(module.main)
    text, remedy = "no channel of this model can be cut out without changing others", "--quantize int8 without --prune"
    if found is not None:
        op, why = found
        text = f"{text}: {why}"
        remedy = (
            f"an export without the operator {op.name.removeprefix('onnx.')}, or {remedy}" if op.regions else remedy
        )
    return UserError(text, remedy)


def _run(module: Module, tries: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
    session = evaluate.Session(module)
    return [session.run(t) for t in tries]


def _check(
    names: Sequence[str],
    pruned: Sequence[Sequence[Array]],
    masked: Sequence[Sequence[Array]],
    original: Sequence[Sequence[Array]],
    report: Report,
) -> None:
    """Raises VerificationError where a pruned output is not the masked one's, in the measure of what outputs usually
    are: a model that pruning has ruined may give nothing but rounding errors."""
    for p, m, o in zip(pruned, masked, original, strict=True):
        for name, a, b, c in zip(names, p, m, o, strict=True):
            scale = max(float(np.linalg.norm(b.astype(np.float64))), float(np.linalg.norm(c.astype(np.float64))))
            if float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64))) > LIMIT * scale:
                raise _failure(
                    f"cutting channels out changed output '{name}' by more than they contribute",
                    judge(names, pruned, masked, "fp32"),
                    report,
                )


def _failure(text: str, verdict: Verdict, report: Report) -> VerificationError:
    worst = verdict.worst
    detail = f": {error_text(worst[1], verdict.limit)}" if worst is not None else ""
    report.verify = verdict
    failure = VerificationError(text + detail, "without --prune")
    failure.report = report
    return failure


def _less(counts: tuple[int, int]) -> str:
    return f"−{100 * (1 - counts[1] / max(counts[0], 1)):.0f} %"
