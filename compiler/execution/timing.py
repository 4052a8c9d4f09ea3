"""How long something takes on this machine, call by call, and what a chip is estimated to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler import placement
from compiler.errors import UserError
from compiler.execution import runnable, samples
from compiler.ir import Function, Module, TensorType, clone_module
from compiler.target import Target

if TYPE_CHECKING:
    from compiler.execution.runnable import Runnable
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

PERCENTILES = (50, 90, 99)
#: The units that a chip's time is estimated for.
UNITS = ("ane", "gpu", "cpu")


def measure(
    path: str | Path, inputs: str | Path | None, runs: int, chip: str, batches: Sequence[int] = ()
) -> dict[str, Any]:
    """Loads something, runs it, and tells how long each took.

    Args:
        inputs: an .npz file of one set of inputs; made up when None.
        runs: how many calls are timed, after the first, which is told apart.
        batches: sizes of the first axis to time too, where the inputs leave it open.

    Returns:
        ``load_ms``; ``first_ms``; ``calls``: one entry for each batch size (0 for the inputs as they are): ``ms`` by
        percentile, ``mean_ms``, ``per_second`` (rows, or calls). Of packages ``estimated``: by unit latency, energy and
        memory on ``chip``. Times are of onnxruntime, or of kernels on the CPU: they say nothing about a device.

    Raises:
        UserError: it cannot be loaded, or the inputs do not fit.
    """
    from compiler.driver import Options, load_library

    library = load_library(Options())
    start = perf_counter()
    subject = runnable.load(path, library)
    load = perf_counter() - start
    given = _inputs(subject, inputs, library)
    first = _timed(subject.run, given)
    calls = [_calls(subject.run, given, runs, 0)]
    for size in batches:
        grown = _grown(subject.signature, given, size)
        subject.run(grown)
        calls.append(_calls(subject.run, grown, runs, size))
    found: dict[str, Any] = {
        "path": str(path),
        "kind": subject.kind,
        "load_ms": round(1e3 * load, 3),
        "first_ms": round(1e3 * first, 3),
        "calls": calls,
    }
    if subject.module is not None:
        found["chip"] = chip
        found["estimated"] = {unit: _estimate(subject.module, unit, chip) for unit in UNITS}
    return found


def _inputs(subject: Runnable, inputs: str | Path | None, library: Library) -> dict[str, Array]:
    if inputs is not None:
        return samples.from_npz(inputs, [i.name for i in subject.signature.inputs])
    function = subject.signature
    if subject.module is not None:
        # Which integers an input may hold is told by the tables that it indexes, which are onnx operators'.
        from compiler.execution.running import give_meaning

        meant = clone_module(subject.module)
        give_meaning(meant, library)
        function = meant.main
    elif subject.kind == "model":
        from compiler.frontend import load

        function = load(subject.path).main
    made = samples.generate(function)[0]
    return {i.name: made[i.name] for i in subject.signature.inputs}


def _calls(
    run: Callable[[Mapping[str, Array]], object], given: Mapping[str, Array], runs: int, batch: int
) -> dict[str, Any]:
    times = 1e3 * np.array([_timed(run, given) for _ in range(runs)])
    return {
        "batch": batch,
        "runs": runs,
        "ms": {f"p{p}": round(float(np.percentile(times, p)), 4) for p in PERCENTILES},
        "mean_ms": round(float(times.mean()), 4),
        "per_second": round(1e3 * max(batch, 1) / float(times.mean()), 2),
    }


def _timed(run: Callable[[Mapping[str, Array]], object], given: Mapping[str, Array]) -> float:
    start = perf_counter()
    run(given)
    return perf_counter() - start


def _grown(signature: Function, given: Mapping[str, Array], size: int) -> dict[str, Array]:
    """The inputs repeated along their open first axes."""
    grown = {}
    for argument in signature.inputs:
        array = given[argument.name]
        shape = argument.type.shape if isinstance(argument.type, TensorType) else None
        if shape and not isinstance(shape[0], int):
            grown[argument.name] = np.resize(array, (size, *array.shape[1:]))
        else:
            grown[argument.name] = array
    if all(grown[name] is given[name] for name in grown):
        raise UserError("no input leaves its first axis open, so there is one batch size", "compile … --batch 1,4,8")
    return grown


def _estimate(module: Module, unit: str, chip: str) -> dict[str, float]:
    said = placement.describe(placement.predict(clone_module(module), Target.of(unit, chip=chip)))["estimates"]
    return {key: said[key] for key in ("latency_ms", "energy_mj", "memory_mb")}
