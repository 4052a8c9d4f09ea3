"""Terms → small graphs that a rule surely matches: the witnesses of what the static checks report.

Leaves get types and contents by a few guesses, from plain to odd; the operators' inference and the rule's own matcher
decide whether a guess will do. What no guess fits gets no example, and then nothing is claimed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from compiler.ir import (
    BOOL,
    F16,
    F32,
    I32,
    I64,
    Builder,
    DType,
    Function,
    InferenceError,
    Module,
    Op,
    OpDef,
    TensorType,
    Value,
    lookup,
    print_module,
)
from compiler.rewrite.check_terms import ANY, Node, Term, allowed_values
from compiler.rewrite.check_unify import Substitution, resolve
from compiler.rewrite.driver import NO_TARGET

Array = np.ndarray[Any, Any]

#: What conditions on the target are tried with.
TARGETS: tuple[Any, ...] = (
    NO_TARGET,
    *(
        SimpleNamespace(unit=unit, ios=ios, precision=precision, supports=lambda name: True)
        for unit, ios, precision in (("ane", 18, "fp16"), ("gpu", 26, "fp16"), ("cpu", 16, "fp32"))
    ),
)
_SHAPES: tuple[tuple[int, ...] | None, ...] = ((2, 3), (1, 2, 3), (2, 2), (1, 2, 3, 4), (3,), None, (), (2, 3, 4, 5, 6))
_DTYPES = (F32, I64, F16, I32, BOOL)
_NUMBERS = (2.0, 0.5, 1.0, 0.0, -1.0, 3.0)
_GUESSES = 24


class Example:
    """A module whose output is ``roots``, and the operator in it that makes each node."""

    def __init__(self, module: Module, ops: dict[Node, Op]) -> None:
        self.module = module
        self.ops = ops

    def text(self) -> str:
        """The graph as IR text."""
        return print_module(self.module).strip()


def examples(roots: list[Term], found: Substitution | None = None, guesses: int = _GUESSES) -> Iterator[Example]:
    """Graphs that have the structure of ``roots``, each made anew: the caller may rewrite it."""
    for guess in range(guesses):
        try:
            yield _Maker(found or {}, random.Random(guess), guess).make(roots)
        except (InferenceError, ValueError):
            continue


def example(roots: list[Term], found: Substitution, guess: int) -> Example | None:
    """The graph of one guess, made anew; None if that guess will not do."""
    try:
        return _Maker(found, random.Random(guess), guess).make(roots)
    except (InferenceError, ValueError):
        return None


class _Maker:
    def __init__(self, found: Substitution, rng: random.Random, guess: int) -> None:
        self.found = found
        self.rng = rng
        self.function = Function("main", {})
        self.builder = Builder(self.function.block)
        self.values: dict[Term, Value] = {}
        self.ops: dict[Node, Op] = {}
        self.begun: set[Node] = set()
        self.shape = _SHAPES[guess % len(_SHAPES)]
        self.dtype = _DTYPES[0] if guess < len(_SHAPES) else rng.choice(_DTYPES)
        self.sizes: dict[str, int] = {}
        self.serial = 0
        #: What an operator may be, where it was unified with others.
        self.narrowed: dict[Node, frozenset[str]] = {}
        for pair in self.found:
            if isinstance(pair, tuple):
                a, b = pair
                both = self.narrowed.get(a, a.ops) & self.narrowed.get(b, b.ops)
                self.narrowed[a] = self.narrowed[b] = both

    def make(self, roots: list[Term]) -> Example:
        outputs = [self.value(t, None, 0, []) for t in roots]
        kept = [v for v in outputs if v is not None]
        self.function.set_outputs(kept, [f"out{i}" for i in range(len(kept))])
        module = Module("example")
        module.add(self.function)
        return Example(module, self.ops)

    def value(self, t: Term, user: OpDef | None, position: int, beside: list[Value | None]) -> Value | None:
        t = resolve(t, self.found)
        made = self.values.get(t)
        if made is not None:
            return made
        if t.node is not None:
            op = self.operator(t.node)
            made = op.results[t.index]
        elif t.optional and self.rng.random() < 0.5:
            return None
        elif t.const:
            assert user is not None, "a root is made by an operator"
            made = self.builder.constant(self.content(t, user, position, beside), user.dialect)
        else:
            made = self.function.block.add_argument(self.type(t, user, position, beside))
            self.serial += 1
            made.name = t.name or f"x{self.serial}"
        self.values[t] = made
        return made

    def operator(self, node: Node) -> Op:
        made = self.ops.get(node)
        if made is not None:
            return made
        if node in self.begun:
            raise ValueError("two patterns unified to an operator that feeds itself")
        self.begun.add(node)
        defn = lookup(min(self.narrowed.get(node) or node.ops))
        operands: list[Value | None] = []
        for i, a in enumerate(node.args):
            operands.append(None if a is None else self.value(a, defn, i, operands))
        while operands and operands[-1] is None:
            operands.pop()
        op = self.builder.op(defn.name, operands, self.attributes(node, defn), results=node.results)
        self.ops[node] = op
        return op

    def attributes(self, node: Node, defn: OpDef) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, spec in defn.attributes.items():
            accepted = allowed_values(node, name)
            value = spec.default
            if accepted is not ANY:
                given = [v for v in accepted if v is not None]
                value = given[0] if given else None
            elif (spec.required or name in node.attrs) and (value is None or self.rng.random() < 0.4):
                value = self.guess_attribute(spec.kind)
            if value is not None and value is not spec.default:
                out[name] = value
        return out

    def guess_attribute(self, kind: str) -> Any:
        rank = len(self.shape) if self.shape is not None else 2
        match kind:
            case "int":
                return self.rng.choice((0, 1, -1))
            case "float":
                return self.rng.choice(_NUMBERS)
            case "bool":
                return self.rng.random() < 0.5
            case "ints":
                choices = (tuple(reversed(range(rank))), (0,), (1,), (-1,), (0, 1), (1, 1), (2, 2), (0, 0, 0, 0))
                return self.rng.choice(choices)
            case "floats":
                return (1.0,)
            case "type":
                return self.rng.choice((F32, F16, I64))
            case "tensor":
                return np.asarray(1.0, np.float32)
            case _:
                return None

    def element(self, t: Term, user: OpDef | None, position: int, beside: list[Value | None]) -> DType:
        allowed = t.dtypes
        if user is not None:
            spec = user.operands[min(position, len(user.operands) - 1)]
            if spec.type_variable:
                for i, v in enumerate(beside):
                    its = user.operands[min(i, len(user.operands) - 1)]
                    if v is not None and its.type_variable == spec.type_variable and isinstance(v.type, TensorType):
                        return v.type.dtype
            if spec.dtypes is not None:
                allowed = spec.dtypes if allowed is None else allowed & spec.dtypes
        if allowed is None or self.dtype in allowed:
            return self.dtype
        return next((d for d in _DTYPES if d in allowed), min(allowed, key=str, default=self.dtype))

    def type(self, t: Term, user: OpDef | None, position: int, beside: list[Value | None]) -> TensorType:
        dtype = self.element(t, user, position, beside)
        if t.dims is None:
            return TensorType(dtype, self.shape)
        shape: list[int] = []
        for d in t.dims:
            if d.rest:
                shape.extend((self.shape or ())[: max(0, len(self.shape or ()) - len(t.dims) + 1)])
            elif isinstance(d.value, int):
                shape.append(d.value)
            else:
                name = str(d.value) if d.value != "_" else f"_{len(self.sizes)}"
                shape.append(self.sizes.setdefault(name, self.rng.choice((2, 3, 4, 1))))
        return TensorType(dtype, tuple(shape))

    def content(self, t: Term, user: OpDef | None, position: int, beside: list[Value | None]) -> Array:
        dtype = self.element(t, user, position, beside)
        if t.content is not None:
            return np.asarray(t.content).astype(dtype.numpy)
        if t.dims is not None:
            shape = self.type(t, user, position, beside).static_shape
            return np.full(shape, self.rng.choice(_NUMBERS), dtype.numpy)
        if (
            dtype.is_integer
            and user is not None
            and not user.operands[min(position, len(user.operands) - 1)].type_variable
        ):
            return np.asarray(self.rng.choice(([0], [1], [-1], [0, 1], [2, 3], [3, 2], [1, 1, 1, 1], 0)), dtype.numpy)
        number = self.rng.choice(_NUMBERS)
        shape = self.rng.choice(((), (), (1,), self.shape or ()))
        return np.full(shape, number, dtype.numpy)
