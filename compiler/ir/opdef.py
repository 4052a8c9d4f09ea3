"""What an operator is: its definition, and the dialects that define operators.

The IR itself knows one operator, the terminator ``ir.return``. All others come from dialects, which take them from the
libraries that own them (onnx.defs, coremltools' op registry) and register themselves here.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from compiler.ir.dtypes import DType
from compiler.ir.types import Type

if TYPE_CHECKING:
    import numpy as np

    from compiler.ir.core import Block, Value

Arity = Literal["required", "optional", "variadic"]
AttributeKind = Literal["int", "float", "string", "bool", "ints", "floats", "strings", "bools", "tensor", "type", "any"]


class InferenceError(Exception):
    """The operands or attributes of an operator contradict its definition; the message says how."""


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """An operand or result: its name, how often it appears, and which element types it takes.

    Operands with the same ``type_variable`` must have the same element type. ``dtypes`` None means any.
    """

    name: str
    arity: Arity = "required"
    dtypes: frozenset[DType] | None = None
    type_variable: str = ""


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """A compile-time parameter. ``default`` None means that it has none: it is absent unless given.

    A value whose element type matters (MIL types its parameters) is an array: of rank 0 for ``float``, of rank 1 for
    ``floats``.
    """

    name: str
    kind: AttributeKind
    required: bool = False
    default: Any = None


@dataclass(frozen=True, eq=False, slots=True)
class OpDef:
    """The definition of an operator.

    Attributes:
        name: dialect-qualified, with ``@version`` where the form is not the newest (``onnx.Softmax@11``).
        operands: in order; only the last may be variadic.
        results: in order; only the last may be variadic.
        attributes: by name.
        regions: names of the regions it holds.
        commutative: the first two operands may be swapped (all, for a variadic operator).
        constant: the attribute that holds the value of a constant, for an operator that is one.
        pure: the results depend on the operands and attributes alone, so it may be folded, merged and dropped.
        terminator: ends a block.
        since: the version of its dialect that introduced this form.
    """

    name: str
    operands: tuple[OperandSpec, ...] = ()
    results: tuple[OperandSpec, ...] = ()
    attributes: Mapping[str, AttributeSpec] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    commutative: bool = False
    constant: str | None = None
    pure: bool = True
    terminator: bool = False
    since: int = 1
    doc: str = ""

    dialect: str = field(init=False, repr=False)
    #: The least and the greatest number of operands; None for no upper bound.
    operand_range: tuple[int, int | None] = field(init=False, repr=False)
    #: The least and the greatest number of results; None for no upper bound.
    result_range: tuple[int, int | None] = field(init=False, repr=False)
    _defaults: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        defaults = {a.name: a.default for a in self.attributes.values() if a.default is not None}
        derived = (self.name.partition(".")[0], _range(self.operands), _range(self.results), defaults)
        for name, value in zip(("dialect", "operand_range", "result_range", "_defaults"), derived, strict=True):
            object.__setattr__(self, name, value)

    def operand_index(self, name: str) -> int | None:
        for i, spec in enumerate(self.operands):
            if spec.name == name:
                return i
        return None

    def defaults(self) -> dict[str, Any]:
        """The attributes that have a default, with it."""
        return self._defaults.copy()

    def __repr__(self) -> str:
        return f"<OpDef {self.name}>"


def _range(specs: Sequence[OperandSpec]) -> tuple[int, int | None]:
    least = 0
    for i, spec in enumerate(specs):
        if spec.arity == "required":
            least = i + 1
    variadic = bool(specs) and specs[-1].arity == "variadic"
    return least, None if variadic else len(specs)


class Dialect(ABC):
    """A set of operators with their definitions and the inference of their result types."""

    name: str
    #: A rewrite's result takes the type of the value that it replaces, without inference: for dialects whose inference
    #: costs much, and whose rules are proved.
    adopts_types = False

    @abstractmethod
    def lookup(self, op: str) -> OpDef | None:
        """The definition of the operator called ``op`` (without the dialect's name), or None."""

    @abstractmethod
    def op_names(self) -> Iterable[str]:
        """The names of all operators in their newest form, without the dialect's name."""

    @abstractmethod
    def infer(
        self,
        defn: OpDef,
        operands: Sequence[Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[Block] = (),
        results: int | None = None,
    ) -> list[Type]:
        """The types of the results of an operator that is about to be made.

        Args:
            operands: the operands; None where an optional one is absent. Constants among them may be looked into.
            attributes: all attributes, defaults included.
            regions: the bodies of an operator with control flow.
            results: how many results are wanted, for operators that have optional or variadic ones.

        Raises:
            InferenceError: operands or attributes do not fit.
        """

    @abstractmethod
    def constant(self, value: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
        """The qualified name and the attributes of the operator that holds ``value``."""


_DIALECTS: dict[str, Dialect] = {}
_DEFINITIONS: dict[str, OpDef] = {}


class UnknownOperatorError(Exception):
    """No dialect defines an operator of that name. The message offers the nearest name."""


def register_dialect(dialect: Dialect) -> None:
    """Makes the operators of ``dialect`` known to the IR. Registering a name again replaces what it stood for."""
    _DIALECTS[dialect.name] = dialect
    for name in [n for n in _DEFINITIONS if n.startswith(dialect.name + ".")]:
        del _DEFINITIONS[name]


def get_dialect(name: str) -> Dialect:
    """The registered dialect called ``name``.

    Raises:
        UnknownOperatorError: there is none.
    """
    try:
        return _DIALECTS[name]
    except KeyError:
        raise UnknownOperatorError(f"no dialect is called '{name}'{suggest(name, _DIALECTS)}") from None


def dialects() -> dict[str, Dialect]:
    """The registered dialects by name."""
    return dict(_DIALECTS)


def lookup(name: str) -> OpDef:
    """The definition of the operator with the qualified name ``name``.

    Raises:
        UnknownOperatorError: no registered dialect has it.
    """
    defn = _DEFINITIONS.get(name)
    if defn is None:
        prefix, _, op = name.partition(".")
        dialect = get_dialect(prefix)
        defn = dialect.lookup(op)
        if defn is None:
            raise UnknownOperatorError(f"dialect {prefix} has no operator '{op}'{suggest(op, dialect.op_names())}")
        _DEFINITIONS[name] = defn
    return defn


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known name nearest to ``name``, or nothing."""
    known = list(known)
    by_folded = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean '{by_folded[near[0]]}'?" if near else ""


class _BuiltinDialect(Dialect):
    """The IR's own dialect: ``ir.return`` ends every block and names what leaves it."""

    name = "ir"
    _return = OpDef("ir.return", operands=(OperandSpec("values", "variadic"),), terminator=True, pure=False)

    def lookup(self, op: str) -> OpDef | None:
        return self._return if op == "return" else None

    def op_names(self) -> Iterable[str]:
        return ("return",)

    def infer(
        self,
        defn: OpDef,
        operands: Sequence[Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[Block] = (),
        results: int | None = None,
    ) -> list[Type]:
        return []

    def constant(self, value: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError("dialect ir has no constants")


register_dialect(_BuiltinDialect())
