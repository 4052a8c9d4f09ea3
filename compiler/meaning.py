"""The types of mil operators, from what they mean.

The rules of stage ``meaning`` rewrite mil.* into onnx.*; an operator's result types are those of its meaning. So one
definition serves evaluation and inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.dialects import mil
from compiler.ir import F32, Block, Builder, InferenceError, Op, OpDef, TensorType, Type, Value
from compiler.rewrite import Library
from compiler.rewrite.driver import expand

#: Constants up to this many elements are part of the key under which an inference is remembered: shapes, axes, sizes,
#: and of floats the scales of a resize, one for each axis.
_SMALL = 64
_SMALL_FLOATS = 5


#: Stands for a result of which nothing is known.
_ANYTHING = TensorType(F32, None)


def install(library: Library) -> None:
    """Makes the meaning rules of ``library`` the inference of dialect mil."""
    mil.set_inference(_Inference(library))


class _Inference:
    def __init__(self, library: Library) -> None:
        self.library = library
        self.known: dict[Any, list[Type]] = {}
        self.alive: list[Any] = []  # large integer arrays are known by identity, which must not be given to another

    def __call__(
        self,
        defn: OpDef,
        operands: Sequence[Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[Block],
        results: int | None,
    ) -> list[Type]:
        key = self.key(defn, operands, attributes, results)
        found = self.known.get(key) if key is not None else None
        if found is None:
            found = self.infer(defn, operands, attributes, results)
            if key is not None:
                self.known[key] = found
                constants = [v.constant for v in operands if v is not None and v.constant is not None]
                self.alive.extend(a for a in constants if a.size > _SMALL and a.dtype.kind != "f")
        return found

    @staticmethod
    def key(defn: OpDef, operands: Sequence[Value | None], attributes: Mapping[str, Any], results: int | None) -> Any:
        parts: list[Any] = [defn.name, results]
        for v in operands:
            array = v.constant if v is not None else None
            floats = array is not None and array.dtype.kind == "f"
            if v is not None and array is not None and array.size > (_SMALL_FLOATS if floats else _SMALL):
                # No type follows from the numbers of a large float array: shapes and sizes are few, or integers.
                parts.append((v.type, "float" if floats else id(array)))
            else:
                parts.append((v.type if v is not None else None, array.tobytes() if array is not None else None))
        for name, value in sorted(attributes.items()):
            if isinstance(value, np.ndarray):
                parts.append((name, value.dtype.str, value.shape, value.tobytes()))
            else:  # 0, 0.0 and False are equal, but not the same
                parts.append((name, type(value), tuple(map(type, value)) if isinstance(value, tuple) else None, value))
        try:
            hash(key := tuple(parts))
        except TypeError:
            return None
        return key

    def infer(
        self, defn: OpDef, operands: Sequence[Value | None], attributes: Mapping[str, Any], results: int | None
    ) -> list[Type]:
        scratch = Block()
        builder = Builder(scratch)
        inside: list[Value | None] = []
        for v in operands:
            array = v.constant if v is not None else None
            if v is None:
                inside.append(None)
            elif array is not None:
                inside.append(builder.constant(array, "mil"))
            else:
                inside.append(scratch.add_argument(v.type))
        count = results if results is not None else sum(r.arity == "required" for r in defn.results)
        unknown = next((v.type for v in operands if v is not None and isinstance(v.type, TensorType)), None)
        placeholder: Type = unknown.with_shape(None) if isinstance(unknown, TensorType) else _ANYTHING
        op = Op(defn, inside, [placeholder] * count, attributes)
        scratch.append(op)
        try:
            made = expand(op, self.library.stage("meaning"))
            if made is None:
                raise InferenceError(f"no rule of stage meaning says what {defn.name} is with these attributes")
            types = {old: new.type for old, new in made[0]}
            return [types.get(r, placeholder) for r in op.results]
        finally:
            scratch.clear()
