"""What must be true of the IR at any time, checked in time linear in what is looked at.

A violation is a mistake of whoever made the IR, a front end, rule or pass, and never of the user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from compiler.ir.core import Block, BlockArgument, Op, OpResult, Value
from compiler.ir.dtypes import STRING, DType, from_numpy
from compiler.ir.module import Function, Module
from compiler.ir.opdef import OpDef, OperandSpec, suggest
from compiler.ir.types import TensorType, Type, element_dtype


class VerifyError(Exception):
    """The IR breaks one of its rules.

    Attributes:
        op: the operator it is about; None if it is about a block or a function.
    """

    def __init__(self, sentence: str, op: Op | None = None) -> None:
        super().__init__(sentence)
        self.op = op


def verify(what: Module | Function | Op, scope: str | None = None, untyped: frozenset[str] = frozenset()) -> None:
    """Checks a module, a function, or an operator with its regions.

    Dominance, the bookkeeping of uses, order keys, terminators, arities, element types against the definition's
    constraints and type variables, names, kinds and presence of attributes, constants against their types.

    Args:
        scope: what was done last, for the message: ``"pass fold_constants"``.
        untyped: dialects whose operators may still have element types that they do not take: those of the source model,
            which a pass makes their own later.

    Raises:
        VerifyError: naming the operator and its location.
    """
    try:
        checker = _Checker(untyped)
        if isinstance(what, Module):
            for name, function in what.functions.items():
                if name != function.name:
                    raise VerifyError(f"module @{what.name} has function @{function.name} under the name @{name}")
                checker.function(function)
        elif isinstance(what, Function):
            checker.function(what)
        else:
            checker.op(what)
        checker.uses()
    except VerifyError as e:
        if scope is None:
            raise
        raise VerifyError(f"after {scope}: {e}", e.op) from None


def verify_ops(ops: Iterable[Op], scope: str | None = None, untyped: frozenset[str] = frozenset()) -> None:
    """Checks these operators and the users of their results, without what their regions hold.

    Costs in proportion to them: for what a rewrite has just made. ``scope`` and ``untyped`` are as in :func:`verify`.

    Raises:
        VerifyError: naming the operator and its location.
    """
    seen: set[Op] = set()
    try:
        for op in ops:
            for each in (op, *(user for r in op.results for user in r.users)):
                if each not in seen:
                    seen.add(each)
                    _check_op(each, each.defn.dialect not in untyped)
    except VerifyError as e:
        if scope is None:
            raise
        raise VerifyError(f"after {scope}: {e}", e.op) from None


def checking() -> bool:
    """Whether a compile verifies the IR behind every pass and every rewrite: where the environment sets
    ``PLANISH_VERIFY_IR``, as the tests do."""
    return os.environ.get("PLANISH_VERIFY_IR", "") not in ("", "0")


class _Checker:
    """One walk over blocks; what it counts on the way is compared with the values' own counts in the end."""

    def __init__(self, untyped: frozenset[str]) -> None:
        self._untyped = untyped
        self._users: dict[Value, int] = {}
        self._defined: list[Value] = []

    def function(self, function: Function) -> None:
        where = f"function @{function.name}"
        if function.block.parent is not None:
            raise VerifyError(f"the block of {where} is also a region of {function.block.parent.name}")
        for what, names in (("input", [a.name for a in function.inputs]), ("output", function.output_names)):
            if len(set(names)) != len(names):
                twice = next(n for n in names if names.count(n) > 1)
                raise VerifyError(f"{where} has two {what}s called '{twice}'")
        end = self._block(function.block, where)
        if len(end.operands) != len(function.output_names):
            raise _error(end, f"{where} has {len(function.output_names)} outputs, not {len(end.operands)}")
        if None in end.operands:
            raise _error(end, f"{where} returns an absent value")

    def op(self, op: Op) -> None:
        _check_op(op, not self._untyped or op.defn.dialect not in self._untyped)
        for v in set(op.operands):
            if v is not None:
                self._users[v] = self._users.get(v, 0) + 1
        for name, region in zip(op.defn.regions, op.regions, strict=True):
            if region.parent is not op:
                raise _error(op, f"its region '{name}' belongs to another operator")
            self._block(region, f"region '{name}' of {op.name}")

    def uses(self) -> None:
        """Finds users that a value counts and that are no longer there."""
        for value in self._defined:
            if len(value._uses) != self._users.get(value, 0):
                for user in value.users:
                    if user.block is None or value not in user.operands:
                        raise _error(user, f"{_spell(value)} still counts it as a user")
                outside = next(iter(value.users))
                raise _error(outside, f"{_spell(value)} is used outside of what was looked at")

    def _block(self, block: Block, where: str) -> Op:
        """Checks a block and gives its terminator."""
        for i, argument in enumerate(block.arguments):
            if argument.block is not block:
                raise VerifyError(f"argument {i} of {where} belongs to another block")
        self._defined += block.arguments
        before: Op | None = None
        count = 0
        for op in block.ops:
            if op.block is not block or op.prev is not before:
                raise _error(op, "its links to its block and its neighbours disagree")
            if before is not None:
                if not before.comes_before(op):
                    raise _error(op, f"its order key is not above that of {before.name} before it")
                if before.defn.terminator:
                    raise _error(before, f"it ends its block, but {op.name} follows")
            self.op(op)
            self._defined += op.results
            before = op
            count += 1
        if before is None:
            raise VerifyError(f"{where} is empty; it must end in a terminator such as return")
        if not before.defn.terminator:
            raise _error(before, f"it is the last in {where}, which must end in a terminator such as return")
        if before is not block.last or count != len(block):
            raise _error(before, f"{where} says that it holds {len(block)} operators, but holds {count}")
        return before


def _error(op: Op, sentence: str) -> VerifyError:
    # The head of the printed form is enough to find the operator by; regions would drown the sentence.
    operands = ", ".join("_" if v is None else f"{_spell(v)}: {v.type}" for v in op.operands)
    results = ", ".join(str(r.type) for r in op.results)
    place = f" (from {op.loc})" if str(op.loc) else ""
    return VerifyError(f"{op.name}{place}: {sentence}\n  in {op.name}({operands}) -> ({results})", op)


def _spell(value: Value) -> str:
    return f"%{value.name or '?'}"


class _Limits(NamedTuple):
    """What a definition asks for, worked out once."""

    least_operands: int
    most_operands: int | None
    least_results: int
    most_results: int | None


_LIMITS: dict[OpDef, _Limits] = {}


def _limits(defn: OpDef) -> _Limits:
    found = _LIMITS.get(defn)
    if found is None:
        found = _LIMITS[defn] = _Limits(*defn.operand_range, *defn.result_range)
    return found


def _check_op(op: Op, typed: bool = True) -> None:
    """All that can be said of an operator by looking at it, its operands and its users' lists."""
    defn = op.defn
    limits = _limits(defn)
    _check_count(op, "operands", len(op.operands), limits.least_operands, limits.most_operands)
    _check_count(op, "results", len(op.results), limits.least_results, limits.most_results)
    _check_count(op, "regions", len(op.regions), len(defn.regions), len(defn.regions))
    variables: dict[str, DType] = {}
    last = len(defn.operands) - 1
    operands = op.operands
    for i, value in enumerate(operands):
        spec = defn.operands[min(i, last)]
        if value is None:
            if spec.arity != "optional":
                raise _error(op, f"operand '{spec.name}' is absent, but not optional")
            continue
        _check_dominance(op, value, spec)
        # Whether a value counts this user right is a matter of the number only where it stands twice.
        count = value._uses.get(op, 0)
        if count != 1 and count != operands.count(value):
            raise _error(op, f"operand '{spec.name}', {_spell(value)}, counts {count} uses by it")
        if typed and (spec.dtypes is not None or spec.type_variable):
            _check_dtype(op, value.type, spec, variables, "operand")
    last = len(defn.results) - 1
    for i, result in enumerate(op.results):
        if result._op is not op or result.index != i:
            raise _error(op, f"its result {i} belongs to {result._op.name}")
        spec = defn.results[min(i, last)]
        if typed and (spec.dtypes is not None or spec.type_variable):
            _check_dtype(op, result.type, spec, variables, "result")
    _check_attributes(op)


def _check_count(op: Op, what: str, count: int, least: int, most: int | None) -> None:
    if count < least or (most is not None and count > most):
        want = str(least) if least == most else f"{least} to {'any number' if most is None else most}"
        raise _error(op, f"it has {count} {what}, where {want} must be")


def _check_dominance(op: Op, value: Value, spec: OperandSpec) -> None:
    if isinstance(value, OpResult):
        producer = value._op
        block = producer.block
        if block is None:
            raise _error(op, f"operand '{spec.name}' is a result of {producer.name}, which stands in no block")
        user: Op | None = op
        # The operator of the producer's block that holds this use, at any depth.
        while user is not None and user.block is not block:
            user = user.parent
        if user is None:
            raise _error(op, f"operand '{spec.name}' is a result of {producer.name}, which lies in another region")
        if not producer.comes_before(user):
            raise _error(op, f"operand '{spec.name}' is a result of {producer.name}, which comes later")
    elif isinstance(value, BlockArgument) and not value.block.encloses(op.block):
        raise _error(op, f"operand '{spec.name}' is an argument of a block that it does not lie in")


def _check_dtype(op: Op, type_: Type, spec: OperandSpec, variables: dict[str, DType], what: str) -> None:
    dtype = element_dtype(type_)
    if spec.dtypes is not None and dtype not in spec.dtypes:
        allowed = " ".join(sorted(map(str, spec.dtypes)))
        raise _error(op, f"{what} '{spec.name}' is of type {type_}, not one of {allowed}")
    if spec.type_variable and variables.setdefault(spec.type_variable, dtype) is not dtype:
        raise _error(
            op,
            f"{what} '{spec.name}' is of type {type_}, but {spec.type_variable} is {variables[spec.type_variable]}",
        )


def _is_tuple_of(kind: type) -> Any:
    return lambda v: type(v) is tuple and all(type(e) is kind for e in v)


_KINDS: dict[str, Any] = {
    "int": lambda v: type(v) is int,
    "float": lambda v: type(v) is float,
    "string": lambda v: type(v) is str,
    "bool": lambda v: type(v) is bool,
    "ints": _is_tuple_of(int),
    "floats": _is_tuple_of(float),
    "strings": _is_tuple_of(str),
    "bools": _is_tuple_of(bool),
    "tensor": lambda v: isinstance(v, np.ndarray),
    "type": lambda v: isinstance(v, DType | Type),
}
_SCALARS = (int, float, str, bool, DType)


def _is_any(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_any, value))
    return type(value) in _SCALARS or isinstance(value, np.ndarray | Type)


def _is_typed(value: Any, kind: str) -> bool:
    """Whether an array holds what the kind asks for, in an element type of its own, as MIL's parameters may."""
    if not isinstance(value, np.ndarray) or value.ndim != kind.endswith("s"):
        return False
    dtype = from_numpy(value.dtype)
    held = "int" if dtype.is_integer else dtype.kind
    return held == kind.removesuffix("s")


def _check_attributes(op: Op) -> None:
    known = op.defn.attributes
    given = op.attributes
    present = 0
    for name, spec in known.items():
        if name not in given:
            if spec.required:
                raise _error(op, f"attribute '{name}' is missing")
            if spec.default is not None:
                raise _error(op, f"attribute '{name}' is missing; its default {spec.default!r} must be filled in")
            continue
        present += 1
        value = given[name]
        if not _KINDS.get(spec.kind, _is_any)(value) and not _is_typed(value, spec.kind):
            raise _error(op, f"attribute '{name}' is {value!r}, not of kind {spec.kind}")
    if present != len(given):
        name = next(n for n in given if n not in known)
        raise _error(op, f"it has no attribute '{name}'{suggest(name, known)}")
    if op.defn.constant is not None:
        _check_constant(op, given[op.defn.constant])


def _check_constant(op: Op, array: Any) -> None:
    if len(op.results) != 1 or not isinstance(array, np.ndarray):
        raise _error(op, "a constant holds one array")
    type_ = op.results[0].type
    if not isinstance(type_, TensorType) or type_.shape != array.shape:
        raise _error(op, f"its value has the shape {list(array.shape)}")
    if type_.dtype.numpy != array.dtype and not (type_.dtype is STRING and array.dtype.kind in "US"):
        raise _error(op, f"its value is of NumPy's type {array.dtype}")
