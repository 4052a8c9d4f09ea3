"""LSTMs that round: onnxruntime's DynamicQuantizeLSTM, written out as it computes.

Input and hidden state are mapped to the 256 steps of their range, the input once for all steps, the state at every
step; the integers are multiplied by the weights', and the sums scaled to floats (onnxruntime, ComputeGemm of
contrib_ops/cpu/quantization and core/providers/cpu/rnn/rnn_helpers.cc). Sums of up to 2²⁴ are exact in f32: those of
512 products of 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_quant import in_its_range
from rules.natives_rnn import lstm_direction, stepped
from rules.natives_rnn_layer import Layer

Array = np.ndarray[Any, Any]


def lower(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """The layer, one row a step."""
    if m.a.get("input_forget"):
        raise Decline("the input gate and the forget gate are coupled")
    held = {"w": b.constant(_whole(m.w, m.zw), "mil"), "r": b.constant(_whole(m.r, m.zr), "mil")}
    bound = {**vars(m), **held}
    layer = Layer(b, Bindings(list(bound), list(bound.values())), 4, ("Sigmoid", "Tanh", "Tanh"))
    x, size = _rounded(b, layer.x, 3)
    outputs = []
    for d, reverse in enumerate(layer.reverse):
        weight, bias, step, states = lstm_direction(layer, d, _product(_scale(m.sr, d)))
        gates = _times(b, x, size, weight, _scale(m.sw, d))
        if bias is not None:
            gates = b.op("mil.add", [gates, bias])
        outputs.append(stepped(layer, gates, states, step, reverse))
    return layer.results(outputs)


def _whole(weights: Value, zero: Value) -> Array:
    """(directions, inputs, gates) integers less where 0 lies, as (directions, gates, inputs) floats."""
    if weights.constant is None or zero.constant is None:
        raise Decline("weights are computed")
    at = zero.constant.reshape(len(weights.constant), 1, -1).astype(np.float32)
    return np.ascontiguousarray((weights.constant.astype(np.float32) - at).transpose(0, 2, 1))


def _scale(scale: Value, direction: int) -> Array:
    """The size of a step of one direction's weights: one number, or one for each row of gates."""
    if scale.constant is None:
        raise Decline("weights are computed")
    return np.asarray(scale.constant[direction], np.float32).reshape(-1)


def _rounded(b: RuleBuilder, x: Value, rank: int) -> tuple[Value, Value]:
    """The steps that x is from 0, as floats, and the size of one."""
    steps, size, at = in_its_range(b, x, rank)
    return b.op("mil.sub", [steps, at]), size


def _times(b: RuleBuilder, x: Value, size: Value, weight: Array, scale: Array) -> Value:
    both = b.op("mil.mul", [size, scale])
    return b.op("mil.mul", [b.op("mil.linear", [x, weight]), both])  # type: ignore[no-any-return]


def _product(scale: Array) -> Callable[[RuleBuilder, Any, Any], Value]:
    """The product of the hidden state, rounded, and recurrent weights in steps of ``scale``."""

    def product(b: RuleBuilder, hidden: Any, weight: Array) -> Value:
        state = hidden if isinstance(hidden, Value) else b.constant(hidden, "mil")
        return _times(b, *_rounded(b, state, 2), weight, scale)

    return product
