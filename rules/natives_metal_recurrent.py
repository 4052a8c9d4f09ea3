"""Recurrent layers for Metal: the products with the inputs leave the recurrence, one kernel for all steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, shape
from rules.natives_metal import constant_of, part, reshaped

Array = np.ndarray[Any, Any]

#: The only activations that kernels of recurrences compute, ONNX's defaults, for one direction.
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def lstm(b: RuleBuilder, m: Bindings) -> list[Value]:
    """onnx.LSTM: gates in ONNX's order i, o, f, c. Gives Y, Y_h, Y_c."""
    return _directions(b, m, "LSTM")


def gru(b: RuleBuilder, m: Bindings) -> list[Value]:
    """onnx.GRU: gates in ONNX's order z, r, h. Gives Y, Y_h."""
    return _directions(b, m, "GRU")


def rnn(b: RuleBuilder, m: Bindings) -> list[Value]:
    """onnx.RNN with tanh. Gives Y, Y_h."""
    return _directions(b, m, "RNN")


def _directions(b: RuleBuilder, m: Bindings, kind: str) -> list[Value]:
    op = m.ys[0].op
    how, operands = op.attributes, (*op.operands, *(None,) * 8)
    x, w, r, bias, lengths = operands[:5]
    h0 = operands[5]
    c0 = operands[6] if kind == "LSTM" else None
    if kind == "LSTM" and operands[7] is not None:
        raise Decline("peepholes")
    if lengths is not None or how.get("clip") or how.get("layout") or how.get("input_forget"):
        raise Decline("lengths, clipping, layout 1 or a coupled forget gate")
    directions = 2 if how["direction"] == "bidirectional" else 1
    expected = _ACTIVATIONS[kind] * directions
    given = how.get("activations")  # of an RNN's default, two names, the second one is for the other direction
    if given is not None and tuple(given)[: len(expected)] != expected:
        raise Decline("activations that are not the defaults")
    parts = []
    for d in range(directions):
        reverse = how["direction"] == "reverse" or d == 1
        parts.append(_one(b, kind, d, reverse, how, x, w, r, bias, h0, c0))
    out = []
    for i in range(len(parts[0])):
        axis = 1 if i == 0 else 0
        several = [p[i] for p in parts]
        out.append(several[0] if directions == 1 else b.op("metal.concat", several, {"axis": axis}))
    return out[: len(op.results)]


def _one(
    b: RuleBuilder, kind: str, d: int, reverse: bool, how: Any, x: Any, w: Any, r: Any, bias: Any, h0: Any, c0: Any
) -> list[Value]:
    """One direction: ``x · wᵀ + b`` for all steps at once, then the recurrence."""
    gates, hidden = _GATES[kind], shape(r)[-1]
    weights = constant_of(w, "w")[d]
    dtype = weights.dtype
    steps, batch, width = shape(x)
    flat = reshaped(b, x, (steps * batch, width))
    product = b.op("metal.matmul", [flat, b.constant(np.ascontiguousarray(weights.T), "metal")])
    both = np.zeros((2, gates * hidden), dtype) if bias is None else constant_of(bias, "b")[d].reshape(2, -1)
    inside = both[1].copy()  # the hidden gate of a GRU may add its recurrent bias inside the reset
    outer = both[0] + both[1]
    if kind == "GRU" and how["linear_before_reset"]:
        outer[2 * hidden :] = both[0][2 * hidden :]
        inside[: 2 * hidden] = 0
    else:
        inside[:] = 0
    if outer.any():
        product = b.op("metal.add", [product, b.constant(outer, "metal")])
    gated = reshaped(b, product, (steps, batch, gates * hidden))
    recurrent = b.constant(np.ascontiguousarray(constant_of(r, "r")[d].T), "metal")  # [hidden, gates · hidden]

    def initial(v: Any) -> Any:
        if v is None:
            return None
        return reshaped(b, part(b, v, (d, 0, 0), (1, 1, 1), (1, batch, hidden)), (batch, hidden))

    attributes: dict[str, Any] = {"reverse": reverse}
    if kind == "LSTM":
        found = b.op("metal.lstm", [gated, recurrent, initial(h0), initial(c0)], attributes, results=3)
    elif kind == "GRU":
        attributes["linear_before_reset"] = bool(how["linear_before_reset"])
        inner = b.constant(inside, "metal") if inside.any() else None
        found = b.op("metal.gru", [gated, recurrent, inner, initial(h0)], attributes, results=2)
    else:
        found = b.op("metal.rnn", [gated, recurrent, initial(h0)], attributes, results=2)
    y = reshaped(b, found[0], (steps, 1, batch, hidden))
    return [y, *(reshaped(b, v, (1, batch, hidden)) for v in found[1:])]
