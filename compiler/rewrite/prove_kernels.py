"""What has to be known of onnxruntime's kernels, so that rules are not blamed for them.

Normalizations by channel are computed as x · c + (β − μ · c) with c = γ / √(σ² + ε) (instance_norm.cc, batch_norm.h in
core/providers/cpu/nn). Where a plane hardly varies, x · c is some hundred times x, and β is rounded as numbers of that
size are.

A recurrent layer's tanh is (1 − e⁻²ˣ)/(1 + e⁻²ˣ) (core/providers/cpu/rnn/rnn_helpers.h): near 0 a difference of numbers
of size 1.

Products of unsigned by signed 8-bit integers are summed in pairs in 16 bits on CPUs without VNNI, and saturate where
weights have more than 7 bits (onnxruntime.ai/docs/performance/model-optimizations/quantization.html, on reduce_range).

A quantizing scale of zero makes NaN or infinity an integer, which C++ leaves undefined.

The largest of a window in which there is a NaN is that of what comes after the NaN, which depends on the order in
which the window is read (maxps gives its second operand; core/mlas/lib/pooling.cpp). ONNX says nothing of it.

Of a window that is larger than the padded input there is none by ONNX, which rounds (size − window) / stride + 1 down;
onnxruntime, which divides integers, has one (core/providers/cpu/nn/pool_attributes.h).

A condition of Compress may be shorter than what it chooses from, says ONNX; of a longer one onnxruntime reads the
beginning.

What is made of a float by a Cast to integers that do not hold it is not defined. Nor is a sum of integers, or of their
squares, that is more than they hold: onnxruntime gives the largest of them.

The elements that TopK chooses come in any order where it is not asked to sort them.

GroupNormalization has no kernel and is expanded as ONNX defines it, with the mean of squares less the square of the
mean for the variance: where a group hardly varies beside its mean, little is left of the difference.

Of a skip that is larger than what it is added to, onnxruntime reads the beginning (skip_layer_norm.cc in
contrib_ops/cpu); by the operator's documentation it has the shape of the input.

A range of floats is made by adding the step to the number before (core/providers/cpu/generator/range.cc), which rounds
as often as there are numbers; ONNX defines start + i · step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compiler.ir import I32, I64, DType, Function, Op, Value, from_numpy
from compiler.rewrite.prove_compare import ABSOLUTE

Array = np.ndarray[Any, Any]


def magnitude(a: Any) -> float:
    """The largest finite magnitude among the numbers of an array; 0 if there is none."""
    if not isinstance(a, np.ndarray) or a.size == 0 or a.dtype.kind in "OUS?":
        return 0.0
    x = np.abs(a.astype(np.float64))
    x = x[np.isfinite(x)]
    return float(x.max(initial=0.0))


def inside(function: Function, known: Mapping[Value, Array]) -> float:
    """The largest finite magnitude inside of the function's recurrent layers, and of its normalizations and products of
    integers, of those whose operands are known."""
    most = 0.0
    for op in function.block.ops:
        if op.name == "onnx.RNN":
            most = max(most, 1.0)
        if op.name == "onnx.CumProd":
            x, axis = (None if v is None else known.get(v, v.constant) for v in op.operands)
            if x is not None and axis is not None and x.dtype.kind in "iu":
                sizes = np.maximum(np.abs(x.astype(np.float64)), 1)
                most = max(most, magnitude(sizes.prod(axis=int(axis.item()), keepdims=True)))
        if op.name in ("onnx.InstanceNormalization", "onnx.BatchNormalization"):
            operands = [None if v is None else known.get(v, v.constant) for v in op.operands]
            if all(a is not None for a in operands) and operands[0].ndim >= 2:  # type: ignore[union-attr]
                most = max(most, magnitude(_scaled(op, operands)))
    return most


_SKIPS = frozenset({"msft.SkipLayerNormalization", "msft.SkipSimplifiedLayerNormalization"})

_SUMS = frozenset({"onnx.ReduceL1", "onnx.ReduceSum", "onnx.ReduceSumSquare"})

_POOLS = frozenset({"onnx.AveragePool", "onnx.LpPool", "onnx.MaxPool"})

#: Operators that multiply 8-bit integers, with how onnxruntime does it.
_INTEGER_PRODUCTS = frozenset({
    "onnx.MatMulInteger", "onnx.QLinearMatMul", "onnx.ConvInteger", "onnx.QLinearConv", "msft.DynamicQuantizeLSTM",
})  # fmt: skip


def astray(function: Function, known: Mapping[Value, Array]) -> str | None:
    """Why what onnxruntime has computed is not what the operators are; None where nothing is known against it."""
    for op in function.block.ops:
        arrays = [None if v is None else known.get(v, v.constant) for v in op.operands]
        if op.name in _INTEGER_PRODUCTS:
            weights = [a for a in arrays if a is not None and a.ndim > 1 and a.dtype == np.int8]
            if any(magnitude(a) > 64 for a in weights):
                return "pairs of 8-bit products may saturate"
        elif op.name == "onnx.QuantizeLinear" and arrays[1] is not None and not (arrays[1] > 0).all():
            return "a scale that is not positive"
        elif op.name == "onnx.Attention" and op.attributes["qk_matmul_output_mode"] in (1, 2) and _hides(op):
            return "scores of what is hidden: −∞ by definition, the lowest number here"
        elif op.name == "onnx.Compress" and _is_longer(op, arrays):
            return "a condition longer than what it chooses from"
        elif op.name in _SKIPS and _is_larger(arrays[1], arrays[0]):
            return "a skip larger than what it is added to"
        elif op.name == "onnx.Range" and _drifts(op, known):
            return "a range of many steps, each added to the one before"
        elif op.name in _POOLS and arrays[0] is not None and _reaches_over(op, arrays[0]):
            return "a window larger than what it moves over"
        elif op.name == "onnx.MaxPool" and arrays[0] is not None and _has_nan(arrays[0]):
            return "the largest of what is no number"
        elif op.name == "onnx.Cast" and arrays[0] is not None and _has_no_integer(arrays[0], op.attributes["to"]):
            return "a number that the integer type does not have"
        elif op.name in _SUMS and arrays[0] is not None and _overflows(op, arrays[0], *arrays[1:]):
            return "a sum that the integer type does not hold"
        elif op.name == "onnx.TopK" and not op.attributes["sorted"] and _several(op.results[0], op.attributes["axis"]):
            return "the best elements in any order"
    return None


def cancels(function: Function, known: Mapping[Value, Array], most: float) -> bool:
    """Whether the variance of a group that is normalized is off by more than the share ``most`` for how it is computed;
    of what is known of the function's operands."""
    for op in function.block.ops:
        x = known.get(op.operands[0], op.operands[0].constant) if op.operands and op.operands[0] is not None else None
        if op.name != "onnx.GroupNormalization" or x is None or not x.size:
            continue
        groups = x.astype(np.float64).reshape(x.shape[0] * op.attributes["num_groups"], -1)
        lost = 4 * float(np.finfo(x.dtype).eps) * (groups**2).mean(axis=1)
        if bool((lost > most * (groups.var(axis=1) + op.attributes["epsilon"])).any()):
            return True
    return False


def _reaches_over(op: Op, x: Array) -> bool:
    """Whether a window is larger than the padded input."""
    kernel = op.attributes["kernel_shape"]
    n = len(kernel)
    pads, dilations = op.attributes.get("pads") or (0,) * 2 * n, op.attributes.get("dilations") or (1,) * n
    if op.attributes["auto_pad"] not in ("NOTSET", "VALID"):
        return False
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    return any(s + before + behind < r for s, before, behind, r in zip(x.shape[2:], pads[:n], pads[n:], reach))


def _has_no_integer(x: Array, to: DType) -> bool:
    """Whether floats become integers of 32 or 64 bits that do not hold them, of which ONNX says nothing. (Of narrower
    types the last bits are taken by all that computes them.)"""
    if x.dtype.kind != "f" or to not in (I32, I64):
        return False
    with np.errstate(invalid="ignore"):
        return bool((~(np.abs(x.astype(np.float64)) < 2.0 ** (to.bits - 1))).any())


def _several(value: Value, axis: int) -> bool:
    """Whether a value has more than one element along an axis."""
    return value.shape is None or value.shape[axis] != 1


def _overflows(op: Op, x: Array, given: Array | None = None) -> bool:
    """Whether the sum of integers, or of their squares or sizes, along the axes is none of their type."""
    if x.dtype.kind not in "iu":
        return False
    terms = x.astype(np.float64)
    terms = terms**2 if op.name == "onnx.ReduceSumSquare" else np.abs(terms) if op.name == "onnx.ReduceL1" else terms
    axes: tuple[int, ...] | None = () if op.attributes.get("noop_with_empty_axes") else None
    if given is not None and given.size and x.ndim:
        axes = tuple({int(a) % x.ndim for a in given.reshape(-1)})
    sums, held = terms.sum(axis=axes), np.iinfo(x.dtype)
    return bool(((sums > held.max) | (sums < held.min)).any())


def _is_larger(skip: Array | None, x: Array | None) -> bool:
    """Whether a skip would have to be cut to the input's shape."""
    if skip is None or x is None:
        return False
    return skip.ndim > x.ndim or any(d not in (1, n) for d, n in zip(reversed(skip.shape), reversed(x.shape)))


def _is_longer(op: Op, arrays: list[Array | None]) -> bool:
    """Whether Compress has more conditions than there are to choose from."""
    x, condition = arrays
    if x is None or condition is None:
        return False
    axis = op.attributes.get("axis")
    return bool(condition.size > (x.size if axis is None else x.shape[axis]))


def _drifts(op: Op, known: Mapping[Value, Array]) -> bool:
    """Whether the last number of a range is off by more than a proof allows."""
    numbers = known.get(op.results[0])
    if numbers is None or numbers.dtype.kind != "f" or from_numpy(numbers.dtype).name not in ABSOLUTE:
        return False
    return bool(numbers.size * np.finfo(numbers.dtype).eps / 2 > ABSOLUTE[from_numpy(numbers.dtype).name])


def _hides(op: Op) -> bool:
    """Whether an attention may hide keys from queries, and gives out scores."""
    asked = len(op.results) > 3 and op.results[3].use_count
    return bool(asked and (op.attributes["is_causal"] or len(op.operands) > 3))


def _has_nan(a: Array) -> bool:
    return a.dtype.kind == "f" and bool(np.isnan(a).any())


def _scaled(op: Op, operands: list[Any]) -> Array:
    """x · c."""
    x, gamma = (a.astype(np.float64) for a in operands[:2])
    along = (1, -1, *(1,) * (x.ndim - 2))
    if op.name == "onnx.InstanceNormalization":
        variance = x.var(axis=tuple(range(2, x.ndim)), keepdims=True)
    elif op.attributes["training_mode"]:
        variance = x.var(axis=(0, *range(2, x.ndim)), keepdims=True)
    else:
        variance = operands[4].astype(np.float64).reshape(along)
    with np.errstate(all="ignore"):
        return np.asarray(x * gamma.reshape(along) / np.sqrt(variance + op.attributes["epsilon"]))
