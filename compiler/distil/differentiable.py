"""A function of onnx.* operators as a differentiable function of JAX: weights in, outputs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from compiler.distil import norms  # noqa: F401 (it registers its operators)
from compiler.distil.operators import OPERATORS
from compiler.errors import UnsupportedError
from compiler.ir import Function, Op, TensorType, Value

Array = np.ndarray[Any, Any]
Parameters = dict[str, Any]

#: Operators whose second operand is a weight that integers can stand for, with the axis of its output channels.
_WEIGHTED = {"onnx.Conv": 0, "onnx.Gemm": -1, "onnx.MatMul": -1}


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Rounds weights to ``bits`` with a scale for each output channel, on the way forward alone.

    On the way back the rounding is the identity (the straight-through estimator of Bengio et al. 2013).
    """

    bits: int = 8

    def __call__(self, weight: Any, axis: int) -> Any:
        across = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
        most = 2 ** (self.bits - 1) - 1
        scale = jnp.maximum(jnp.abs(weight).max(across, keepdims=True), 1e-12) / most
        rounded = jnp.clip(jnp.round(weight / scale), -most, most) * scale
        return weight + lax.stop_gradient(rounded - weight)


class Differentiable:
    """A function whose float constants of more than one element are parameters.

    Attributes:
        parameters: by a name of their own, as the function has them.
    """

    def __init__(self, function: Function) -> None:
        """Takes a function as it is; it must not change as long as this is used.

        Raises:
            UnsupportedError: it holds an operator that is not differentiated here, or one with regions.
        """
        self._function = function
        self.parameters: dict[str, Array] = {}
        self._constants: dict[Value, Any] = {}
        self._holders: dict[str, Op] = {}
        self._ops: list[Op] = []
        for op in function.block.ops:
            if op.defn.constant is not None:
                held = op.attributes[op.defn.constant]
                if held.dtype == np.float32 and held.size > 1 and not _is_static(op.result):
                    name = f"{len(self.parameters)}:{op.result.name}"
                    self.parameters[name] = held
                    self._holders[name] = op
                    self._constants[op.result] = name
                else:
                    self._constants[op.result] = held
            elif not op.defn.terminator:
                if op.name not in OPERATORS or op.regions:
                    at = f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""
                    raise UnsupportedError(
                        f"{op.name}{at} is not differentiated here, so the model cannot be trained",
                        "a model without it",
                    )
                self._ops.append(op)

    def __call__(
        self,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, Any],
        probes: Sequence[Value] = (),
        quantizer: Quantizer | None = None,
    ) -> list[Any]:
        """The outputs in order, then the values of ``probes``. Pure: JAX may trace and differentiate it.

        Args:
            quantizer: what weights of convolutions and products pass through.
        """
        values: dict[Value, Any] = {a: inputs[a.name] for a in self._function.inputs}
        for value, held in self._constants.items():
            values[value] = parameters[held] if isinstance(held, str) else held
        for op in self._ops:
            operands = [None if v is None else values[v] for v in op.operands]
            if quantizer is not None and op.name in _WEIGHTED and isinstance(self._constants.get(op.operands[1]), str):  # type: ignore[arg-type]
                axis = 0 if op.name == "onnx.Gemm" and op.attributes["transB"] else _WEIGHTED[op.name]
                operands[1] = quantizer(operands[1], axis)
            made = OPERATORS[op.name](op, *operands)
            values.update(zip(op.results, made if isinstance(made, tuple) else (made,), strict=False))
        return [values[v] for v in (*self._function.outputs, *probes)]

    def name_of(self, value: Value | None) -> str:
        """The parameter that a value holds.

        Raises:
            UnsupportedError: it holds none.
        """
        held = self._constants.get(value) if value is not None else None
        if not isinstance(held, str):
            name = value.name if value is not None else ""
            raise UnsupportedError(f"the weight '{name}' is no f32, so there is no slope by it", "a model in f32")
        return held

    def store(self, parameters: Mapping[str, Any]) -> None:
        """Writes parameters into the function's constants."""
        for name, op in self._holders.items():
            constant = op.defn.constant
            assert constant is not None
            op.attributes[constant] = np.asarray(parameters[name], np.float32)

    @property
    def features(self) -> list[Value]:
        """Values with a name of the original model's that have positions besides channels: three axes or four."""
        found: list[Value] = []
        for op in self._ops:
            for result in op.results:
                shape = result.shape if isinstance(result.type, TensorType) else None
                if result.name and shape is not None and len(shape) in (3, 4) and op.name in ("onnx.Conv", "onnx.Add"):
                    found.append(result)
        return found


def _is_static(value: Value) -> bool:
    """Whether a float constant says a size or a bound rather than being a weight."""
    return all(user.name in ("onnx.Resize", "onnx.Clip", "onnx.Pad") for user in value.users)
