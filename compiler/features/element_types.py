"""``--io fp16|fp32``: the element type of all float inputs and outputs that are no images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from compiler.errors import UserError
from compiler.features.base import Array, Arrays, Feature, Run
from compiler.ir import F16, F32, Module, Op, TensorType, Value
from compiler.target import known


def parse(text: str) -> Doors:
    """The feature that ``--io`` asks for.

    Raises:
        UserError: it is neither fp16 nor fp32.
    """
    return Doors(known("element type of inputs and outputs", text, ("fp16", "fp32")))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Doors(Feature):
    """Casts at the doors; one that meets the opposite cast takes its place."""

    io: Literal["fp16", "fp32"]

    def prepare(self, module: Module) -> None:
        values = [*module.main.inputs, *module.main.outputs]
        if not any(isinstance(v.type, TensorType) and v.type.dtype.is_float for v in values):
            raise UserError(f"--io {self.io} is of no use: the model has no float input or output", "leave it out")

    def draw(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        """Numbers that half precision holds: what an app gives has been rounded already."""
        return [{n: self._rounded(a) for n, a in one.items()} for one in sets]

    def package_outputs(self, outputs: Arrays) -> Arrays:
        return {n: self._rounded(a) for n, a in outputs.items()}

    def _rounded(self, array: Array) -> Array:
        if self.io == "fp32" or array.dtype != np.float32:
            return array
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(np.float32)

    def seal(self, module: Module) -> None:
        main = module.main
        want, spelled = (F16, "fp16") if self.io == "fp16" else (F32, "fp32")
        for argument in main.inputs:
            old = argument.type
            if not isinstance(old, TensorType) or old.dtype not in (F16, F32) or old.dtype is want:
                continue
            if f"image.{argument.name}" in main.attributes:
                continue
            argument.type = old.with_dtype(want)
            back = Op("mil.cast", [argument], [old], {"dtype": "fp32" if want is F16 else "fp16"})
            for user in list(argument.users):
                if user is back:
                    continue
                if user.name == "mil.cast" and user.result.type is argument.type:
                    user.result.replace_all_uses_with(argument)
                    user.erase()
                else:
                    user.operands = tuple(back.result if v is argument else v for v in user.operands)
            if back.is_unused:
                back.erase()
            else:
                main.block.insert_before(main.block.first, back)
        end = main.block.terminator
        assert end is not None
        given: list[Value] = []
        for value, name in zip(main.outputs, main.output_names, strict=True):
            type_ = value.type
            if (
                not isinstance(type_, TensorType)
                or type_.dtype not in (F16, F32)
                or type_.dtype is want
                or f"image.{name}" in main.attributes
            ):
                given.append(value)
            else:
                given.append(_cast(value, type_.with_dtype(want), spelled, end))
        end.operands = tuple(given)


def _cast(value: Value, type_: TensorType, spelled: str, end: Op) -> Value:
    op = value.op
    if op is not None and op.name == "mil.cast" and op.operands[0] is not None and op.operands[0].type is type_:
        return op.operands[0]
    made = Op("mil.cast", [value], [type_], {"dtype": spelled})
    assert end.block is not None
    end.block.insert_before(end, made)
    made.result.name = value.name
    return made.result
