"""Calibration: the model run on inputs of the user's, and what its layers see."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import Function, Module, Op, TensorType, Value, clone_function, suggest
from compiler.proof import MilSession
from passes.compress import activations, windows
from passes.compress.activations import Histogram, Method, Range
from passes.compress.calibrated import Means, Statistics
from passes.compress.select import weights

if TYPE_CHECKING:
    from compiler.compression.settings import Data
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Inputs = list[Array]

#: Sums of x xᵀ beyond this are gathered in several turns over the data.
_MOST_BYTES = 1 << 30
SEED = 6


def samples(data: Data, function: Function) -> list[Inputs]:
    """Sets of inputs, each in the order of the function's inputs.

    An array of an input's own shape is one sample; one with an axis more in front, or with a first axis of several
    times the input's, holds several.

    Raises:
        UserError: the file cannot be read, an input is missing, or an array fits no input.
    """
    if isinstance(data, (str, Path)):
        return _split(load(data), function, str(data))
    if isinstance(data, Mapping):
        return _split(data, function, "the calibration inputs")
    out = [s for one in data for s in _split(one, function, "the calibration inputs")]
    if not out:
        raise UserError("there are no calibration inputs", "a few inputs that the model is made for")
    return out


def labelled(arrays: Mapping[str, Array], function: Function, what: str = "the samples") -> list[dict[str, Array]]:
    """Samples by input name, and what else lies beside them: arrays of other names with an entry for each sample.

    Args:
        what: how errors call the arrays.

    Raises:
        UserError: an input is missing, or an array fits no input.
    """
    names = [a.name for a in function.inputs]
    found = [dict(zip(names, one, strict=True)) for one in _split(arrays, function, what)]
    for name, array in arrays.items():
        if name not in names and np.ndim(array) and len(array) == len(found):
            for one, part in zip(found, array, strict=True):
                one[name] = np.asarray(part)
    return found


def load(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz file; a key may carry the prefix ``in:``, and those that begin with ``out:`` are left out.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {k.removeprefix("in:"): file[k] for k in file.files if not k.startswith("out:")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        reason = (e.strerror if isinstance(e, OSError) else "") or "it is not a NumPy .npz archive"
        raise UserError(f"cannot read the inputs {path}: {reason}", "numpy.savez(FILE, NAME=array, …)") from e


def _split(given: Mapping[str, Array], function: Function, what: str) -> list[Inputs]:
    parts: list[list[Array]] = []
    for argument in function.inputs:
        if argument.name not in given:
            there = f", only for {', '.join(map(repr, given))}" if given else ""
            raise UserError(
                f"there is no array for input '{argument.name}' in {what}{there}{suggest(argument.name, given)}",
                f"numpy.savez(FILE, {argument.name}=array, …)",
            )
        if not isinstance(argument.type, TensorType) or argument.type.shape is None:
            raise UserError(f"input '{argument.name}' is a {argument.type}, which cannot be calibrated on")
        parts.append(_of_input(np.asarray(given[argument.name]), argument.type, argument.name))
    counts = {len(p) for p in parts}
    if len(counts) > 1 or not min(counts, default=0):
        each = ", ".join(f"'{a.name}' {len(p)}" for a, p in zip(function.inputs, parts))
        raise UserError(f"there are different numbers of samples in {what}: {each}", "as many for each input")
    return [list(one) for one in zip(*parts, strict=True)]


def _of_input(array: Array, type_: TensorType, name: str) -> list[Array]:
    shape = type_.shape
    assert shape is not None
    if array.dtype.kind not in "biuf":
        raise UserError(f"the array for input '{name}' holds {array.dtype}, which are no numbers")
    array = array.astype(type_.dtype.numpy, copy=False)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise UserError(f"the array for input '{name}' holds NaN", "inputs without NaN")
    if _fits(array.shape, shape):
        return [array]
    if _fits(array.shape[1:], shape):
        return [np.asarray(one) for one in array]  # no NumPy scalars, which onnxruntime does not take
    first = shape[0] if shape else None
    tail = array.ndim == len(shape) and _fits(array.shape[1:], shape[1:])
    if isinstance(first, int) and tail and array.shape[0] % first == 0:
        return list(array.reshape(-1, first, *array.shape[1:]))
    want = ", ".join(map(str, shape))
    raise UserError(f"input '{name}' has shape ({want}), the array for it {array.shape}")


def _fits(have: Sequence[int], want: Sequence[int | str]) -> bool:
    return len(have) == len(want) and all(not isinstance(w, int) or h == w for h, w in zip(have, want))


def statistics(module: Module, data: Sequence[Inputs], library: Library, threshold: int) -> dict[str, Statistics]:
    """What the layers of a mil module that computes in f32 see, by the name of their weight."""
    jobs: list[tuple[str, list[Op], tuple[int, ...], Statistics]] = []
    turns: list[dict[str, Statistics]] = [{}]
    size = 0
    for weight in weights(module, threshold):
        layer = windows.layer_of(weight)
        shape = weight.op.result.shape
        if layer is None or layer.block is not module.main.block or shape is None:
            continue
        held = weight.op.result.constant
        assert held is not None
        groups, _, length = windows.rows(layer, held).shape
        size += 4 * groups * length * length
        if size > _MOST_BYTES:
            turns.append({})
            size = 4 * groups * length * length
        fresh = Statistics(np.zeros((groups, length, length), np.float32), np.zeros((groups, length), np.float32))
        turns[-1][weight.name] = fresh
        jobs.append((weight.name, list(weight.op.result.users), held.shape, fresh))
    out: dict[str, Statistics] = {}
    for turn in turns:
        rng = np.random.default_rng(SEED)
        mine = [j for j in jobs if j[0] in turn]
        layers = [op for _, users, _, _ in mine for op in users]
        for values in _inputs_of(module, layers, data, library):
            at = iter(values)
            for _, users, shape, into in mine:
                for op in users:
                    into.add(windows.columns(op, next(at), shape, rng))
        out.update(turn)
    return out


def ranges(module: Module, data: Sequence[Inputs], library: Library, method: Method) -> dict[str, Range]:
    """The ranges of what layers take, by the layer's name; depthwise convolutions stay in floats."""
    layers = [op for op in activations.layers(module) if not activations.is_depthwise(op)]
    seen = [Histogram() for _ in layers]
    for values in _inputs_of(module, layers, data, library):
        for histogram, array in zip(seen, values, strict=True):
            histogram.add(array)
    return {op.results[0].name: h.range(method) for op, h in zip(layers, seen, strict=True)}


def means(module: Module, data: Sequence[Inputs], library: Library, threshold: int) -> dict[str, Means]:
    """What the layers of a mil module that computes in f32 see on the mean of each sample, by the name of their
    weight."""
    jobs: dict[str, tuple[Op, tuple[int, ...]]] = {}
    for weight in weights(module, threshold):
        layer, held = windows.layer_of(weight), weight.op.result.constant
        if layer is not None and layer.block is module.main.block and held is not None:
            jobs[weight.name] = layer, held.shape
    if not jobs or not data:
        return {}
    layers = [layer for layer, _ in jobs.values()]
    # Samples are run side by side, each by one thread: that takes less of the processors than to share operators out.
    session, wanted = _session(module, layers, library, optimize=True, threads=1)

    def one(sample: Inputs) -> list[Array]:
        seen = dict(zip(wanted, session.run(sample), strict=True))
        return [windows.mean(layer, seen[layer.operands[0]], shape) for layer, shape in jobs.values()]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(one, data))
    return {name: Means(list(each)) for name, each in zip(jobs, zip(*found, strict=True))}


def _inputs_of(module: Module, layers: Sequence[Op], data: Sequence[Inputs], library: Library) -> Any:
    """For each sample the first operand of each layer."""
    if not layers:
        return
    session, distinct = _session(module, layers, library)
    for sample in data:
        found = dict(zip(distinct, session.run(sample), strict=True))
        yield [found[op.operands[0]] for op in layers]


def _session(
    module: Module, layers: Sequence[Op], library: Library, **options: Any
) -> tuple[MilSession, list[Value | None]]:
    """A session that gives the first operands of layers, and which of them it gives: each once."""
    twins: dict[Any, Any] = {}
    copy = Module(module.name, module.attributes)
    for function in module.functions.values():
        copy.add(clone_function(function, values=twins))
    distinct = list(dict.fromkeys(op.operands[0] for op in layers))
    return MilSession(copy, library, [twins[v] for v in distinct], **options), distinct
