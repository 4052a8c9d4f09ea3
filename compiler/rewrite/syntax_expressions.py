"""The syntax tree of expressions and of what a rule builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from compiler.rewrite.syntax import BuildStmt

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def node(cls: type[T]) -> type[T]:
    """A node of the tree: immutable data. A library of rules is read from a cache at every start, tens of thousands of
    nodes, and what :mod:`dataclasses` itself does to restore one takes ten times as long as to make it."""
    made = dataclass(frozen=True, slots=True)(cls)
    names = tuple(f.name for f in fields(made))  # type: ignore[arg-type]

    def reduce(self: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return made, tuple([getattr(self, name) for name in names])

    made.__reduce__ = reduce  # type: ignore[method-assign]
    return made


class Pos(NamedTuple):
    """A stretch of source: 1-based line and column, and the offset just past its end."""

    line: int
    column: int
    end_line: int
    end_column: int


@node
class Name:
    id: str
    pos: Pos


@node
class Literal:
    """A number or a string."""

    value: int | float | str
    pos: Pos


@node
class Unary:
    op: str
    operand: Expr
    pos: Pos


@node
class Binary:
    """``a op b``; comparisons do not chain."""

    op: str
    left: Expr
    right: Expr
    pos: Pos


@node
class Conditional:
    then: Expr
    condition: Expr
    otherwise: Expr
    pos: Pos


@node
class Index:
    base: Expr
    index: Expr | Slice
    pos: Pos


@node
class Slice:
    start: Expr | None
    stop: Expr | None
    pos: Pos


@node
class Member:
    base: Expr
    name: str
    pos: Pos


@node
class ListExpr:
    items: tuple[Arg, ...]
    pos: Pos


@node
class Comprehension:
    element: Expr
    variable: str
    iterable: Expr
    condition: Expr | None
    pos: Pos


@node
class Spread:
    """``*xs`` among arguments."""

    value: Expr
    pos: Pos


@node
class Optional:
    """``b?`` among arguments: absent where ``b`` is."""

    id: str
    pos: Pos


@node
class Keyword:
    """``name = value`` among arguments."""

    name: str
    value: Expr
    pos: Pos


@node
class AttrValue:
    """``name = value`` in the attribute list of an operator that is built."""

    name: str
    value: Expr
    pos: Pos


@node
class AttrSpread:
    """``..name``: in a pattern, binds all other attributes; in a result, gives them."""

    id: str
    pos: Pos


@node
class Call:
    """A function or an operator, which of the two the checker decides. ``attrs`` None: no ``{…}`` was written."""

    callee: str
    args: tuple[Arg, ...]
    attrs: tuple[AttrValue | AttrSpread, ...] | None
    regions: tuple[str | Region, ...]
    pos: Pos


@node
class Region:
    """``{ a = …  b = … }`` behind ``with``: a region written out; the last statement's results leave it."""

    statements: tuple[BuildStmt, ...]
    pos: Pos


Expr = Name | Literal | Unary | Binary | Conditional | Index | Member | ListExpr | Comprehension | Call
Arg = Expr | Spread | Optional | Keyword


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
