"""The syntax tree of patterns and of the constraints on values."""

from __future__ import annotations

from typing import Any

from compiler.rewrite.syntax_expressions import AttrSpread, Pos, node


@node
class Dim:
    """A dimension in a type constraint: a size, a name that unifies, ``_``, or (``rest``) any number of dimensions.

    ``broadcast`` (``~N``, ``*~S``): it need not be that size or shape, only broadcast to it.
    """

    value: int | str
    rest: bool
    pos: Pos
    broadcast: bool = False


@node
class Constraint:
    """``const {f16, f32}[N, *rest]``; None where a part is left out."""

    const: bool
    dtypes: tuple[str, ...] | None
    dims: tuple[Dim, ...] | None
    pos: Pos


@node
class ValuePattern:
    """A value by name; ``_`` is any. The same name twice is the same value.

    ``default`` (``b ?? 0``): the data that the name stands for where the optional operand is absent.
    """

    id: str
    optional: bool
    constraint: Constraint | None
    pos: Pos
    default: Any = None


@node
class LiteralPattern:
    """A constant all of whose elements are ``value``, to within ``tolerance`` (relative) if that is not None."""

    value: float | int
    tolerance: float | None
    pos: Pos


@node
class ListPattern:
    """A constant vector with exactly these elements."""

    values: tuple[float | int, ...]
    pos: Pos


@node
class VariadicPattern:
    """``*xs``: all operands that are left."""

    id: str
    constraint: Constraint | None
    pos: Pos


@node
class NamedOperand:
    """``axes = pattern``: the operand that the definition calls so."""

    name: str
    pattern: Pattern
    pos: Pos


@node
class AttrChoice:
    """One accepted form of an attribute: ``kind`` is bind, optional, default, literal or approx.

    ``value``: the name bound (bind, optional), (name, default), the literal, or (number, tolerance).
    """

    kind: str
    value: Any
    pos: Pos


@node
class AttrPattern:
    name: str
    choices: tuple[AttrChoice, ...]
    pos: Pos


@node
class OpPattern:
    """An operator with its operands. Attributes that are not mentioned must have their default value.

    ``ordered``: the operands come in this order, although the operator is commutative.
    """

    names: tuple[str, ...]
    args: tuple[Pattern | NamedOperand | VariadicPattern, ...]
    attrs: tuple[AttrPattern | AttrSpread, ...]
    regions: tuple[str, ...]
    pos: Pos
    ordered: bool = False


@node
class Alternatives:
    """``a | b``"""

    choices: tuple[Pattern, ...]
    pos: Pos


Pattern = OpPattern | ValuePattern | LiteralPattern | ListPattern | Alternatives
