"""Stage compress: a proven package made smaller, and proven again.

The package that comes in has passed the usual proof, so what is left to prove is that the compressed one computes the
same program with other weights, namely those that its integers and tables stand for: it is held against that program,
in f32, by the usual limits. How far those weights lead from the original model is another question, which is answered
with numbers, and with an error where they exceed ``max_error``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.compression import calibration, exact, mixed
from compiler.compression.settings import Settings
from compiler.errors import UserError, VerificationError
from compiler.ir import Module, Op, clone_module
from compiler.precision import Trial, culprits
from compiler.proof import LIMITS, MilSession, Verdict, judge, read_package, run_mil
from compiler.report import Report, error_text, megabytes, number
from passes.compress import Record, Scheme, weights
from passes.compress import run as compress_weights
from passes.compress.activations import Range, insert, layers, read_ranges, write_ranges
from passes.compress.calibrated import correct_biases, correction, encoder
from passes.compress.select import THRESHOLD

if TYPE_CHECKING:
    from compiler.features import Interface
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Inputs = list[Array]

#: How often operators may be moved to f32, or a choice made smaller, before giving up.
_ROUNDS = 5
#: A choice of schemes is not tried for less of the allowed error than this.
_LEAST_PART = 0.1


@dataclass(slots=True)
class Road:
    """How far the compile has come.

    Attributes:
        lowered: the mil module in f32.
        keep: its operators that must compute in f32 where the package computes in half.
        tries: what the proof runs on, as inputs of ``lowered``; empty if nothing is proven.
        given, wanted: the same as inputs of the package, and what the original model gives there as its outputs.
        stored: makes the module as it is stored, but for compression.
        write: writes a module where the package goes.
    """

    lowered: Module
    keep: dict[Op, str]
    tries: Sequence[Mapping[str, Array]]
    given: Sequence[Mapping[str, Array]]
    wanted: Sequence[Mapping[str, Array]]
    interface: Interface
    library: Library
    report: Report
    draft: Path
    stored: Callable[[], Module]
    write: Callable[[Module], None]

    @property
    def names(self) -> list[str]:
        """The outputs of the package, by the names that the user knows."""
        return list(self.wanted[0])

    def run_lowered(self, module: Module) -> list[list[Array]]:
        """What a module with the lowered one's inputs and outputs gives, as outputs of the package.

        States are what the module itself gave at the call before.
        """
        names = self.lowered.main.output_names
        session = MilSession(module, self.library)

        def run(one: dict[str, Array]) -> dict[str, Array]:
            return dict(zip(names, session.run(list(one.values())), strict=True))

        outputs = [run(one) for one in self.interface.chain([dict(t) for t in self.tries], run)]
        return [list(self.interface.package_outputs(names, list(o.values())).values()) for o in outputs]

    def run_stored(self, module: Module) -> list[list[Array]]:
        """What a module with the package's inputs and outputs gives."""
        return run_mil(module, [list(g.values()) for g in self.given], self.library)


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
        self.margin = 1.0

    def run(self) -> Module:
        settings, road, report = self.settings, self.road, self.report
        if settings.max_error is not None and not road.tries:
            raise UserError("--max-error compares outputs, and --verify off computes none", "--verify fast")
        _unique_names(road.lowered)
        with report.stage("calibrate") as stage:
            stage.quiet = settings.data is None
            if settings.data is not None:
                self.data = calibration.samples(settings.data, road.lowered.main)
            known = (
                calibration.statistics(road.lowered, self.data, road.library, THRESHOLD)
                if self.data and (settings.scheme is not None or settings.mixed)
                else {}
            )
            self.ranges = self._ranges() if settings.activations else {}
            stage.what = f"{len(self.data)} samples, {len(known)} layers"
            stage.result = f"{len(self.ranges)} ranges" if self.ranges else ""
        encode = encoder(known) if known else None
        chooser = self.chooser = _Chooser(self)
        plain = read_package(road.draft)
        for _ in range(_ROUNDS):
            final = road.stored()
            _named_alike(plain, final)
            with report.stage("compress") as stage:
                plan: Scheme | Mapping[str, Scheme] = settings.scheme or chooser.plan(final)
                own = {w.name: w for w in weights(road.lowered)}
                records = compress_weights(final, plan, self.ios, encoder=encode)
                found = {
                    r.name: correction(own[r.name], r.dense, known[r.name])
                    for r in records
                    if r.dense is not None and r.name in known and r.name in own
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
            if not road.tries or self._prove(plain, _Changes(records, corrections, self.ranges)):
                return final
            road.write(road.stored())
            plain = read_package(road.draft)
        if settings.budget is not None and report.bytes["package"] > settings.budget:
            raise UserError(
                f"the package could not be brought below {megabytes(settings.budget)}", "a larger --budget, or --prune"
            )
        raise self._failure()

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

    # Proof

    def _prove(self, plain: Module, changes: _Changes) -> bool:
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
            ours = road.run_stored(clone_module(package))
            exact.widen(package)
            wanted_module, _ = changes.on(plain)
            exact.widen(wanted_module)
            same = road.run_stored(package)
            report.verify = judge(road.names, same, road.run_stored(wanted_module), "fp32")
        if not report.verify.passed:
            raise self._failure()
        # Rounding to half moves activations across the borders of integers, which no limit on errors can tell from a
        # wrong package.
        if report.accuracy == "fp16" and not self.ranges:
            reference, origin = changes.on(road.lowered)
            report.verify = judge(road.names, ours, road.run_lowered(clone_module(reference)), "fp16", report.limit)
            if not report.verify.passed:
                return self._retry(reference, origin)
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
            raise self._failure()
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

    def _failure(self) -> VerificationError:
        worst = self.report.verify.worst
        detail = f": output '{worst[0]}' is off: {error_text(worst[1], self.report.verify.limit)}" if worst else ""
        failure = VerificationError(
            f"the compressed package does not compute the model with its own weights{detail}",
            "--precision fp32, or a milder --quantize",
        )
        failure.report = self.report
        return failure

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


@dataclass(frozen=True, slots=True)
class _Changes:
    """What compression changes in a program, apart from how weights are stored."""

    records: Sequence[Record]
    corrections: Mapping[str, Array]
    ranges: Mapping[str, Range]

    def on(self, module: Module) -> tuple[Module, dict[Op, Op]]:
        """See :func:`exact.reference`."""
        return exact.reference(module, self.records, self.corrections, self.ranges)


class _Chooser:
    """The plan of mixed precision, made anew where the package turned out larger than the budget."""

    def __init__(self, stage: _Stage) -> None:
        self.stage = stage
        #: By how many bytes packages turned out larger than planned, and which part of the error was too much.
        self.over = 0
        self.part = 1.0
        self.spent = stage.report.verify.worst
        self.table: dict[str, list[mixed.Option]] | None = None
        self.sensitivity: mixed.Sensitivity | None = None

    def plan(self, stored: Module) -> dict[str, Scheme]:
        stage, settings = self.stage, self.stage.settings
        if not settings.mixed:
            return {}
        if self.table is None or self.sensitivity is None:
            data = stage.data or [list(t.values()) for t in stage.road.tries]
            if not data:
                raise UserError("--quantize mixed measures outputs, and there are no inputs", "--calibrate data.npz")
            if not stage.data:
                stage.report.note("sensitivity was measured on the proof's inputs; --calibrate gives it better ones")
            self.sensitivity = mixed.Sensitivity(stage.road.lowered, data, stage.road.library)
            self.table = mixed.measure(stage.road.lowered, stored, self.sensitivity, stage.ios)
        left = None
        if settings.budget is not None:
            held = sum(options[0].bits for options in self.table.values())
            left = (settings.budget - stage.plain_size - self.over) * 8 + held
        return mixed.choose(self.table, self.sensitivity, left, self._allowed())

    def _allowed(self) -> float | None:
        """The error that is left for compression: rounding to half has its part already."""
        limit, worst = self.stage.settings.max_error, self.spent
        if limit is None or worst is None:
            return limit
        spent = worst[1].badness
        if spent >= limit:
            raise UserError(
                f"without any compression outputs are {number(spent)} from the original's, over --max-error",
                "--precision fp32, or a larger --max-error",
            )
        return self.part * math.sqrt(limit**2 - spent**2)


def _named_alike(plain: Module, stored: Module) -> None:
    """Gives weights and layers of a module that was read back the names of those that it was written from."""
    pairs = [
        *zip([w.op for w in weights(plain)], [w.op for w in weights(stored)], strict=True),
        *zip(layers(plain), layers(stored), strict=True),
    ]
    for read, written in pairs:
        assert read.name == written.name
        assert read.results[0].type is written.results[0].type
        read.results[0].name = written.results[0].name


def _unique_names(module: Module) -> None:
    """Gives each weight and each layer a name of its own: files and plans speak of them by name."""
    taken: set[str] = set()
    for op in [*(w.op for w in weights(module)), *layers(module)]:
        value = op.results[0]
        base = value.name or (op.loc.nodes[0] if op.loc.nodes else op.name.removeprefix("mil."))
        name, count = base, 1
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        taken.add(name)
        value.name = name
