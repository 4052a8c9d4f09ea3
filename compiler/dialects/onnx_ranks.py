"""Where it makes no difference whether a tensor is a number or a vector of one.

Exporters mix the two freely, and onnxruntime lets them: a branch gives one, the other branch the other.
"""

from __future__ import annotations

from compiler.ir import Op, TensorType, Value


def is_one_element(v: Value) -> bool:
    """Whether ``v`` is a number, or a vector of one."""
    return isinstance(v.type, TensorType) and v.type.shape in ((), (1,))


def ranks_agree(value: Value) -> bool:
    """Whether it makes no difference to any user of ``value`` if it is a number or a vector of one.

    An elementwise operator with another operand of rank 1 or more gives the same for both; one without passes the
    question on to its own users. A loop's condition may be either.
    """
    seen = {value}
    pending = [value]
    while pending:
        at = pending.pop()
        for user in at.users:
            if not _indifferent(user, at):
                return False
            if not _settles(user, at):
                for result in user.results:
                    if result not in seen:
                        seen.add(result)
                        pending.append(result)
    return True


_ELEMENTWISE = frozenset(
    {"Add", "And", "Cast", "Equal", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Mul", "Not", "Or"}
    | {"Sub", "Xor"}
)


def _indifferent(user: Op, operand: Value) -> bool:
    name = user.name.removeprefix("onnx.")
    if name in _ELEMENTWISE:
        return True
    if user.defn.terminator:  # a body tells first whether its loop goes on
        parent = user.block.parent if user.block is not None else None
        loop = parent is not None and parent.name == "onnx.Loop"
        return loop and user.operands[0] is operand and list(user.operands).count(operand) == 1
    shape = user.operands[1] if name == "Reshape" and user.operands[0] is operand else None
    return shape is not None and shape.constant is not None


def _settles(user: Op, operand: Value) -> bool:
    """Whether the type of what ``user`` gives stays, be ``operand`` a number or a vector of one."""
    if user.defn.terminator or user.name == "onnx.Reshape":
        return True
    return any(
        v is not None and v is not operand and isinstance(v.type, TensorType) and v.type.shape not in (None, ())
        for v in user.operands
    )
