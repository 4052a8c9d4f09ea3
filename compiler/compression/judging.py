"""The proof of a compressed package, and its distance from the original model.

It must compute what the plain package does with the weights that its integers and tables stand for, by usual limits.
How far those weights lead from the original is another question, answered with numbers, and with an error where they
exceed ``max_error``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.compression import exact
from compiler.compression.alike import alike
from compiler.compression.chooser import Chooser
from compiler.compression.road import Road
from compiler.compression.settings import Settings
from compiler.errors import VerificationError
from compiler.ir import Module, Op, clone_module
from compiler.proof import LIMITS, Verdict, judge, read_package, run_mil
from compiler.proof.precision import Trial, culprits
from compiler.report import error_text, number
from passes.compress import Record
from passes.compress.activations import Range

Array = np.ndarray[Any, Any]

#: A choice of schemes is not tried for less of the allowed error than this.
_LEAST_PART = 0.1


@dataclass(frozen=True, slots=True)
class Changes:
    """What compression changes in a program, apart from how weights are stored."""

    records: Sequence[Record]
    corrections: Mapping[str, Array]
    ranges: Mapping[str, Range]

    def on(self, module: Module) -> tuple[Module, dict[Op, Op]]:
        """See :func:`exact.reference`."""
        return exact.reference(module, self.records, self.corrections, self.ranges)


class Judge:
    """Says whether the package on disk is right, and near enough to the original."""

    def __init__(self, settings: Settings, road: Road, chooser: Chooser) -> None:
        self.settings, self.road, self.chooser = settings, road, chooser
        self.report = road.report
        self.margin = 1.0

    def prove(self, plain: Module, changes: Changes) -> bool:
        """Whether the package on disk computes what it should; False if another try, with more in f32, may.

        Args:
            plain: the package without compression, as it was read back.

        Raises:
            VerificationError: it does not.
        """
        road, report = self.road, self.report
        with report.stage("prove") as stage:
            stage.quiet = True
            package = read_package(road.draft)
            # Rounding to half moves activations across the borders of integers, which no limit on errors can tell from
            # a wrong package.
            in_half = report.accuracy == "fp16" and not changes.ranges
            wanted_module, _ = changes.on(plain)
            ours, dense = road.run_package(package)
            proven = in_half and alike(package, wanted_module, dense)
            if not proven:
                rounded = exact.holds_halves(package)
                exact.widen(package)
                exact.widen(wanted_module)
                same = road.run_stored(package) if rounded else ours
                report.verify = judge(road.names, same, road.run_stored(wanted_module), "fp32")
        if not proven and not report.verify.passed:
            raise self.failure()
        if in_half:
            reference, _ = changes.on(road.lowered)
            report.verify = judge(road.names, ours, road.run_lowered(reference), "fp16", report.limit)
            if not report.verify.passed:
                return self._retry(*changes.on(road.lowered))
        with report.stage("prove") as stage:
            worst = report.verify.worst
            if worst is not None:
                stage.what = f"{worst[0]}   {error_text(worst[1], report.verify.limit)}"
                stage.result = "proven with its own weights"
        wanted = report.original or [list(w.values()) for w in road.wanted]
        return self._distance(judge(road.names, ours, wanted, report.accuracy))

    def _retry(self, reference: Module, origin: Mapping[Op, Op]) -> bool:
        """Moves to f32 what loses too much in half precision with the new weights.

        Raises:
            VerificationError: there is nothing such.
        """
        road = self.road
        back = {o: t for t, o in origin.items()}
        inputs = [list(t.values()) for t in road.tries]
        wanted = run_mil(clone_module(reference), inputs, road.library)
        # Rounding in the package falls otherwise than in a trial, so that what barely passes here may fail there.
        self.margin /= 2
        limit = LIMITS["fp16"] * self.margin
        trial = Trial(reference, inputs, wanted, road.library, self.report.target.os, limit)
        more = culprits(trial, {back[op]: why for op, why in road.keep.items()})
        if not more:
            raise self.failure()
        road.keep.update({origin[op]: why for op, why in more.items() if op in origin})
        self.report.note(f"moved {len(more)} operators to f32: {next(iter(more.values()))}")
        return False

    def _distance(self, verdict: Verdict) -> bool:
        """Whether outputs are near enough to the original's; False if a milder choice of schemes may help.

        Raises:
            VerificationError: they are not.
        """
        report, limit = self.report, self.settings.max_error
        report.compression["distance"] = verdict.to_json()["outputs"]
        worst = verdict.worst
        if worst is None:
            return True
        name, error = worst
        off = error.badness
        with report.stage("distance") as stage:
            stage.what = f"{name}   {error_text(error, limit if limit is not None else math.inf)}"
            if limit is None:
                stage.what = stage.what.replace(" (limit inf)", "")
            stage.result = "from the original"
        if math.isinf(off):
            failure = VerificationError(
                f"once compressed, output '{name}' is NaN or infinite where the original's is not",
                "a milder --quantize",
            )
            failure.report = report
            raise failure
        if limit is not None and off > limit and self.settings.mixed and self.chooser.part > _LEAST_PART:
            self.chooser.part *= 0.8 * limit / off
            return False
        if limit is not None and off > limit:
            failure = VerificationError(
                f"once compressed, output '{name}' is {number(off)} from the original's, more than {number(limit)}",
                "a milder --quantize, more --calibrate inputs, or --quantize mixed",
            )
            failure.report = report
            raise failure
        return True

    def failure(self) -> VerificationError:
        worst = self.report.verify.worst
        detail = f": output '{worst[0]}' is off: {error_text(worst[1], self.report.verify.limit)}" if worst else ""
        failure = VerificationError(
            f"the compressed package does not compute the model with its own weights{detail}",
            "--precision fp32, or a milder --quantize",
        )
        failure.report = self.report
        return failure
