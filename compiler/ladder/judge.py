"""Compiling, measuring and judging the steps of a ladder, each once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.comparison import metrics, paired
from compiler.compression import calibration
from compiler.errors import PlanishError, UserError
from compiler.execution import runnable
from compiler.ladder import steps as steps_
from compiler.ladder.learning import Learning
from compiler.ladder.steps import Step
from compiler.ladder.trials import Journal, Measured, Trial

if TYPE_CHECKING:
    from compiler.ladder.climb import Ladder
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Sample = dict[str, Array]

#: How many samples calibrate, at most, where none are given for that.
CALIBRATE = 32


class Judge:
    """Compiles, measures and judges combinations of options, each once.

    Attributes:
        samples: what the metric is taken on.
        base: the metric of the original model.
        allowed: the greatest drop that is allowed, in the metric's own unit.
    """

    def __init__(self, ladder: Ladder, learning: Callable[[int, float, float], None] | None) -> None:
        """
        Args:
            learning: told how students get on; None if none are asked for.

        Raises:
            UserError: the model, the data, the metric or the drop cannot be used.
        """
        from compiler.driver import Options, load_library

        self.ladder = ladder
        self._library = load_library(Options())
        self._metric = metrics.find(ladder.metric, ladder.higher_is_better)
        original = runnable.load(ladder.model, self._library)
        self._calibrate, own, self.samples = _split(ladder, original)
        self._theirs = [original.run(s) for s in self.samples]
        self._scores = [self._metric.score(t, t, s) for t, s in zip(self._theirs, self.samples, strict=True)]
        self.base = float(np.mean(self._scores))
        self.allowed = _allowed(ladder.max_drop, self.base)
        of = _fingerprint(ladder, self._library)
        self._journal = Journal(ladder.work, of)
        self._learning = None if learning is None else Learning(ladder, original.signature, own, of, learning)

    def tried(self, step: Step, options: Mapping[str, Any]) -> tuple[Trial, bool]:
        """The trial of a step with options of ``compile``, and whether it was measured before.

        Args:
            options: with ``distil``, the share of channels that a student does without, which is then compiled.
        """
        asked = {**options, "of": self._learning.of} if "distil" in options and self._learning else options
        measured = self._journal.get(steps_.key(asked))
        again = measured is not None
        if measured is None and "distil" in options and not Learning.installed():
            measured = Measured(refused="distilling needs JAX and Optax: pip install 'planish[distill]'")
        elif measured is None:
            measured = self._measure(self.ladder.work / steps_.package_name(step, asked), options)
            self._journal.put(steps_.key(asked), measured)
        return self._judged(step, options, measured), again

    def _measure(self, package: Path, options: Mapping[str, Any]) -> Measured:
        """Compiles a step and measures what it gave. What the compiler refuses is a result too."""
        import compiler

        ladder, metric = self.ladder, self._metric
        given = dict(options)
        share = given.pop("distil", None)
        if "quantize" in given or "prune" in given:
            given["calibrate"] = self._calibrate
        try:
            model = ladder.model
            if share is not None:
                assert self._learning is not None
                model = self._learning.student(share, steps_.bits(given.get("quantize")))
            done = compiler.compile(
                str(model),
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
        drop = (0.0 - found.difference.mean) if self._metric.higher_is_better else found.difference.mean
        trial = Trial(step, options, measured, found.b.mean, found.b.low, found.b.high, drop, True)
        if drop <= self.allowed:
            return trial
        return back(trial, f"the metric drops by {drop:.3g}, {self.allowed:.3g} is allowed")


def _split(ladder: Ladder, original: runnable.Runnable) -> tuple[Any, list[Sample], list[Sample]]:
    """Inputs to calibrate on, all those that do not judge, and samples to judge on."""
    from compiler.comparison.compare import samples

    everything = samples(ladder.data, original)
    if ladder.calibrate is not None:
        calibration.samples(ladder.calibrate, original.signature)
        return ladder.calibrate, [], everything
    count = len(everything) // 4
    if count < 1 or len(everything) - count < 2:
        raise UserError(
            f"{ladder.data} has {len(everything)} samples, too few to calibrate and to judge on",
            "more samples, or --calibrate FILE.npz",
        )
    names = [i.name for i in original.signature.inputs]
    own = [{n: s[n] for n in names} for s in everything[:count]]
    return own[:CALIBRATE], own, everything[count:]


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


def back(trial: Trial, why: str) -> Trial:
    """The trial, rolled back."""
    return replace(trial, kept=False, why=why)
