"""Recurrent layers, between ONNX's LSTM, GRU and RNN and what Core ML has.

Core ML's own operators are used where they compute the same. What they compute is documented by coremltools, and shown
by its tests that run on Apple's implementation (converters/mil/mil/ops/tests/iOS14/test_recurrent.py): they give the
sequence of a ``reverse`` layer in the order it was computed, from the last input to the first; ``gru`` applies the
reset gate before the product with the hidden state, or from iOS 18 on after it with ``reset_after``, where ``bias``
joins the product inside the gate and ``input_bias`` the input (tests/iOS18/test_recurrent.py, test_pytorch_parity);
``clip`` limits the cell, not what activations see. The gates lie in the order i f o c (lstm) and r o z (gru), ONNX's in
i o f c and z r h.

Everything else is written out step by step, or as a loop where there are many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.ir import Block, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_control import give, region
from rules.natives_rnn_layer import GRU_TO_MIL, LSTM_TO_MIL, PEEPHOLE_TO_MIL, Layer, reordered

Array = np.ndarray[Any, Any]
Made = Any  # a value, or an array that becomes a constant

#: Sequences up to this length are written out step by step, longer ones become loops. The Neural Engine takes no loop,
#: so that more is written out for it; elsewhere a loop of two dozen operators is smaller than what it saves.
MOST_UNROLLED = 32
MOST_UNROLLED_ELSEWHERE = 2


def most_unrolled(b: RuleBuilder) -> int:
    """How many steps of a layer are written out."""
    return MOST_UNROLLED if getattr(b.target, "unit", None) == "ane" else MOST_UNROLLED_ELSEWHERE


# ---- step by step

#: One step: what the input adds to the gates (batch, gates × hidden), and the states → the new states, the first of
#: which is the output.
Step = Callable[[RuleBuilder, Value, Sequence[Made]], tuple[Value, ...]]


def _product(b: RuleBuilder, x: Made, weight: Made, bias: Made | None = None) -> Value:
    """``x wᵀ + bias``."""
    if isinstance(weight, np.ndarray) and (bias is None or isinstance(bias, np.ndarray)):
        result: Value = b.op("mil.linear", [x, weight, bias])
        return result
    result = b.op("mil.matmul", [x, weight], {"transpose_x": False, "transpose_y": True})
    return result if bias is None else b.op("mil.add", [result, bias])  # type: ignore[no-any-return]


def _gates(b: RuleBuilder, x: Value, count: int) -> tuple[Value, ...]:
    made: tuple[Value, ...] = b.op("mil.split", [x], {"num_splits": count, "axis": 1}, results=count)
    return made


def _rows(b: RuleBuilder, w: Made, first: int, last: int, hidden: int) -> Made:
    """Some gates' rows of a weight or bias."""
    if w is None or isinstance(w, np.ndarray):
        return None if w is None else w[first * hidden : last * hidden]
    rank = w.type.rank
    begin, end = [first * hidden] + [0] * (rank - 1), [last * hidden] + [0] * (rank - 1)
    return b.op("mil.slice_by_index", [w, begin, end], {"end_mask": [False] + [True] * (rank - 1)})


def _sum(b: RuleBuilder, x: Made, y: Made) -> Made:
    if x is None or y is None:
        return y if x is None else x
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return x + y
    return b.op("mil.add", [x, y])


def _clipped(b: RuleBuilder, x: Value, limit: float | None) -> Value:
    if limit is None:
        return x
    result: Value = b.op("mil.clip", [x, -limit, limit])
    return result


def _unroll(layer: Layer, gates: Value, states: Sequence[Made], step: Step, reverse: bool) -> tuple[Value, ...]:
    """All steps of one direction, written out."""
    b = layer.b
    assert layer.steps is not None
    sequence: list[Value] = []
    for t in reversed(range(layer.steps)) if reverse else range(layer.steps):
        masks = {"end_mask": [False, True, True], "squeeze_mask": [True, False, False]}
        at = b.op("mil.slice_by_index", [gates, [t, 0, 0], [t + 1, 0, 0]], masks)
        states = step(b, at, states)
        sequence.append(states[0])
    if reverse:
        sequence.reverse()
    whole = b.op("mil.stack", sequence, {"axis": 0}) if layer.sequence_wanted else sequence[-1]
    return (whole, *states)


def _loop(layer: Layer, gates: Value, states: Sequence[Made], step: Step, reverse: bool) -> tuple[Value, ...]:
    """All steps of one direction as a loop over (step, sequence so far, states)."""
    b = layer.b
    initial = [v if isinstance(v, Value) else b.constant(v, "mil") for v in states]
    sequence = layer.zeros([layer.steps, layer.batch, layer.hidden])
    if not isinstance(sequence, Value):
        sequence = b.constant(sequence, "mil")
    first = b.constant(np.zeros(1, np.int32), "mil")
    if layer.steps is not None:
        count: Made = b.constant(np.array([layer.steps], np.int32), "mil")
    else:
        count = b.op("mil.slice_by_index", [b.op("mil.shape", [layer.x]), [0], [1]])
    variables = [first, sequence, *initial]
    types = [v.type for v in variables]
    names = ["step", "sequence", *(f"state{i}" for i in range(len(initial)))]

    condition = Block(types, names)
    inside = region(condition, b)
    give(condition, [inside.op("mil.less", [condition.arguments[0], count])])

    body = Block(types, names)
    inside = region(body, b)
    at, done, *before = body.arguments
    where: Value = at
    if reverse:
        where = inside.op("mil.sub", [inside.op("mil.sub", [count, at]), np.array([1], np.int32)])
    here = inside.op("mil.squeeze", [inside.op("mil.gather", [gates, where], {"axis": 0})], {"axes": (0,)})
    after = step(inside, here, before)
    row = inside.op("mil.expand_dims", [after[0]], {"axes": (0,)})
    extended = inside.op("mil.scatter", [done, where, row], {"axis": 0, "mode": "update"})
    following = inside.op("mil.add", [at, np.array([1], np.int32)])
    give(body, [following, extended, *after])
    made = b.op("mil.while_loop", variables, {}, results=len(variables), regions=[condition, body])
    return tuple(made[1:])


def _written_out(layer: Layer, steps: Sequence[tuple[Made, Made, Step, Sequence[Made]]]) -> tuple[Value, ...]:
    """The layer by its steps: for each direction input weights and their bias, the step, and the initial states."""
    outputs: list[tuple[Made, ...]] = []
    for (weight, bias, step, states), reverse in zip(steps, layer.reverse):
        gates = _product(layer.b, layer.x, weight, bias)
        outputs.append(stepped(layer, gates, states, step, reverse))
    return layer.results(outputs)


def stepped(layer: Layer, gates: Value, states: Sequence[Made], step: Step, reverse: bool) -> tuple[Value, ...]:
    """All steps of one direction: the sequence, if it is wanted, and the last states."""
    many = layer.steps is None or layer.steps > most_unrolled(layer.b) or layer.steps == 0
    return (_loop if many else _unroll)(layer, gates, states, step, reverse)


# ---- LSTM


def lower_lstm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """LSTM as mil.lstm, else written out."""
    if m.a.get("input_forget"):
        raise Decline("the input gate and the forget gate are coupled")
    layer = Layer(b, m, 4, ("Sigmoid", "Tanh", "Tanh"))
    names = [[f.mil for f in each] for each in layer.activations]
    constant = all(v is None or v.constant is not None for v in (m.w, m.r, m.bias, m.p))
    known = None not in names[0] and all(n == names[0] for n in names)
    if constant and known and layer.clip is None and layer.precise:
        return _mil_lstm(layer, names[0])
    return _written_out(layer, [lstm_direction(layer, d) for d in range(layer.directions)])


def _mil_lstm(layer: Layer, activations: Sequence[str | None]) -> tuple[Value, ...]:
    b, m = layer.b, layer.m
    hidden = layer.hidden
    operands: list[list[Made]] = []
    for d in range(layer.directions):
        bias = None
        if m.bias is not None:
            both = m.bias.constant[d]
            bias = reordered(both[: 4 * hidden] + both[4 * hidden :], LSTM_TO_MIL)
        peephole = None if m.p is None else reordered(m.p.constant[d], PEEPHOLE_TO_MIL)
        weights = [reordered(w.constant[d], LSTM_TO_MIL) for w in (m.w, m.r)]
        operands.append([*weights, bias, peephole])
    states = []
    for v in (m.h, m.c):
        parts = [layer.state(v, d) for d in range(layer.directions)]
        if len(parts) == 1:
            states.append(parts[0])
        elif all(isinstance(p, np.ndarray) for p in parts):
            states.append(np.concatenate(parts, axis=1))
        else:
            states.append(b.op("mil.concat", parts, {"axis": 1}))
    attributes = {
        "direction": layer.m.a["direction"],
        "output_sequence": layer.sequence_wanted,
        "recurrent_activation": activations[0],
        "cell_activation": activations[1],
        "activation": activations[2],
    }
    rest = [o for each in operands for o in each]
    y, h, c = b.op("mil.lstm", [layer.x, *states, *rest], attributes, results=3)
    if layer.directions == 1:
        return layer.results([(layer.in_time(y, 0), h, c)])
    halves = [b.op("mil.split", [v], {"num_splits": 2, "axis": a}, results=2) for v, a in ((y, 2), (h, 1), (c, 1))]
    return layer.results([tuple(v[d] for v in halves) for d in range(2)])


def lstm_direction(
    layer: Layer, d: int, product: Callable[[RuleBuilder, Made, Made], Value] = _product
) -> tuple[Made, Made, Step, Sequence[Made]]:
    """Input weights and their bias, the step, and the initial states; ``product`` is that of the state and weights."""
    b, m, n = layer.b, layer.m, layer.hidden
    recurrent = layer.part(m.r, d)
    both = layer.part(m.bias, d)
    bias = _sum(b, _rows(b, both, 0, 4, n), _rows(b, both, 4, 8, n))
    peephole = layer.part(m.p, d)
    f, g, h_ = layer.activations[d]
    limit = layer.clip

    def looked(b: RuleBuilder, x: Value, cell: Made, gate: int) -> Value:
        if peephole is None:
            return x
        return b.op("mil.add", [x, b.op("mil.mul", [cell, _rows(b, peephole, gate, gate + 1, n)])])  # type: ignore[no-any-return]

    def step(b: RuleBuilder, x: Value, states: Sequence[Made]) -> tuple[Value, ...]:
        hidden, cell = states
        i, o, forget, z = _gates(b, b.op("mil.add", [x, product(b, hidden, recurrent)]), 4)
        i = f.apply(b, _clipped(b, looked(b, i, cell, 0), limit))
        forget = f.apply(b, _clipped(b, looked(b, forget, cell, 2), limit))
        z = g.apply(b, _clipped(b, z, limit))
        after = b.op("mil.add", [b.op("mil.mul", [forget, cell]), b.op("mil.mul", [i, z])])
        o = f.apply(b, _clipped(b, looked(b, o, after, 1), limit))
        return b.op("mil.mul", [o, h_.apply(b, after)]), after

    return layer.part(m.w, d), bias, step, [layer.state(m.h, d), layer.state(m.c, d)]


# ---- GRU


def lower_gru(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """GRU as mil.gru where Core ML's places the reset gate where this one does, else written out."""
    layer = Layer(b, m, 3, ("Sigmoid", "Tanh"))
    constant = all(v is None or v.constant is not None for v in (m.w, m.r, m.bias))
    plain = all([f.name for f in each] == ["sigmoid", "tanh"] for each in layer.activations)
    placed = not m.a["linear_before_reset"] or ((getattr(b.target, "ios", None) or 0) >= 18 and not _on_ane(layer))
    if constant and plain and layer.clip is None and layer.precise and placed:
        return layer.results([_mil_gru(layer, d) for d in range(layer.directions)])
    return _written_out(layer, [_gru_direction(layer, d) for d in range(layer.directions)])


def _on_ane(layer: Layer) -> bool:
    """Whether the steps, written out, may run on the Neural Engine, which takes no recurrent layer of Core ML."""
    unit = getattr(layer.b.target, "unit", None)
    return unit == "ane" and layer.steps is not None and 0 < layer.steps <= MOST_UNROLLED


def _mil_gru(layer: Layer, d: int) -> tuple[Value, ...]:
    m = layer.m
    after = bool(m.a["linear_before_reset"])
    biases: list[Made] = [None]
    if m.bias is not None:
        of_input, of_hidden = np.split(m.bias.constant[d], 2)
        parts = (of_hidden, of_input) if after else (of_input + of_hidden,)
        biases = [reordered(p, GRU_TO_MIL) for p in parts]
    weights = [reordered(w.constant[d], GRU_TO_MIL) for w in (m.w, m.r)]
    attributes: dict[str, Any] = {
        "direction": "reverse" if layer.reverse[d] else "forward",
        "output_sequence": layer.sequence_wanted,
        "recurrent_activation": "sigmoid",
        "activation": "tanh",
    }
    if after:
        attributes["reset_after"] = True
    y, h = layer.b.op("mil.gru", [layer.x, layer.state(m.h, d), *weights, *biases], attributes, results=2)
    return layer.in_time(y, d), h


def _gru_direction(layer: Layer, d: int) -> tuple[Made, Made, Step, Sequence[Made]]:
    b, m, n = layer.b, layer.m, layer.hidden
    recurrent, both = layer.part(m.r, d), layer.part(m.bias, d)
    f, g = layer.activations[d]
    limit = layer.clip
    first = bool(m.a["linear_before_reset"])
    of_input, of_hidden = _rows(b, both, 0, 3, n), _rows(b, both, 3, 6, n)
    apart = None
    if first:
        # The hidden state's bias lies inside the reset gate, so it cannot join that of the input.
        apart, bias = of_hidden, of_input
        whole: tuple[Made, ...] = (recurrent,)
    else:
        bias = _sum(b, of_input, of_hidden)
        whole = (_rows(b, recurrent, 0, 2, n), _rows(b, recurrent, 2, 3, n))

    def step(b: RuleBuilder, x: Value, states: Sequence[Made]) -> tuple[Value, ...]:
        hidden = states[0]
        xz, xr, xh = _gates(b, x, 3)
        if first:
            hz, hr, hh = _gates(b, _product(b, hidden, whole[0], apart), 3)
        else:
            hz, hr = _gates(b, _product(b, hidden, whole[0]), 2)
        z = f.apply(b, _clipped(b, b.op("mil.add", [xz, hz]), limit))
        r = f.apply(b, _clipped(b, b.op("mil.add", [xr, hr]), limit))
        kept = b.op("mil.mul", [r, hh]) if first else _product(b, b.op("mil.mul", [r, hidden]), whole[1])
        new = g.apply(b, _clipped(b, b.op("mil.add", [xh, kept]), limit))
        one = b.op("mil.sub", [np.asarray(1, layer.dtype), z])
        return (b.op("mil.add", [b.op("mil.mul", [one, new]), b.op("mil.mul", [z, hidden])]),)

    return layer.part(m.w, d), bias, step, [layer.state(m.h, d)]


# ---- RNN


def lower_rnn(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """RNN as mil.rnn, else written out."""
    layer = Layer(b, m, 1, ("Tanh",))
    constant = all(v is None or v.constant is not None for v in (m.w, m.r, m.bias))
    plain = all(each[0].name in ("tanh", "relu", "sigmoid") for each in layer.activations)
    if constant and plain and layer.clip is None and layer.precise:
        return layer.results([_mil_rnn(layer, d) for d in range(layer.directions)])
    return _written_out(layer, [_rnn_direction(layer, d) for d in range(layer.directions)])


def _mil_rnn(layer: Layer, d: int) -> tuple[Value, ...]:
    m, n = layer.m, layer.hidden
    both = None if m.bias is None else m.bias.constant[d]
    bias = None if both is None else both[:n] + both[n:]
    attributes = {
        "direction": "reverse" if layer.reverse[d] else "forward",
        "output_sequence": layer.sequence_wanted,
        "activation": layer.activations[d][0].name,
    }
    operands = [layer.x, layer.state(m.h, d), m.w.constant[d], m.r.constant[d], bias]
    y, h = layer.b.op("mil.rnn", operands, attributes, results=2)
    return layer.in_time(y, d), h


def _rnn_direction(layer: Layer, d: int) -> tuple[Made, Made, Step, Sequence[Made]]:
    b, m, n = layer.b, layer.m, layer.hidden
    recurrent, both = layer.part(m.r, d), layer.part(m.bias, d)
    bias = _sum(b, _rows(b, both, 0, 1, n), _rows(b, both, 1, 2, n))
    f = layer.activations[d][0]

    def step(b: RuleBuilder, x: Value, states: Sequence[Made]) -> tuple[Value, ...]:
        whole = b.op("mil.add", [x, _product(b, states[0], recurrent)])
        return (f.apply(b, _clipped(b, whole, layer.clip)),)

    return layer.part(m.w, d), bias, step, [layer.state(m.h, d)]
