"""What is known while a graph is walked: which values have which channels, and what operators do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.ir import Builder, Op, Value
from passes.prune.channels import Channels, Classes

Array = np.ndarray[Any, Any]
#: The sizes of axes: numbers, or names where they are open.
Shape = tuple[Any, ...]


class Analysis:
    """
    Attributes:
        classes: of all channels so far.
        of: the channels of values that have any.
    """

    def __init__(self) -> None:
        self.classes = Classes()
        self.of: dict[Value, Channels] = {}

    def known(self, v: Value | None) -> Channels | None:
        return self.of.get(v) if v is not None else None

    def taken(self, x: Value, axis: int) -> Array:
        """The numbers along an axis that an operator mixes; channels along any other axis of ``x`` are fixed."""
        known = self.known(x)
        if known is not None and known.axis == axis:
            return known.ids
        self.classes.fix(known)
        count = size(x, axis)
        assert isinstance(count, int)
        return self.classes.fresh(count, fixed=True)

    def bias(self, op: Op, index: int, ids: Array) -> None:
        """Notes that an operand has an element for each channel."""
        bias = op.operands[index] if len(op.operands) > index else None
        if bias is None:
            return
        if bias.constant is None:
            self.classes.fix(Channels(0, ids))
        else:
            self.classes.cut(op, index, 0, ids, "each")


#: Notes what an operator does with channels; False if it is not known, and they must stay.
Handler = Callable[[Analysis, Op], bool]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler of onnx.* operators."""

    def add(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys((f"onnx.{n}" for n in names), handler))
        return handler

    return add


#: As :data:`Handler`, given the channels of the first operand and the sizes of its axes besides.
Follower = Callable[[Analysis, Op, Channels, Shape], bool]


def follows(*names: str) -> Callable[[Follower], Follower]:
    """Registers what becomes of the channels of the first operand, for onnx.* operators that nothing need be asked of
    where it has none. Where its rank is not known, its channels must stay."""

    def add(follower: Follower) -> Follower:
        def handler(a: Analysis, op: Op) -> bool:
            source = op.operands[0]
            x = a.known(source)
            if source is None or x is None:
                return True
            return source.shape is not None and follower(a, op, x, source.shape)

        handles(*names)(handler)
        return follower

    return add


def size(v: Value | None, axis: int) -> Any:
    """How many elements a value has along an axis: a number, a name, or None where it is not known."""
    return v.shape[axis] if v is not None and v.shape is not None and len(v.shape) > axis else None


def set_entry(op: Op, operand: int, index: int, value: int) -> None:
    """One entry of a constant vector that an operator takes."""
    held = op.operands[operand]
    assert held is not None
    assert held.constant is not None
    new = held.constant.copy()
    new[index] = value
    replace(op, operand, new)


def replace(op: Op, operand: int, array: Array) -> None:
    """Gives an operator another constant."""
    assert op.block is not None
    constant = Builder(op.block, before=op, loc=op.loc).constant(array, "onnx")
    operands = [*op.operands, *[None] * (operand + 1 - len(op.operands))]
    operands[operand] = constant
    op.operands = tuple(operands)
