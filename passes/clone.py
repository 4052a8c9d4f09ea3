"""A copy of a module that shares nothing with it but constants' arrays, types and definitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from compiler.ir import Block, Function, Module, Op, Value


@dataclass(frozen=True, slots=True)
class Clone:
    """The copy, and what became of each value and operator of the original."""

    module: Module
    values: dict[Value, Value] = field(default_factory=dict)
    ops: dict[Op, Op] = field(default_factory=dict)


def clone(module: Module, functions: Iterable[str] | None = None) -> Clone:
    """Copies a module, or only some of its functions. Arrays in attributes are shared, not copied."""
    out = Clone(Module(module.name, module.attributes))
    for name in module.functions if functions is None else functions:
        function = module.functions[name]
        copy = Function(
            function.name, [(a.name, a.type) for a in function.inputs], function.output_names, function.attributes
        )
        out.values.update(zip(function.inputs, copy.inputs, strict=True))
        _clone_ops(function.block, copy.block, out)
        out.module.add(copy)
    return out


def _clone_ops(source: Block, into: Block, out: Clone) -> None:
    values = out.values
    for op in source.ops:
        regions = []
        for region in op.regions:
            copy = Block([a.type for a in region.arguments], [a.name for a in region.arguments])
            values.update(zip(region.arguments, copy.arguments, strict=True))
            _clone_ops(region, copy, out)
            regions.append(copy)
        new = Op(
            op.defn,
            [None if v is None else values[v] for v in op.operands],
            [r.type for r in op.results],
            op.attributes,
            regions,
            op.loc,
        )
        for old_result, new_result in zip(op.results, new.results, strict=True):
            new_result.name = old_result.name
            values[old_result] = new_result
        out.ops[op] = new
        into.append(new)
