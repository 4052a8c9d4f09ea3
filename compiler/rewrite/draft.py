"""``planish rules new``: a rule drafted from operators of a model, for its author to finish."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import DType, Module, Op, TensorType, Value, suggest

#: Larger examples say nothing that smaller ones do not, and slow the proof down.
_MOST_ELEMENTS = 4096


def draft(module: Module, nodes: Sequence[str], name: str, stage: str = "fuse", to: str | None = None) -> str:
    """The text of a rule file whose pattern is some operators of a model.

    Args:
        module: the model as the stage finds it.
        nodes: names of nodes of the source model, or of their outputs.
        name: of the rule.
        to: an operator to put in their place, given what enters the pattern; None: the same again, to be edited.

    Raises:
        UserError: the stage finds nothing of a node, only constants, or what does not hang together.
    """
    ops = _found(module, nodes, stage)
    return _Draft(ops, name, stage, to).text()


def _found(module: Module, nodes: Sequence[str], stage: str) -> list[Op]:
    """All operators that come from nodes, in order: one may have become several, or several one."""
    by_name: dict[str, list[Op]] = {}
    for op in module.walk():
        for n in {*op.loc.nodes, *(r.name for r in op.results)}:
            by_name.setdefault(n, []).append(op)
    for n in nodes:
        if n not in by_name:
            raise UserError(
                f"stage {stage} finds no operator of a node '{n}'{suggest(n, by_name)}",
                "planish show MODEL lists the nodes; what does nothing is gone before the stage",
            )
    chosen = {op for n in nodes for op in by_name[n] if op.defn.constant is None}
    if not chosen:
        raise UserError("the nodes are all constants", "name at least one that computes something")
    ops = [op for op in module.walk() if op in chosen]
    together = _reached(ops[0], chosen)
    for op in ops:
        if op not in together:
            raise UserError(
                f"{op.name} of node '{next(iter(op.loc.nodes), '?')}' has nothing to do with the other operators",
                "nodes that use each other's results, or one value together",
            )
    return ops


def _reached(start: Op, among: Set[Op]) -> set[Op]:
    """The operators that hang together with one of them: by a result, or by a value that both use."""
    seen = {start}
    todo = [start]
    while todo:
        op = todo.pop()
        values = [v for v in op.operands if v is not None and v.constant is None]
        near = [v.op for v in values if v.op is not None] + [u for v in (*values, *op.results) for u in v.users]
        for other in near:
            if other in among and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


class _Draft:
    def __init__(self, ops: Sequence[Op], name: str, stage: str, to: str | None) -> None:
        self.ops, self.name, self.stage, self.to = ops, name, stage, to
        self.names: dict[Value, str] = {}
        self.steps = 0
        self.inputs: list[Value] = []
        self.constants: list[Value] = []
        inside = set(ops)
        self.inner = [r for op in ops for r in op.results if r._uses]
        self.roots = [r for op in ops for r in op.results if not any(u in inside for u in r.users)]

    def text(self) -> str:
        for i, r in enumerate(self.roots):
            self.names[r] = "y" if len(self.roots) == 1 else f"y{i + 1}"
        statements = [self.statement(op) for op in self.ops]
        conditions = [
            f"uses({self.names[v]}) == {v.use_count}"
            for v in self.inner
            if v not in self.roots and all(u in self.ops for u in v.users)
        ]
        lines = [f"stage {self.stage}", "use onnx", "", f'rule {self.name} "what it does, in one line of algebra" {{']
        lines += self.block("match   { ", statements)
        if conditions:
            lines.append(f"  where   {{ {', '.join(dict.fromkeys(conditions))} }}")
        if self.to is None:
            lines.append("  // Say here what should stand in its place; as it is, the rule would go on for ever.")
            lines += self.block("rewrite { ", [self.rebuilt(s) for s in statements])
        else:
            given = ", ".join(self.names[v] for v in [*self.inputs, *self.constants])
            roots = ", ".join(self.names[r] for r in self.roots)
            lines.append(f"  rewrite {{ {f'({roots})' if len(self.roots) > 1 else roots} = {self.to}({given}) }}")
        example = [f"{self.names[v]}: {shown}" for v in self.inputs if (shown := _type(v))]
        if example and len(example) == len(self.inputs):
            lines.append(f"  example {{ {', '.join(example)} }}")
        return "\n".join([*lines, "}", ""])

    @staticmethod
    def block(head: str, statements: Sequence[str]) -> list[str]:
        out = [f"  {head if i == 0 else ' ' * len(head)}{s}" for i, s in enumerate(statements)]
        out[-1] += " }"
        return out

    @staticmethod
    def rebuilt(statement: str) -> str:
        """A statement of the match as one of the result: constraints say nothing there."""
        return statement.replace(": const", "").replace("≈", "")

    def statement(self, op: Op) -> str:
        operands = [self.operand(v) for v in op.operands]
        attributes = [f"{k} = {_literal(v)}" for k, v in op.attributes.items() if _mentioned(op, k, v)]
        shown = f" {{{', '.join(attributes)}}}" if attributes else ""
        used = [r for r in op.results if r._uses] or [op.results[0]]
        last = max(r.index for r in used)
        targets = [self.result(r) for r in op.results[: last + 1]]
        left = targets[0] if len(targets) == 1 else f"({', '.join(targets)})"
        return f"{left} = {op.name.removeprefix('onnx.')}({', '.join(operands)}){shown}"

    def result(self, v: Value) -> str:
        if v not in self.names and v._uses:
            self.steps += 1
            self.names[v] = f"t{self.steps}"
        return self.names.get(v, "_")

    def operand(self, v: Value | None) -> str:
        if v is None:
            return "_?"
        if v in self.names:
            return self.names[v]
        array = v.constant
        if array is not None and array.ndim == 0 and array.dtype.kind in "fiu":
            return _number(array)
        if array is not None and array.ndim == 1 and array.size <= 4 and array.dtype.kind in "iu":
            return f"[{', '.join(map(str, array.tolist()))}]"
        if array is not None:
            self.names[v] = f"k{len(self.constants) + 1}"
            self.constants.append(v)
            return f"{self.names[v]}: const"
        if v.op is not None and v.op in self.ops:
            return self.result(v)
        self.names[v] = "x" if not self.inputs else f"x{len(self.inputs) + 1}"
        self.inputs.append(v)
        return self.names[v]


def _mentioned(op: Op, name: str, value: Any) -> bool:
    default = op.defn.attributes[name].default
    return default is None or not np.array_equal(np.asarray(value, object), np.asarray(default, object))


def _number(array: np.ndarray[Any, Any]) -> str:
    value = array.item()
    if isinstance(value, int):
        return str(value)
    short = f"{value:.6g}"
    exact = float(short) == value or bool(array.dtype.type(short) == array)
    text = short if any(c in short for c in ".einf") else f"{short}.0"
    return text if exact and len(text) <= 6 else f"≈{value:.9g}"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float, DType)):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(v) for v in value)}]"
    return "_"


def _type(v: Value) -> str:
    t = v.type
    if not isinstance(t, TensorType) or not t.is_static or (t.size or 0) > _MOST_ELEMENTS:
        return ""
    return f"{t.dtype}[{', '.join(map(str, t.static_shape))}]"
