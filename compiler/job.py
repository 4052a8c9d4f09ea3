"""What the last stages of a compile, write and prove, work on, whatever kind of package they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.ir import Module
from compiler.options import Options
from compiler.proof import Reference, judge
from compiler.report import Report, Stage, error_text

if TYPE_CHECKING:
    import onnx

    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A lowered module that is to be written and proven.

    Attributes:
        model: the original.
        reference: the original in onnxruntime; None if nothing is to be proven.
        lowered: the module, in operators of the target.
        tries: what to prove on, by the names of the module's inputs and in their order.
        draft: where the package goes until it is proven.
        made_up: inputs to correct biases by where weights are compressed and the user gave none; as ``tries``.
    """

    model: str | Path | onnx.ModelProto
    reference: Reference | None
    lowered: Module
    tries: Sequence[Mapping[str, Array]]
    draft: Path
    library: Library
    options: Options
    report: Report
    made_up: Sequence[Mapping[str, Array]] = ()


def conclude(
    stage: Stage,
    report: Report,
    names: Sequence[str],
    ours: Sequence[Sequence[Array]],
    theirs: Sequence[Sequence[Array]],
) -> None:
    """Judges what the package gives, for each set of inputs the outputs in the order of ``names``, and says it."""
    report.verify = judge(names, ours, theirs, report.accuracy, report.limit)
    for note in report.verify.notes:
        report.note(note)
    worst = report.verify.worst
    stage.quiet = worst is None or not report.verify.passed
    if worst is not None:
        stage.what = f"{worst[0]}   {error_text(worst[1], report.verify.limit)}"
        stage.result = "proven" if len(names) == 1 else f"worst of {len(names)} outputs"
