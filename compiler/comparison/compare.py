"""Comparing two versions of a model on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler import placement
from compiler.comparison import metrics as metrics_
from compiler.comparison.statistics import paired
from compiler.errors import UserError
from compiler.execution import runnable
from compiler.execution.runnable import Runnable
from compiler.ir import clone_module
from compiler.report import count_ops, size_on_disk
from compiler.target import Target

if TYPE_CHECKING:
    from compiler.compression.settings import Data
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Sample = dict[str, Array]

#: How many layers are listed, those that differ most first.
LAYERS = 40


def compare(
    a: str | Path,
    b: str | Path,
    data: Data,
    *,
    model: str | Path | None = None,
    metric: Sequence[str] | str = ("agreement", "error"),
    higher_is_better: bool | None = None,
    target: Target | None = None,
) -> dict[str, Any]:
    """What tells two packages, kernels or ONNX models apart.

    Args:
        data: samples: an .npz file or arrays by input name, with an axis of samples in front; arrays of other names,
            such as ``label``, go to the metric.
        model: the ONNX model that both come from; without it A stands for the original.
        metric: names of built-in metrics, or ``FILE.py:FUNCTION``.
        higher_is_better: of a metric of the user's; True when None.
        target: for which unit and chip latency and energy are estimated.

    Returns:
        ``sides`` with ``a`` and ``b``: path, kind, bytes, ops, estimates; ``metrics`` by name: intervals, difference,
        p value, samples, ``better`` (``a``, ``b`` or None where the interval of the difference holds 0); ``layers``:
        relative L2 errors of values that the original has by name, where ``model`` says which it is.

    Raises:
        UserError: a side, the data or a metric cannot be used, or both sides do not have the same outputs.
    """
    from compiler.driver import Options, load_library

    library = load_library(Options())
    chosen = [metrics_.find(m, higher_is_better) for m in ([metric] if isinstance(metric, str) else metric)]
    sides = {"a": runnable.load(a, library), "b": runnable.load(b, library)}
    for side in sides.values():
        if side.states:
            raise UserError(f"{side.path} has states, so its samples are not independent", "planish run, call by call")
    if sides["a"].output_names != sides["b"].output_names:
        theirs = " and ".join(", ".join(s.output_names) for s in sides.values())
        raise UserError(f"the two have different outputs: {theirs}", "compile both from the same model")
    original = runnable.load(model, library) if model is not None else sides["a"]
    sets = samples(data, sides["a"])
    scores: dict[str, dict[str, list[float]]] = {m.name: {"a": [], "b": []} for m in chosen}
    for sample in sets:
        theirs_ = original.run(sample)
        for key, side in sides.items():
            ours = theirs_ if side is original else side.run(sample)
            for m in chosen:
                scores[m.name][key].append(m.score(ours, theirs_, sample))
    return {
        "original": str(original.path),
        "sides": {key: _side(side, target) for key, side in sides.items()},
        "metrics": {m.name: _verdict(m, scores[m.name]) for m in chosen},
        "layers": _layers(sides, Path(model), sets[0], library) if model is not None else [],
    }


def samples(data: Data, side: Runnable) -> list[Sample]:
    """Each sample's arrays by name, other arrays than inputs with them."""
    from compiler.compression import calibration

    arrays = calibration.load(data) if isinstance(data, (str, Path)) else data
    parts = [arrays] if isinstance(arrays, Mapping) else arrays
    what = str(data) if isinstance(data, (str, Path)) else "the samples"
    sets = [sample for part in parts for sample in calibration.labelled(part, side.signature, what)]
    if len(sets) < 2:
        raise UserError("there is one sample, and confidence takes several", "arrays with an axis of samples in front")
    return sets


def _side(side: Runnable, target: Target | None) -> dict[str, Any]:
    found: dict[str, Any] = {"path": str(side.path), "kind": side.kind, "bytes": size_on_disk(side.path)}
    if side.module is not None:
        module = clone_module(side.module)
        predicted = placement.describe(placement.predict(module, target or Target.of("ane")))
        found["ops"] = sum(count_ops(module).values())
        found["estimates"] = predicted["estimates"]
        found["residency"] = predicted["residency"]
    return found


def _verdict(metric: metrics_.Metric, scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    found = paired(scores["a"], scores["b"])
    better = None
    if found.difference.low > 0.0 or found.difference.high < 0.0:
        better = "b" if (found.difference.mean > 0.0) == metric.higher_is_better else "a"
    return {**found.to_json(), "higher_is_better": metric.higher_is_better, "better": better}


def _layers(sides: Mapping[str, Runnable], model: Path, sample: Sample, library: Library) -> list[dict[str, Any]]:
    """How far values are off on the first sample on both sides, those that differ most between the sides first."""
    from compiler.page.content import Measurement, by_value
    from compiler.proof import Reference

    errors: dict[str, dict[str, float]] = {}
    for key, side in sides.items():
        if side.module is not None:
            given = [sample[i.name] for i in side.signature.inputs]
            found = by_value(side.module, Measurement(Reference(model), sample, given, library))
            for value, error in found.items():
                errors.setdefault(value.name or "", {})[key] = error
    both = [(name, e["a"], e["b"]) for name, e in errors.items() if len(e) == 2]
    both.sort(key=lambda row: -abs(row[1] - row[2]))
    return [{"value": name, "a": a, "b": b} for name, a, b in both[:LAYERS]]
