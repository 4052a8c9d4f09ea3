"""Stage compress: a proven package made smaller, and proven again.

The package that comes in has passed the usual proof, so what is left to prove is that the compressed one computes the
same program with other weights, namely those that its integers and tables stand for: it is held against that program,
in f32, by the usual limits. How far those weights lead from the original model is another question, which is answered
with numbers, and with an error where they exceed ``max_error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.compression import calibration
from compiler.compression.chooser import Chooser
from compiler.compression.judging import Changes, Judge
from compiler.compression.road import Road, named_alike
from compiler.compression.settings import Settings
from compiler.errors import UserError
from compiler.execution.evaluate import EvaluationError
from compiler.ir import Module
from compiler.proof import read_package
from compiler.report import megabytes
from passes.compress import Record, Scheme, weights
from passes.compress import run as compress_weights
from passes.compress.activations import Range, insert, read_ranges, write_ranges
from passes.compress.calibrated import Means, Statistics, correct_biases, correction, encoder
from passes.compress.select import THRESHOLD

Array = np.ndarray[Any, Any]
Inputs = list[Array]

#: How often operators may be moved to f32, or a choice made smaller, before giving up.
_ROUNDS = 5


def compress(settings: Settings, road: Road) -> Module:
    """Writes the compressed package in the place of the plain one, and proves it.

    Returns:
        Its module.

    Raises:
        UserError: an option, a file or a limit cannot be met.
        VerificationError: the package does not compute the program with the weights that it holds, or its outputs are
            further from the original's than allowed.
    """
    return _Stage(settings, road).run()


class _Stage:
    def __init__(self, settings: Settings, road: Road) -> None:
        self.settings, self.road = settings, road
        self.report = road.report
        self.ios = road.report.target.ios
        self.plain_size = road.report.bytes["package"]
        self.data: list[Inputs] = []
        self.ranges: dict[str, Range] = {}

    def run(self) -> Module:
        settings, road, report = self.settings, self.road, self.report
        if settings.max_error is not None and not road.tries:
            raise UserError("--max-error compares outputs, and --verify off computes none", "--verify fast")
        with report.stage("calibrate") as stage:
            stage.quiet = settings.data is None
            if settings.data is not None:
                self.data = calibration.samples(settings.data, road.lowered.main)
            known = (
                calibration.statistics(road.lowered, self.data, road.library, THRESHOLD)
                if self.data and (settings.scheme is not None or settings.mixed)
                else {}
            )
            means: Mapping[str, Statistics | Means] = known or self._means()
            self.ranges = self._ranges() if settings.activations else {}
            stage.what = f"{len(self.data)} samples, {len(known)} layers"
            stage.result = f"{len(self.ranges)} ranges" if self.ranges else ""
        encode = encoder(known) if known else None
        chooser = Chooser(settings, road, self.data)
        judge = Judge(settings, road, chooser)
        plain = road.plain
        for attempt in range(_ROUNDS):
            final = road.stored() if attempt else road.written
            named_alike(plain, final)
            with report.stage("compress") as stage:
                plan: Scheme | Mapping[str, Scheme] = settings.scheme or chooser.plan(final)
                own = {w.name: w for w in weights(road.lowered)}
                records = compress_weights(final, plan, self.ios, encoder=encode)
                found = {
                    r.name: correction(own[r.name], r.dense, means[r.name])
                    for r in records
                    if r.dense is not None and r.name in means and r.name in own
                }
                corrections = {name: c for name, c in found.items() if c is not None}
                correct_biases(final, corrections)
                insert(final, self.ranges)
                stage.what, stage.result = self._summary(records)
            road.write(final)
            size = report.bytes["package"]
            if settings.budget is not None and size > settings.budget:
                chooser.over += (size - settings.budget) * 11 // 10 + 64
                continue
            self._record(records)
            if not road.tries or judge.prove(plain, Changes(records, corrections, self.ranges)):
                return final
            road.write(road.stored())
            plain = read_package(road.draft)
        if settings.budget is not None and report.bytes["package"] > settings.budget:
            raise UserError(
                f"the package could not be brought below {megabytes(settings.budget)}", "a larger --budget, or --prune"
            )
        raise judge.failure()

    def _means(self) -> dict[str, Means]:
        """What layers see on the mean of inputs that were made up. It is enough to correct biases by: a channel that is
        always above 0 lets every sum that it enters be off in the same way."""
        road = self.road
        made_up = [list(t.values()) for t in road.made_up]
        try:
            return calibration.means(road.lowered, made_up, road.library, THRESHOLD)
        except EvaluationError as e:
            self.report.note(f"biases are as they were, for made-up inputs cannot be run ({e.message})")
            return {}

    def _ranges(self) -> dict[str, Range]:
        """The ranges of activations: from the file, or found on the data and left in the file."""
        settings, road = self.settings, self.road
        if settings.ranges is not None and settings.ranges.exists():
            return read_ranges(settings.ranges)
        found = calibration.ranges(road.lowered, self.data, road.library, settings.method)
        if settings.ranges is not None:
            write_ranges(settings.ranges, found)
        if not found:
            self.report.note("no layer takes activations that can be quantized")
        return found

    # What was done

    def _summary(self, records: Sequence[Record]) -> tuple[str, str]:
        counts: dict[str, int] = {}
        for r in records:
            counts[str(r.scheme) if r.scheme is not None else "left"] = (
                counts.get(str(r.scheme) if r.scheme is not None else "left", 0) + 1
            )
        text = ", ".join(f"{what} ×{n}" for what, n in sorted(counts.items(), key=lambda i: -i[1]))
        if self.ranges:
            text += f", activations of {len(self.ranges)} layers"
        before, after = sum(r.before for r in records), sum(r.after for r in records)
        return text or "no weights to compress", f"{megabytes(before)} → {megabytes(after)} of weights"

    def _record(self, records: Sequence[Record]) -> None:
        self.report.compression |= {
            "settings": str(self.settings),
            "package_before": self.plain_size,
            "samples": len(self.data),
            "activations": {name: list(r) for name, r in self.ranges.items()},
            "weights": [
                {
                    "name": r.name,
                    "scheme": None if r.scheme is None else str(r.scheme),
                    "before": r.before,
                    "after": r.after,
                    "error": r.error,
                    **({"reason": r.reason} if r.reason else {}),
                }
                for r in records
            ],
        }
