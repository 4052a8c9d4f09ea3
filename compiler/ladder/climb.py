"""Climbing: compile, measure, keep or go back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.comparison import metrics, paired
from compiler.errors import PlanishError, UserError
from compiler.execution import runnable
from compiler.ladder import steps as steps_
from compiler.ladder.steps import Step
from compiler.ladder.trials import Journal, Measured, Trial, front
from compiler.target import Target

if TYPE_CHECKING:
    from compiler.rewrite import Library
    from compiler.shapes import Size

Array = np.ndarray[Any, Any]
Sample = dict[str, Array]

#: How many samples calibrate, at most, where none are given for that.
CALIBRATE = 32
#: What a step must gain in size or in estimated latency to be kept.
GAIN = 0.01


@dataclass(frozen=True, slots=True)
class Ladder:
    """What to climb and how.

    Attributes:
        model: the ONNX model.
        data: samples to judge on, as for :func:`compiler.comparison.compare`.
        metric: the name of a built-in metric, or ``FILE.py:FUNCTION``.
        max_drop: how much worse the metric may be than the original's: ``1%`` of it, or ``0.01`` as such.
        target: what for.
        shapes: of inputs that leave sizes open.
        calibrate: inputs to compress by; a quarter of the samples when None, which then do not judge.
        higher_is_better: of a metric of the user's.
        steps: names of steps to try; all when empty.
        work: where packages and measurements are kept.
    """

    model: Path
    data: Path
    metric: str
    max_drop: str
    target: Target
    shapes: Mapping[str, Sequence[Size]] = field(default_factory=dict)
    calibrate: Path | None = None
    higher_is_better: bool | None = None
    steps: Sequence[str] = ()
    work: Path = Path("ladder")


@dataclass(slots=True)
class Found:
    """What a climb found.

    Attributes:
        original: the metric of the original model.
        allowed: the greatest drop that is allowed, in the metric's own unit.
        trials: in the order they were tried.
        best: the last that was kept; None if none was.
        front: the Pareto front of size, estimated latency and metric.
    """

    ladder: Ladder
    original: float
    allowed: float
    samples: int
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None

    @property
    def front(self) -> list[Trial]:
        return front(self.trials, self.allowed)

    def to_json(self) -> dict[str, Any]:
        on_front = {id(t) for t in self.front}
        return {
            "model": str(self.ladder.model),
            "metric": self.ladder.metric,
            "original": self.original,
            "allowed_drop": self.allowed,
            "samples": self.samples,
            "trials": [{**t.to_json(), "front": id(t) in on_front} for t in self.trials],
            "best": self.best.to_json() if self.best is not None else None,
        }


def climb(ladder: Ladder, tell: Callable[[Trial, bool], None] = lambda trial, again: None, explore: int = 0) -> Found:
    """Tries the steps in order. Each is compiled, proven and measured, and kept if the metric allows it and it gains.

    Args:
        tell: told of each trial, and whether it was measured before.
        explore: how many other combinations to try afterwards; see :func:`compiler.ladder.explore.explore`.

    Raises:
        UserError: the model, the data, the metric or a step cannot be used.
    """
    judge = Judge(ladder)
    found = Found(ladder, judge.base, judge.allowed, len(judge.samples))
    kept, smallest, fastest = Step("original"), 0, 0.0
    for step in steps_.chosen(ladder.steps, ladder.target.ios):
        trial, again = judge.tried(step, step.after(kept, smallest))
        measured = trial.measured
        if trial.kept and found.best is not None:
            gained = measured.bytes <= (1 - GAIN) * smallest or measured.latency_ms <= (1 - GAIN) * fastest
            larger = measured.bytes > (1 + GAIN) * smallest or measured.latency_ms > (1 + GAIN) * fastest
            if larger or not gained:
                trial = _back(trial, "larger or slower than what was kept" if larger else "gains nothing")
        if trial.kept:
            kept, smallest, fastest = step.upon(kept), measured.bytes, measured.latency_ms
            found.best = trial
        found.trials.append(trial)
        tell(trial, again)
    if explore:
        from compiler.ladder import explore as explore_

        for trial, again in explore_.explore(judge, found.trials, explore):
            found.trials.append(trial)
            best = found.best
            if trial.kept and (best is None or _within(trial, best)):
                found.best = trial
            tell(trial, again)
    return found


def _within(trial: Trial, best: Trial) -> bool:
    """Whether a trial gains in size or latency and loses in neither."""
    a, b = trial.measured, best.measured
    smaller = a.bytes <= (1 - GAIN) * b.bytes or a.latency_ms <= (1 - GAIN) * b.latency_ms
    return smaller and a.bytes <= b.bytes and a.latency_ms <= b.latency_ms


class Judge:
    """Compiles, measures and judges combinations of options, each once.

    Attributes:
        samples: what the metric is taken on.
        base: the metric of the original model.
        allowed: the greatest drop that is allowed, in the metric's own unit.
    """

    def __init__(self, ladder: Ladder) -> None:
        from compiler.driver import Options, load_library

        self.ladder = ladder
        self._library = load_library(Options())
        self._metric = metrics.find(ladder.metric, ladder.higher_is_better)
        original = runnable.load(ladder.model, self._library)
        self._calibrate, self.samples = _split(ladder, original)
        self._theirs = [original.run(s) for s in self.samples]
        self._scores = [self._metric.score(t, t, s) for t, s in zip(self._theirs, self.samples, strict=True)]
        self.base = float(np.mean(self._scores))
        self.allowed = _allowed(ladder.max_drop, self.base)
        self._journal = Journal(ladder.work, _fingerprint(ladder, self._library))

    def tried(self, step: Step, options: Mapping[str, Any]) -> tuple[Trial, bool]:
        """The trial of a step with options of ``compile``, and whether it was measured before."""
        key = steps_.key(options)
        measured = self._journal.get(key)
        again = measured is not None
        if measured is None:
            measured = self._measure(step, options)
            self._journal.put(key, measured)
        return self._judged(step, options, measured), again

    def _measure(self, step: Step, options: Mapping[str, Any]) -> Measured:
        """Compiles a step and measures what it gave. What the compiler refuses is a result too."""
        import compiler

        ladder, metric = self.ladder, self._metric
        package = ladder.work / steps_.package_name(step, options)
        given = dict(options)
        if "quantize" in given or "prune" in given:
            given["calibrate"] = self._calibrate
        try:
            done = compiler.compile(
                str(ladder.model),
                ladder.target.unit,
                package,
                os=ladder.target.os,
                precision=ladder.target.precision,
                chip=ladder.target.chip,
                shapes=ladder.shapes,
                **given,
            )
        except PlanishError as e:
            return Measured(refused=e.message)
        ours = runnable.load(package, self._library)
        placement = done.report.placement
        return Measured(
            str(package),
            done.report.bytes["package"],
            placement["estimates"]["latency_ms"],
            placement["estimates"]["energy_mj"],
            placement["estimates"]["memory_mb"],
            sum(placement["macs"].values()),
            tuple(metric.score(ours.run(s), t, s) for s, t in zip(self.samples, self._theirs, strict=True)),
        )

    def _judged(self, step: Step, options: Mapping[str, Any], measured: Measured) -> Trial:
        if measured.refused:
            return Trial(step, options, measured, why=measured.refused)
        found = paired(self._scores, measured.scores)
        drop = -found.difference.mean if self._metric.higher_is_better else found.difference.mean
        trial = Trial(step, options, measured, found.b.mean, found.b.low, found.b.high, drop, True)
        if drop <= self.allowed:
            return trial
        return _back(trial, f"the metric drops by {drop:.3g}, {self.allowed:.3g} is allowed")


def _split(ladder: Ladder, original: runnable.Runnable) -> tuple[Any, list[Sample]]:
    """Inputs to calibrate on, and samples to judge on."""
    from compiler.comparison.compare import samples

    everything = samples(ladder.data, original)
    if ladder.calibrate is not None:
        return ladder.calibrate, everything
    count = min(CALIBRATE, len(everything) // 4)
    if count < 1 or len(everything) - count < 2:
        raise UserError(
            f"{ladder.data} has {len(everything)} samples, too few to calibrate and to judge on",
            "more samples, or --calibrate FILE.npz",
        )
    names = [i.name for i in original.signature.inputs]
    return [{n: s[n] for n in names} for s in everything[:count]], everything[count:]


def _allowed(text: str, base: float) -> float:
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < np.inf:
        raise UserError(f"--max-drop {text} is no drop", "--max-drop 1% or --max-drop 0.01")
    if percent and base == 0.0:
        raise UserError("the original's metric is 0, of which there is no percentage", "--max-drop 0.01")
    return value / 100 * abs(base) if percent else value


def _fingerprint(ladder: Ladder, library: Library) -> str:
    """What measurements depend on, besides the step."""
    digest = hashlib.sha256()
    files = [ladder.model, ladder.data, *([ladder.calibrate] if ladder.calibrate is not None else [])]
    if ":" in ladder.metric:
        files.append(Path(ladder.metric.rpartition(":")[0]))
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    t = ladder.target
    asked = [ladder.metric, t.unit, t.os, t.precision, t.chip, sorted((k, list(v)) for k, v in ladder.shapes.items())]
    digest.update(json.dumps([*asked, library.hash], default=str).encode())
    return digest.hexdigest()


def _back(trial: Trial, why: str) -> Trial:
    return replace(trial, kept=False, why=why)
