"""Making operators: defaults filled in, types inferred, constants by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir.core import NOWHERE, Block, Location, Op, OpResult, Value
from compiler.ir.opdef import InferenceError, get_dialect, lookup, suggest
from compiler.ir.types import Type


class Builder:
    """Inserts operators at a place in a block.

    >>> b = Builder(function.block)
    >>> y = b.op("onnx.Relu", [x]).result
    """

    __slots__ = ("before", "block", "loc")

    def __init__(self, block: Block, before: Op | None = None, loc: Location = NOWHERE) -> None:
        """Inserts before the operator ``before``, or at the end of ``block`` (but before its terminator)."""
        self.block = block
        self.before = before
        self.loc = loc

    def op(
        self,
        name: str,
        operands: Sequence[Value | None] = (),
        attributes: Mapping[str, Any] | None = None,
        result_types: Sequence[Type] | None = None,
        *,
        results: int | None = None,
        regions: Sequence[Block] = (),
        loc: Location | None = None,
    ) -> Op:
        """Makes and inserts an operator.

        Args:
            name: its qualified name.
            attributes: those that differ from the default.
            result_types: the types of its results; inferred when None.
            results: how many results are wanted where the definition leaves that open.
            loc: where it comes from; the builder's own location when None.

        Raises:
            UnknownOperatorError: no dialect defines it.
            InferenceError: operands or attributes do not fit its definition; the message names it.
        """
        defn = lookup(name)
        attrs = defn.defaults()
        if attributes:
            attrs.update(attributes)
            for key in attributes:
                if key not in defn.attributes:
                    raise InferenceError(f"{name} has no attribute '{key}'{suggest(key, defn.attributes)}")
        least, most = defn.operand_range
        if len(operands) < least or (most is not None and len(operands) > most):
            want = str(least) if least == most else f"{least} to {'any number' if most is None else most}"
            raise InferenceError(f"{name} takes {want} operands, got {len(operands)}")
        if result_types is None:
            result_types = get_dialect(defn.dialect).infer(defn, operands, attrs, regions, results)
        op = Op(defn, operands, result_types, attrs, regions, self.loc if loc is None else loc)
        anchor = self.before if self.before is not None else self.block.terminator
        self.block.insert_before(anchor, op)
        return op

    def constant(self, value: Any, dialect: str, name: str = "") -> OpResult:
        """Makes a constant of ``dialect`` that holds ``value``, which is not copied."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        op_name, attributes = get_dialect(dialect).constant(array)
        result = self.op(op_name, (), attributes).result
        result.name = name
        return result

    def ret(self, values: Sequence[Value]) -> Op:
        """Ends the block."""
        return self.block.append(Op("ir.return", values, loc=self.loc))
