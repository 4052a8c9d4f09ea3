"""What a failed proof is due to: how far the package is off, the operator that departs first, the rule that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import PlanishError, VerificationError
from compiler.options import Options
from compiler.proof import Reference, judge, run_mil
from compiler.report import Report, error_text
from compiler.stages import import_model, load_library, lower, optimize

if TYPE_CHECKING:
    import onnx

    from compiler.proof.locate import Departure
    from compiler.proof.precision import Trial

Array = np.ndarray[Any, Any]


def failure(
    model: str | Path | onnx.ModelProto,
    reference: Reference,
    trial: Trial,
    tries: Sequence[Mapping[str, Array]],
    options: Options,
    report: Report,
) -> VerificationError:
    """The error that says how far the package is off, which operator departs first, and which rule made it."""
    from compiler.proof.locate import locate

    worst = report.verify.worst
    assert worst is not None
    name, error = worst
    text = f"output '{name}' is off: {error_text(error, report.verify.limit)}"
    with report.stage("locate") as stage:
        stage.quiet = True
        index = report.verify.failing_set or 0
        departure = locate(trial, reference, tries[index], index)
        guilty = _guilty(departure, model, tries, trial.expected, options, report.accuracy)
    remedy = "--verify off writes the package all the same"
    if departure is not None:
        text += f"; {departure}"
    if guilty is not None:
        text += f"; without rule '{guilty}' the proof passes"
        remedy = f"--disable-rule {guilty}"
    said = VerificationError(text, remedy)
    said.report = report
    return said


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
