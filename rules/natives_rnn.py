"""Recurrent layers, between ONNX's LSTM, GRU and RNN and what Core ML has.

Core ML's own operators are used where they compute the same. What they compute is documented by coremltools, and shown
by its tests that run on Apple's implementation (converters/mil/mil/ops/tests/iOS14/test_recurrent.py): they give the
sequence of a ``reverse`` layer in the order it was computed, from the last input to the first; ``gru`` applies the
reset gate before the product with the hidden state; ``clip`` limits the cell, not what activations see. The gates lie
in the order i f o c (lstm) and r o z (gru), ONNX's in i o f c and z r h.

Everything else is written out step by step, or as a loop where there are many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import Block, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_control import give, region

Array = np.ndarray[Any, Any]
Made = Any  # a value, or an array that becomes a constant

#: Sequences up to this length are written out step by step, longer ones become loops.
MOST_UNROLLED = 32

LSTM_TO_MIL = (0, 2, 1, 3)  # i o f c → i f o c, and back
PEEPHOLE_TO_MIL = (0, 2, 1)  # i o f → i f o, and back
GRU_TO_MIL = (1, 2, 0)  # z r h → r h z
GRU_FROM_MIL = (2, 0, 1)


# ---- activations


@dataclass(frozen=True)
class Activation:
    """An activation of a recurrent layer, by its name in lower case, with its parameters."""

    name: str
    alpha: float | None = None
    beta: float | None = None

    def apply(self, b: RuleBuilder, x: Value) -> Value:
        return _APPLY[self.name](b, x, self.alpha, self.beta)  # type: ignore[no-any-return]

    @property
    def mil(self) -> str | None:
        """Core ML's name for it, or None if Core ML's layers do not have it."""
        match self.name, self.alpha, self.beta:
            case ("sigmoid" | "tanh" | "relu") as name, _, _:
                return name
            case "hardsigmoid", alpha, beta if abs(alpha - 0.2) < 1e-7 and beta == 0.5:  # type: ignore[operator]
                return "hard_sigmoid"
            case "affine", 1.0, 0.0:
                return "linear"
        return None


_APPLY: dict[str, Callable[[RuleBuilder, Value, Any, Any], Any]] = {
    "sigmoid": lambda b, x, _, __: b.op("mil.sigmoid", [x]),
    "tanh": lambda b, x, _, __: b.op("mil.tanh", [x]),
    "relu": lambda b, x, _, __: b.op("mil.relu", [x]),
    "softsign": lambda b, x, _, __: b.op("mil.softsign", [x]),
    "softplus": lambda b, x, _, __: b.op("mil.softplus", [x]),
    "affine": lambda b, x, alpha, beta: b.op("mil.add", [b.op("mil.mul", [x, alpha]), beta]),
    "leakyrelu": lambda b, x, alpha, _: b.op("mil.leaky_relu", [x, alpha]),
    "elu": lambda b, x, alpha, _: b.op("mil.elu", [x, alpha]),
    "hardsigmoid": lambda b, x, alpha, beta: b.op("mil.sigmoid_hard", [x, alpha, beta]),
    "scaledtanh": lambda b, x, alpha, beta: b.op("mil.mul", [b.op("mil.tanh", [b.op("mil.mul", [x, beta])]), alpha]),
}
#: The parameters that an activation takes, with their defaults (onnxruntime, rnn/rnn_helpers.cc).
_PARAMETERS = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "scaledtanh": (1.0, 1.0),
}


def _activations(a: Any, defaults: Sequence[str], directions: int) -> list[list[Activation]]:
    """The activations of each direction. Parameters go, in order, to those that take any."""
    n = len(defaults)
    names = [f.lower() for f in a.get("activations") or [*defaults] * directions]
    if n == 1:
        names = names[:directions]  # RNN's default names two, whatever the direction
    alphas, betas = list(a.get("activation_alpha") or ()), list(a.get("activation_beta") or ())
    out = []
    for name in names:
        if name not in _APPLY:
            raise Decline(f"the activation is {name}")
        alpha, beta = _PARAMETERS.get(name, (None, None))
        if name in ("affine", "scaledtanh") and not (alphas and betas):
            raise Decline(f"{name} without its parameters, for which ONNX has no default")
        if alpha is not None and alphas:
            alpha = alphas.pop(0)
        if beta is not None and betas:
            beta = betas.pop(0)
        out.append(Activation(name, alpha, beta))
    if len(out) != n * directions:
        raise Decline("the number of activations is not that of the gates")
    return [out[i * n : (i + 1) * n] for i in range(directions)]


# ---- operands


def _const(v: Value | None) -> Array | None:
    return None if v is None else v.constant


def _reordered(array: Array, order: Sequence[int]) -> Array:
    """The equal parts of the first axis in another order."""
    parts = np.split(array, len(order))
    return np.concatenate([parts[i] for i in order])


def _dim(v: Value, axis: int) -> int | None:
    shape = v.type.shape if isinstance(v.type, TensorType) else None
    if shape is None:
        raise Decline("rank not known")
    d = shape[axis]
    return d if isinstance(d, int) else None


class Layer:
    """The operands of an ONNX recurrent layer, as both ways of lowering need them."""

    def __init__(self, b: RuleBuilder, m: Bindings, gates: int, defaults: Sequence[str]) -> None:
        self.b, self.m, self.gates = b, m, gates
        a = m.a
        self.directions = 2 if a["direction"] == "bidirectional" else 1
        self.reverse = [False, True] if self.directions == 2 else [a["direction"] == "reverse"]
        self.layout = a.get("layout", 0)
        self.activations = _activations(a, defaults, self.directions)
        self.clip: float | None = a.get("clip")
        if _const(m.r) is None and _dim(m.r, 2) is None:
            raise Decline("the hidden size is not known")
        self.hidden = int(_dim(m.r, 2) or 0)
        x = m.x
        if self.layout:
            x = b.op("mil.transpose", [x], {"perm": (1, 0, 2)})
        self.x: Value = x
        self.steps, self.batch = _dim(x, 0), _dim(x, 1)
        if m.lens is not None:
            lens = m.lens.constant
            if lens is None or self.steps is None or not (lens == self.steps).all():
                raise Decline("sequences of several lengths")
        self.dtype = x.type.dtype.numpy  # type: ignore[union-attr]

    def part(self, v: Value | None, direction: int) -> Made | None:
        """What one direction has of an operand whose first axis is the direction."""
        if v is None:
            return None
        if v.constant is not None:
            return v.constant[direction]
        if self.directions == 1:
            return self.b.op("mil.squeeze", [v], {"axes": (0,)})
        rank = v.type.rank  # type: ignore[union-attr]
        begin, end = [direction] + [0] * (rank - 1), [direction + 1] + [0] * (rank - 1)
        masks = {"end_mask": [False] + [True] * (rank - 1), "squeeze_mask": [True] + [False] * (rank - 1)}
        return self.b.op("mil.slice_by_index", [v, begin, end], masks)

    def state(self, v: Value | None, direction: int) -> Made:
        """The initial state of one direction, (batch, hidden); zeros if none is given."""
        if v is None:
            return self.zeros([self.batch, self.hidden])
        if self.layout:
            v = self.b.op("mil.transpose", [v], {"perm": (1, 0, 2)})
        return self.part(v, direction)

    def zeros(self, shape: Sequence[int | None]) -> Made:
        """Zeros; a dimension None is that of the input: steps for the first of three, batch before the last."""
        if all(d is not None for d in shape):
            return np.zeros([int(d or 0) for d in shape], self.dtype)
        sizes = self.b.op("mil.shape", [self.x])
        where = (0, 1, None) if len(shape) == 3 else (1, None)
        parts = [
            np.array([d], np.int32) if d is not None
            else self.b.op("mil.slice_by_index", [sizes, [w], [w + 1]])
            for d, w in zip(shape, where)
        ]  # fmt: skip
        return self.b.op("mil.fill", [self.b.op("mil.concat", parts, {"axis": 0})], {"value": np.zeros((), self.dtype)})

    def results(self, outputs: Sequence[tuple[Made, ...]]) -> tuple[Value, ...]:
        """The results of the ONNX operator.

        Args:
            outputs: for each direction the sequence (steps, batch, hidden) in the order of time, and the states
                (batch, hidden) after the last step.
        """
        b = self.b
        out: list[Value] = []
        for k, old in enumerate(self.m.ys):
            if old.use_count == 0:
                out.append(old)  # nobody will see what stands for it
                continue
            parts = [o[k] for o in outputs]
            axis = (2 if self.layout else 1) if k == 0 else (1 if self.layout else 0)
            if k == 0 and self.layout:
                parts = [b.op("mil.transpose", [p], {"perm": (1, 0, 2)}) for p in parts]
            if len(parts) == 1:
                out.append(b.op("mil.expand_dims", parts, {"axes": (axis,)}))
            else:
                out.append(b.op("mil.stack", parts, {"axis": axis}))
        return tuple(out)

    @property
    def sequence_wanted(self) -> bool:
        return bool(self.m.ys[0].use_count)

    @property
    def precise(self) -> bool:
        """Whether Core ML's layers take the element type: in half precision from iOS 17 on."""
        ios = getattr(self.b.target, "ios", None)
        return self.dtype != np.float16 or (ios is not None and ios >= 17)

    def in_time(self, sequence: Value, direction: int) -> Value:
        """The sequence that a layer of Core ML gave, in the order of time."""
        if not self.reverse[direction]:
            return sequence
        reversed_: Value = self.b.op("mil.reverse", [sequence], {"axes": (0,)})
        return reversed_


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
    many = layer.steps is None or layer.steps > MOST_UNROLLED or layer.steps == 0
    outputs: list[tuple[Made, ...]] = []
    for (weight, bias, step, states), reverse in zip(steps, layer.reverse):
        gates = _product(layer.b, layer.x, weight, bias)
        outputs.append((_loop if many else _unroll)(layer, gates, states, step, reverse))
    return layer.results(outputs)


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
    return _written_out(layer, [_lstm_direction(layer, d) for d in range(layer.directions)])


def _mil_lstm(layer: Layer, activations: Sequence[str | None]) -> tuple[Value, ...]:
    b, m = layer.b, layer.m
    hidden = layer.hidden
    operands: list[list[Made]] = []
    for d in range(layer.directions):
        bias = None
        if m.bias is not None:
            both = m.bias.constant[d]
            bias = _reordered(both[: 4 * hidden] + both[4 * hidden :], LSTM_TO_MIL)
        peephole = None if m.p is None else _reordered(m.p.constant[d], PEEPHOLE_TO_MIL)
        weights = [_reordered(w.constant[d], LSTM_TO_MIL) for w in (m.w, m.r)]
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


def _lstm_direction(layer: Layer, d: int) -> tuple[Made, Made, Step, Sequence[Made]]:
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
        i, o, forget, z = _gates(b, b.op("mil.add", [x, _product(b, hidden, recurrent)]), 4)
        i = f.apply(b, _clipped(b, looked(b, i, cell, 0), limit))
        forget = f.apply(b, _clipped(b, looked(b, forget, cell, 2), limit))
        z = g.apply(b, _clipped(b, z, limit))
        after = b.op("mil.add", [b.op("mil.mul", [forget, cell]), b.op("mil.mul", [i, z])])
        o = f.apply(b, _clipped(b, looked(b, o, after, 1), limit))
        return b.op("mil.mul", [o, h_.apply(b, after)]), after

    return layer.part(m.w, d), bias, step, [layer.state(m.h, d), layer.state(m.c, d)]


# ---- GRU


def lower_gru(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """GRU as mil.gru where the reset gate comes first, else written out."""
    layer = Layer(b, m, 3, ("Sigmoid", "Tanh"))
    constant = all(v is None or v.constant is not None for v in (m.w, m.r, m.bias))
    plain = all([f.name for f in each] == ["sigmoid", "tanh"] for each in layer.activations)
    if constant and plain and layer.clip is None and layer.precise and not m.a["linear_before_reset"]:
        return layer.results([_mil_gru(layer, d) for d in range(layer.directions)])
    return _written_out(layer, [_gru_direction(layer, d) for d in range(layer.directions)])


def _mil_gru(layer: Layer, d: int) -> tuple[Value, ...]:
    m, n = layer.m, layer.hidden
    bias = None
    if m.bias is not None:
        both = m.bias.constant[d]
        bias = _reordered(both[: 3 * n] + both[3 * n :], GRU_TO_MIL)
    weights = [_reordered(w.constant[d], GRU_TO_MIL) for w in (m.w, m.r)]
    attributes = {
        "direction": "reverse" if layer.reverse[d] else "forward",
        "output_sequence": layer.sequence_wanted,
        "recurrent_activation": "sigmoid",
        "activation": "tanh",
    }
    y, h = layer.b.op("mil.gru", [layer.x, layer.state(m.h, d), *weights, bias], attributes, results=2)
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


# ---- what Core ML means

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
                out.append(_reordered(v.constant, order)[None])
                continue
            split = b.op("onnx.Split", [v], {"axis": 0, "num_outputs": len(order)}, results=len(order))
            whole = b.op("onnx.Concat", [split[i] for i in order] if len(order) > 1 else [split], {"axis": 0})
            out.append(b.op("onnx.Unsqueeze", [whole, np.array([0])]))
        if all(isinstance(o, np.ndarray) for o in out):
            return np.concatenate(out)
        return b.op("onnx.Concat", out, {"axis": 0})

    def bias(self, *parts: Value | None, order: Sequence[int], like: Value) -> Made | None:
        """Biases of the directions, the recurrent ones zero."""
        if all(p is None for p in parts):
            return None
        rows = []
        for v in parts:
            if v is not None and v.constant is None:
                raise Decline("a bias is compressed")
            size = like.type.shape[0]  # type: ignore[union-attr, index]
            dtype = like.type.dtype.numpy  # type: ignore[union-attr]
            own = np.zeros(size, dtype) if v is None else _reordered(v.constant, order)  # type: ignore[arg-type]
            rows.append(np.concatenate([own, np.zeros_like(own)])[None])
        return np.concatenate(rows)

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
        rows = [np.zeros(3 * n, dtype) if v is None else _reordered(v.constant, PEEPHOLE_TO_MIL) for v in p]
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
    operands = [
        layer.x,
        layer.weight(m.w, order=GRU_FROM_MIL),
        layer.weight(m.r, order=GRU_FROM_MIL),
        layer.bias(m.bias, order=GRU_FROM_MIL, like=m.w),
        None,
        layer.state(m.h),
    ]
    attributes = {"hidden_size": m.r.type.shape[1], **_onnx_activations((m.recurrent, m.activation))}
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
