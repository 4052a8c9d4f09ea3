"""The syntax tree of rule files: plain data, every node with its place in the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

#: The grammar that the tree follows.
GRAMMAR = Path(__file__).with_name("rules.lark")


class Pos(NamedTuple):
    """A stretch of source: 1-based line and column, and the offset just past its end."""

    line: int
    column: int
    end_line: int
    end_column: int


# ---- expressions


@dataclass(frozen=True, slots=True)
class Name:
    id: str
    pos: Pos


@dataclass(frozen=True, slots=True)
class Literal:
    """A number or a string."""

    value: int | float | str
    pos: Pos


@dataclass(frozen=True, slots=True)
class Unary:
    op: str
    operand: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class Binary:
    """``a op b``; comparisons do not chain."""

    op: str
    left: Expr
    right: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class Conditional:
    then: Expr
    condition: Expr
    otherwise: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class Index:
    base: Expr
    index: Expr | Slice
    pos: Pos


@dataclass(frozen=True, slots=True)
class Slice:
    start: Expr | None
    stop: Expr | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class Member:
    base: Expr
    name: str
    pos: Pos


@dataclass(frozen=True, slots=True)
class ListExpr:
    items: tuple[Arg, ...]
    pos: Pos


@dataclass(frozen=True, slots=True)
class Comprehension:
    element: Expr
    variable: str
    iterable: Expr
    condition: Expr | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class Spread:
    """``*xs`` among arguments."""

    value: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class Optional:
    """``b?`` among arguments: absent where ``b`` is."""

    id: str
    pos: Pos


@dataclass(frozen=True, slots=True)
class Keyword:
    """``name = value`` among arguments."""

    name: str
    value: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class AttrValue:
    """``name = value`` in the attribute list of an operator that is built."""

    name: str
    value: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class AttrSpread:
    """``..name``: in a pattern, binds all other attributes; in a result, gives them."""

    id: str
    pos: Pos


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator, which of the two the checker decides. ``attrs`` None: no ``{…}`` was written."""

    callee: str
    args: tuple[Arg, ...]
    attrs: tuple[AttrValue | AttrSpread, ...] | None
    regions: tuple[str | Region, ...]
    pos: Pos


@dataclass(frozen=True, slots=True)
class Region:
    """``{ a = …  b = … }`` behind ``with``: a region written out; the last statement's results leave it."""

    statements: tuple[BuildStmt, ...]
    pos: Pos


Expr = Name | Literal | Unary | Binary | Conditional | Index | Member | ListExpr | Comprehension | Call
Arg = Expr | Spread | Optional | Keyword


# ---- patterns


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension in a type constraint: a size, a name that unifies, ``_``, or (``rest``) any number of dimensions.

    ``broadcast`` (``~N``, ``*~S``): it need not be that size or shape, only broadcast to it.
    """

    value: int | str
    rest: bool
    pos: Pos
    broadcast: bool = False


@dataclass(frozen=True, slots=True)
class Constraint:
    """``const {f16, f32}[N, *rest]``; None where a part is left out."""

    const: bool
    dtypes: tuple[str, ...] | None
    dims: tuple[Dim, ...] | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class ValuePattern:
    """A value by name; ``_`` is any. The same name twice is the same value.

    ``default`` (``b ?? 0``): the data that the name stands for where the optional operand is absent.
    """

    id: str
    optional: bool
    constraint: Constraint | None
    pos: Pos
    default: Any = None


@dataclass(frozen=True, slots=True)
class LiteralPattern:
    """A constant all of whose elements are ``value``, to within ``tolerance`` (relative) if that is not None."""

    value: float | int
    tolerance: float | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class ListPattern:
    """A constant vector with exactly these elements."""

    values: tuple[float | int, ...]
    pos: Pos


@dataclass(frozen=True, slots=True)
class VariadicPattern:
    """``*xs``: all operands that are left."""

    id: str
    constraint: Constraint | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class NamedOperand:
    """``axes = pattern``: the operand that the definition calls so."""

    name: str
    pattern: Pattern
    pos: Pos


@dataclass(frozen=True, slots=True)
class AttrChoice:
    """One accepted form of an attribute: ``kind`` is bind, optional, default, literal or approx.

    ``value``: the name bound (bind, optional), (name, default), the literal, or (number, tolerance).
    """

    kind: str
    value: Any
    pos: Pos


@dataclass(frozen=True, slots=True)
class AttrPattern:
    name: str
    choices: tuple[AttrChoice, ...]
    pos: Pos


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Alternatives:
    """``a | b``"""

    choices: tuple[Pattern, ...]
    pos: Pos


Pattern = OpPattern | ValuePattern | LiteralPattern | ListPattern | Alternatives


# ---- rules and files


@dataclass(frozen=True, slots=True)
class Target:
    """What stands left of ``=``: a name for a result, perhaps with a constraint, or (``*ys``) for all results."""

    id: str
    constraint: Constraint | None
    pos: Pos
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class MatchStmt:
    targets: tuple[Target, ...]
    pattern: Pattern
    pos: Pos


@dataclass(frozen=True, slots=True)
class BuildStmt:
    targets: tuple[Target, ...]
    value: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class LetStmt:
    id: str
    value: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One variant of the result; ``when`` None: always. ``builder``: a Python function, with no statements."""

    when: Expr | None
    statements: tuple[BuildStmt, ...]
    builder: str | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class Given:
    """``x: f32[2, 3]`` (constraint) or ``k = 3`` (value) in an example or a test."""

    id: str
    constraint: Constraint | None
    value: Expr | None
    pos: Pos


@dataclass(frozen=True, slots=True)
class Test:
    """``after`` None: the rule must leave ``before`` as it is."""

    __test__ = False  # not a pytest class

    doc: str
    givens: tuple[Given, ...]
    before: tuple[BuildStmt, ...]
    after: tuple[BuildStmt, ...] | None
    because: str
    pos: Pos


@dataclass(frozen=True, slots=True)
class Numeric:
    """The contract that `prove` holds a rule to: exact, rounding or approximate (with a relative tolerance)."""

    contract: str = "rounding"
    rtol: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    doc: str
    stage: str
    use: tuple[str, ...]
    match: tuple[MatchStmt, ...]
    where: tuple[Expr, ...]
    let: tuple[LetStmt, ...]
    rewrites: tuple[Rewrite, ...]
    numeric: Numeric
    before: tuple[str, ...]
    after: tuple[str, ...]
    examples: tuple[tuple[Given, ...], ...]
    tests: tuple[Test, ...]
    pos: Pos
    name_pos: Pos
    file: str


@dataclass(frozen=True, slots=True)
class PatternDef:
    name: str
    parameters: tuple[str, ...]
    body: Pattern
    use: tuple[str, ...]
    pos: Pos


@dataclass(frozen=True, slots=True)
class FnDef:
    name: str
    parameters: tuple[str, ...]
    body: Expr
    pos: Pos


@dataclass(frozen=True, slots=True)
class Extern:
    name: str
    module: str
    pos: Pos


@dataclass(slots=True)
class RuleFile:
    """One parsed file. ``source`` is kept for messages; ``builtin`` files come with the compiler."""

    path: str
    source: str
    builtin: bool = False
    rules: list[Rule] = field(default_factory=list)
    patterns: dict[str, PatternDef] = field(default_factory=dict)
    fns: dict[str, FnDef] = field(default_factory=dict)
    externs: dict[str, Extern] = field(default_factory=dict)


def mentioned(node: Any) -> set[str]:
    """Every name in an expression."""
    if isinstance(node, (Name, Optional)):
        return {node.id}
    if isinstance(node, Pos):
        return set()
    if isinstance(node, tuple):
        return set().union(*(mentioned(x) for x in node))
    if not hasattr(node, "__dataclass_fields__"):
        return set()
    return set().union(*(mentioned(getattr(node, f)) for f in node.__dataclass_fields__))
