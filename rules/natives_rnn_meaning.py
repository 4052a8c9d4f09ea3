"""What Core ML's recurrent layers mean, said by ONNX's LSTM, GRU and RNN; natives_rnn.py tells how the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_rnn_layer import GRU_FROM_MIL, LSTM_TO_MIL, PEEPHOLE_TO_MIL, reordered

Array = np.ndarray[Any, Any]
Made = Any  # a value, or an array that becomes a constant


_FROM_MIL = {
    "sigmoid": ("Sigmoid", None, None),
    "tanh": ("Tanh", None, None),
    "scaled_tanh": ("Tanh", None, None),  # both factors are 1
    "relu": ("Relu", None, None),
    "hard_sigmoid": ("HardSigmoid", 0.2, 0.5),
    "sigmoid_hard": ("HardSigmoid", 0.2, 0.5),
    "linear": ("Affine", 1.0, 0.0),
}


def _onnx_activations(names: Sequence[str]) -> dict[str, Any]:
    found = [_FROM_MIL.get(n.lower()) for n in names]
    if None in found:
        raise Decline(f"an activation of {', '.join(names)}")
    kinds = [f for f in found if f is not None]
    alphas, betas = [a for _, a, _ in kinds if a is not None], [b for _, _, b in kinds if b is not None]
    return {
        "activations": [n for n, _, _ in kinds],
        "activation_alpha": alphas or None,
        "activation_beta": betas or None,
    }


class Meaning:
    """A recurrent layer of Core ML, to be said by the ONNX operator."""

    def __init__(self, b: RuleBuilder, m: Bindings) -> None:
        self.b, self.m = b, m
        self.both = m.direction == "bidirectional"
        self.x: Value = m.x
        if m.direction == "reverse":
            last = np.array([np.iinfo(np.int64).min])
            self.x = b.op("onnx.Slice", [m.x, np.array([-1]), last, np.array([0]), np.array([-1])])

    def weight(self, *parts: Value | None, order: Sequence[int]) -> Made:
        """Weights of the directions, gates in ONNX's order, joined along a new first axis."""
        b = self.b
        out: list[Made] = []
        for v in parts:
            if v is None:
                raise Decline("a weight of one direction is missing")
            if v.constant is not None:
                out.append(reordered(v.constant, order)[None])
                continue
            split = b.op("onnx.Split", [v], {"axis": 0, "num_outputs": len(order)}, results=len(order))
            whole = b.op("onnx.Concat", [split[i] for i in order] if len(order) > 1 else [split], {"axis": 0})
            out.append(b.op("onnx.Unsqueeze", [whole, np.array([0])]))
        if all(isinstance(o, np.ndarray) for o in out):
            return np.concatenate(out)
        return b.op("onnx.Concat", out, {"axis": 0})

    def bias(
        self, *parts: Value | None, order: Sequence[int], like: Value, recurrent: Value | None = None
    ) -> Made | None:
        """Biases of the directions; the recurrent ones are zero but where the only direction has one."""
        if all(p is None for p in (*parts, recurrent)):
            return None
        size = like.type.shape[0]  # type: ignore[union-attr, index]
        dtype = like.type.dtype.numpy  # type: ignore[union-attr]

        def own(v: Value | None) -> Array:
            if v is not None and v.constant is None:
                raise Decline("a bias is compressed")
            return np.zeros(size, dtype) if v is None else reordered(v.constant, order)  # type: ignore[arg-type]

        return np.concatenate([np.concatenate([own(v), own(recurrent)])[None] for v in parts])

    def state(self, v: Value) -> Value:
        """(batch, directions × hidden) as (directions, batch, hidden)."""
        b = self.b
        if not self.both:
            lifted: Value = b.op("onnx.Unsqueeze", [v, np.array([0])])
            return lifted
        split = b.op("onnx.Reshape", [v, np.array([0, 2, -1])])
        turned: Value = b.op("onnx.Transpose", [split], {"perm": (1, 0, 2)})
        return turned

    def results(self, y: Value, states: Sequence[Value]) -> tuple[Value, ...]:
        """Core ML's results from ONNX's."""
        b = self.b
        out = [self.joined(s) for s in states]
        if not self.m.output_sequence:
            sequence = b.op("onnx.Unsqueeze", [out[0], np.array([0])])
        else:
            turned = b.op("onnx.Transpose", [y], {"perm": (0, 2, 1, 3)})
            sequence = b.op("onnx.Reshape", [turned, np.array([0, 0, -1])])
        return (sequence, *out)

    def joined(self, state: Value) -> Value:
        turned = self.b.op("onnx.Transpose", [state], {"perm": (1, 0, 2)})
        flat: Value = self.b.op("onnx.Reshape", [turned, np.array([0, -1])])
        return flat


def mean_lstm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    if m.clip is not None:
        raise Decline("the cell is clipped, which ONNX's LSTM does not do")
    layer = Meaning(b, m)
    seconds = (m.w2, m.r2, m.b2, m.p2) if layer.both else ()
    w, r, bias, p = ([v, *seconds[i : i + 1]] for i, v in enumerate((m.w, m.r, m.bias, m.p)))
    peephole = None
    if any(v is not None for v in p):
        n = m.r.type.shape[1]
        dtype = m.r.type.dtype.numpy
        rows = [np.zeros(3 * n, dtype) if v is None else reordered(v.constant, PEEPHOLE_TO_MIL) for v in p]
        peephole = np.stack(rows)
    names = (m.recurrent, m.cell, m.activation) * (2 if layer.both else 1)
    operands = [
        layer.x,
        layer.weight(*w, order=LSTM_TO_MIL),
        layer.weight(*r, order=LSTM_TO_MIL),
        layer.bias(*bias, order=LSTM_TO_MIL, like=m.w),
        None,
        layer.state(m.h),
        layer.state(m.c),
        peephole,
    ]
    attributes = {
        "hidden_size": m.r.type.shape[1],
        "direction": "bidirectional" if layer.both else "forward",
        **_onnx_activations(names),
    }
    y, h, c = b.op("onnx.LSTM", operands, attributes, results=3)
    return layer.results(y, [h, c])


def mean_gru(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    layer = Meaning(b, m)
    after = bool(m.reset_after)
    if m.input_bias is not None and not after:
        raise Decline("where input_bias goes in a layer that resets before the product is nowhere said")
    bias, recurrent = (m.input_bias, m.bias) if after else (m.bias, None)
    operands = [
        layer.x,
        layer.weight(m.w, order=GRU_FROM_MIL),
        layer.weight(m.r, order=GRU_FROM_MIL),
        layer.bias(bias, order=GRU_FROM_MIL, like=m.w, recurrent=recurrent),
        None,
        layer.state(m.h),
    ]
    attributes = {
        "hidden_size": m.r.type.shape[1],
        "linear_before_reset": int(after),
        **_onnx_activations((m.recurrent, m.activation)),
    }
    y, h = b.op("onnx.GRU", operands, attributes, results=2)
    return layer.results(y, [h])


def mean_rnn(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    layer = Meaning(b, m)
    operands = [
        layer.x,
        layer.weight(m.w, order=(0,)),
        layer.weight(m.r, order=(0,)),
        layer.bias(m.bias, order=(0,), like=m.w),
        None,
        layer.state(m.h),
    ]
    attributes = {"hidden_size": m.r.type.shape[1], **_onnx_activations((m.activation,))}
    y, h = b.op("onnx.RNN", operands, attributes, results=2)
    return layer.results(y, [h])
