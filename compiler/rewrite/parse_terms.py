"""Expressions, constraints, and what rules build from them: lark's tree → syntax tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lark import Token, Tree

from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.parse_tree import child, find, number, position, span, trees, unquote

#: Binding strength of the binary operators, loosest first; all associate to the left but ``**`` and ``??``.
PRECEDENCE: dict[str, int] = {
    op: level
    for level, ops in enumerate(
        (
            ("??",),
            ("or",),
            ("and",),
            ("==", "!=", "<", ">", "<=", ">=", "in", "not in"),
            ("..",),
            ("+", "-"),
            ("*", "/", "div", "%", "@"),
            ("**",),
        )
    )
    for op in ops
}
_RIGHT_ASSOCIATIVE = ("**", "??")
_NOT_LEVEL = PRECEDENCE["and"]
_MINUS_LEVEL = PRECEDENCE["*"]


class _Climber:
    """Precedence climbing over a flat list of operands, prefix and binary operators."""

    def __init__(self, items: list[Any], operand: Callable[[Tree[Token]], s.Expr]) -> None:
        self.items = items
        self.operand = operand
        self.at = 0

    def parse(self, level: int) -> s.Expr:
        left = self.unary()
        while self.at < len(self.items):
            op = " ".join(str(self.items[self.at]).split())
            strength = PRECEDENCE[op]
            if strength < level:
                break
            self.at += 1
            right = self.parse(strength if op in _RIGHT_ASSOCIATIVE else strength + 1)
            left = s.Binary(op, left, right, span(left.pos, right.pos))
        return left

    def unary(self) -> s.Expr:
        item = self.items[self.at]
        self.at += 1
        if not isinstance(item, Token):
            return self.operand(item)
        inner = self.parse(_NOT_LEVEL + 1 if item == "not" else _MINUS_LEVEL + 1)
        if item == "-" and isinstance(inner, s.Literal) and not isinstance(inner.value, str):
            return s.Literal(-inner.value, span(position(item), inner.pos))
        return s.Unary(str(item), inner, span(position(item), inner.pos))


class TermReader:
    """Walks the trees of expressions; one method per kind of node.

    Attributes:
        errors: what the grammar lets through and the language does not.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[Diagnostic] = []

    def error(self, pos: s.Pos, message: str) -> None:
        self.errors.append(Diagnostic(self.path, pos, message, code="syntax"))

    def build(self, t: Tree[Token]) -> tuple[s.BuildStmt, ...]:
        return tuple(s.BuildStmt(self.targets(b), self.expr(child(b, "expr")), position(b)) for b in trees(t))

    def targets(self, statement: Tree[Token]) -> tuple[s.Target, ...]:
        """What stands left of a statement's ``=``."""
        every = find(statement, "all_results")
        if every is not None:
            return (s.Target(str(every.children[1]), None, position(every), variadic=True),)
        t = child(statement, "targets")
        return tuple(s.Target(str(c.children[0]), self.optional_constraint(c), position(c)) for c in trees(t))

    def optional_constraint(self, t: Tree[Token]) -> s.Constraint | None:
        found = find(t, "constraint")
        return self.constraint(found) if found is not None else None

    def constraint(self, t: Tree[Token]) -> s.Constraint:
        dtypes, dims = find(t, "dtypes"), find(t, "dims")
        return s.Constraint(
            const=any(isinstance(c, Token) and c.type == "CONST" for c in t.children),
            dtypes=tuple(str(c) for c in dtypes.children) if dtypes is not None else None,
            dims=tuple(self.dim(c) for c in trees(dims)) if dims is not None else None,
            pos=position(t),
        )

    @staticmethod
    def dim(t: Tree[Token]) -> s.Dim:
        text = str(t.children[-1])
        kind = str(t.data)
        value = int(text) if kind == "dim_size" else text
        return s.Dim(value, kind.startswith("dim_rest"), position(t), kind.endswith("into"))

    def expr(self, t: Tree[Token]) -> s.Expr:
        items = list(t.children)
        conditional = items.pop() if isinstance(items[-1], Tree) and items[-1].data == "conditional" else None
        body = _Climber(items, self.postfix).parse(0)
        if conditional is None:
            return body
        condition, otherwise = (self.expr(c) for c in trees(cast("Tree[Token]", conditional)))
        return s.Conditional(body, condition, otherwise, position(t))

    def postfix(self, t: Tree[Token]) -> s.Expr:
        pos = position(t)
        match t.data:
            case "expr":
                return self.expr(t)
            case "number":
                return s.Literal(number(str(t.children[0])), pos)
            case "string":
                return s.Literal(unquote(str(t.children[0])), pos)
            case "name":
                return s.Name(str(t.children[0]), pos)
            case "index":
                base, subscript = (cast("Tree[Token]", c) for c in t.children)
                return s.Index(self.postfix(base), self.subscript(subscript), pos)
            case "member":
                return s.Member(self.postfix(cast("Tree[Token]", t.children[0])), str(t.children[1]), pos)
            case "list" if len(t.children) == 1 and trees(t)[0].data == "comprehension":
                return cast("s.Comprehension", self.arg(trees(t)[0]))
            case "list":
                return s.ListExpr(tuple(self.arg(c) for c in trees(t)), pos)
            case _:
                attrs, regions = find(t, "attrs"), find(t, "given_regions")
                return s.Call(
                    callee=str(t.children[0]),
                    args=tuple(self.arg(c) for c in trees(t) if c.data not in ("attrs", "given_regions")),
                    attrs=tuple(self.attr(a) for a in trees(attrs)) if attrs is not None else None,
                    regions=tuple(self.region(c) for c in trees(regions)) if regions is not None else (),
                    pos=pos,
                )

    def region(self, t: Tree[Token]) -> str | s.Region:
        if t.data == "region_name":
            return str(t.children[0])
        statements = self.build(t)
        if not statements:
            self.error(position(t), "an empty region gives nothing; its last statement names what leaves it")
        return s.Region(statements, position(t))

    def subscript(self, t: Tree[Token]) -> s.Expr | s.Slice:
        if t.data == "expr":
            return self.expr(t)
        start, stop = find(t, "slice_from"), find(t, "slice_to")
        return s.Slice(
            self.expr(child(start, "expr")) if start is not None else None,
            self.expr(child(stop, "expr")) if stop is not None else None,
            position(t),
        )

    def arg(self, t: Tree[Token]) -> s.Arg:
        pos = position(t)
        match t.data:
            case "optional_arg":
                return s.Optional(str(t.children[0]), pos)
            case "keyword_arg":
                return s.Keyword(str(t.children[0]), self.expr(child(t, "expr")), pos)
            case "spread_arg":
                return s.Spread(self.expr(child(t, "expr")), pos)
            case "comprehension":
                parts = [self.expr(c) for c in trees(t)]
                condition = parts[2] if len(parts) > 2 else None
                variable = next(str(c) for c in t.children if isinstance(c, Token))
                return s.Comprehension(parts[0], variable, parts[1], condition, pos)
            case _:
                return self.expr(t)

    def attr(self, t: Tree[Token]) -> s.AttrValue | s.AttrSpread:
        if t.data == "attr_spread":
            return s.AttrSpread(str(t.children[0]), position(t))
        return s.AttrValue(str(t.children[0]), self.expr(child(t, "expr")), position(t))
