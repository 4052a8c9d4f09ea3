"""Copies of operators, functions and modules. Arrays are shared, never copied."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.ir.core import Block, Op, Value
from compiler.ir.module import Function, Module


def clone_module(module: Module) -> Module:
    """A module equal to ``module`` whose operators are its own."""
    out = Module(module.name, module.attributes)
    for function in module.functions.values():
        out.add(clone_function(function))
    return out


def clone_function(function: Function, name: str | None = None, values: dict[Value, Value] | None = None) -> Function:
    """A copy of a function.

    Args:
        name: of the copy; the original's when None.
        values: filled with what each value of the original became.
    """
    values = {} if values is None else values
    out = Function(function.name if name is None else name, (), function.output_names, function.attributes)
    _fill(out.block, function.block, values)
    return out


def clone_ops(ops: Iterable[Op], into: Block, values: dict[Value, Value], before: Op | None = None) -> list[Op]:
    """Copies operators, regions included, into a block.

    Args:
        ops: in order: what defines a value before what uses it.
        into: the block that gets the copies.
        values: what each value becomes; filled with the results as they are copied. A value that is not in it stays as
            it is, as one of the blocks around does.
        before: the operator of ``into`` that the copies go before; None for the end.
    """
    return [into.insert_before(before, _clone_op(op, values)) for op in ops]


def clone_block(block: Block, values: dict[Value, Value]) -> Block:
    """A copy of a region. See :func:`clone_ops` for ``values``."""
    out = Block()
    _fill(out, block, values)
    return out


def _fill(out: Block, block: Block, values: dict[Value, Value]) -> None:
    for argument in block.arguments:
        values[argument] = out.add_argument(argument.type, argument.name)
    clone_ops(block.ops, out, values)


def _clone_op(op: Op, values: dict[Value, Value]) -> Op:
    copy = Op(
        op.defn,
        tuple([None if v is None else values.get(v, v) for v in op.operands]),
        [r.type for r in op.results],
        op.attributes,
        [clone_block(region, values) for region in op.regions],
        op.loc,
    )
    for old, new in zip(op.results, copy.results, strict=True):
        new.name = old.name
        values[old] = new
    return copy
