"""Climbing: compile, measure, keep or go back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.ladder import steps as steps_
from compiler.ladder.judge import Judge, back
from compiler.ladder.steps import Step
from compiler.ladder.trials import Trial, front
from compiler.target import Target

if TYPE_CHECKING:
    from compiler.shapes import Size

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
        learn: what students learn from, as for :func:`compiler.distil.data.samples`; those that it is compressed by,
            or do not judge, when None.
        learn_steps: batches that a student sees.
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
    learn: str | None = None
    learn_steps: int = 300


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


def climb(
    ladder: Ladder,
    tell: Callable[[Trial, bool], None] = lambda trial, again: None,
    explore: int = 0,
    learning: Callable[[int, float, float], None] = lambda step, learnt, judged: None,
) -> Found:
    """Tries the steps in order. Each is compiled, proven and measured, and kept if the metric allows it and it gains.

    Args:
        tell: told of each trial, and whether it was measured before.
        explore: how many other combinations to try afterwards; see :func:`compiler.ladder.explore.explore`.
        learning: told how a student gets on, as by :func:`compiler.distil.distil`.

    Raises:
        UserError: the model, the data, the metric or a step cannot be used.
    """
    todo = steps_.chosen(ladder.steps, ladder.target.ios)
    judge = Judge(ladder, learning if any(s.distil for s in todo) else None)
    found = Found(ladder, judge.base, judge.allowed, len(judge.samples))
    kept, smallest, fastest = Step("original"), 0, 0.0
    for step in todo:
        if step.is_idle(kept):
            continue
        trial, again = judge.tried(step, step.after(kept, smallest))
        measured = trial.measured
        if trial.kept and found.best is not None:
            gained = measured.bytes <= (1 - GAIN) * smallest or measured.latency_ms <= (1 - GAIN) * fastest
            larger = measured.bytes > (1 + GAIN) * smallest or measured.latency_ms > (1 + GAIN) * fastest
            if larger or not gained:
                trial = back(trial, "larger or slower than what was kept" if larger else "gains nothing")
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
