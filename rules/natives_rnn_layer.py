"""The operands of ONNX's recurrent layers, as all ways of lowering them need them: activations, weights, states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

Array = np.ndarray[Any, Any]
Made = Any  # a value, or an array that becomes a constant


LSTM_TO_MIL = (0, 2, 1, 3)  # i o f c → i f o c, and back
PEEPHOLE_TO_MIL = (0, 2, 1)  # i o f → i f o, and back
GRU_TO_MIL = (1, 2, 0)  # z r h → r h z
GRU_FROM_MIL = (2, 0, 1)


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


def _const(v: Value | None) -> Array | None:
    return None if v is None else v.constant


def reordered(array: Array, order: Sequence[int]) -> Array:
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
        if self.clip is not None and self.clip <= 0:
            raise Decline("clipped to less than nothing")
        if _const(m.r) is None and _dim(m.r, 2) is None:
            raise Decline("the hidden size is not known")
        self.hidden = int(_dim(m.r, 2) or 0)
        x = m.x
        if self.layout:
            x = b.op("mil.transpose", [x], {"perm": (1, 0, 2)})
        self.x: Value = x
        self.steps, self.batch = _dim(x, 0), _dim(x, 1)
        if 0 in (self.steps, self.batch, _dim(x, 2)):
            raise Decline("there is no sequence")
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
