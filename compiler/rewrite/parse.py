"""Text of a rule file → syntax tree."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import Diagnostic, RuleError

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

#: How the terminals are called in messages.
_TERMINALS = {
    "NAME": "a name",
    "CALLNAME": "an operator or function",
    "DOTTED": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "SIGNED": "a number",
    "INT": "a size",
    "BINARY": "an operator sign",
    "EQUAL": "'='",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "COLON": "':'",
    "$END": "the end of the file",
}


#: Patterns and expressions nest no deeper: Python itself refuses an expression in 200 parentheses.
_MOST_NESTED = 64
_TOO_DEEP = f"this is nested more than {_MOST_NESTED} deep; name parts of it"


@functools.cache
def _parser() -> Lark:
    return Lark(
        s.GRAMMAR.read_text(encoding="utf-8"), parser="lalr", propagate_positions=True, maybe_placeholders=False
    )


def parse(source: str, path: str = "<rules>") -> s.RuleFile:
    """The syntax tree of a rule file.

    Raises:
        RuleError: the text does not follow the grammar; one diagnostic with what was expected.
    """
    try:
        return _Reader(path, source).file(_parser().parse(source))
    except UnexpectedInput as e:
        raise RuleError([_syntax_error(e, source, path)], {path: source}) from None
    except RecursionError:
        raise RuleError([Diagnostic(path, s.Pos(1, 1, 1, 2), _TOO_DEEP, code="syntax")], {path: source}) from None


def _syntax_error(e: UnexpectedInput, source: str, path: str) -> Diagnostic:
    lines = source.splitlines() or [""]
    if isinstance(e, UnexpectedEOF) or (isinstance(e, UnexpectedToken) and e.token.type == "$END"):
        pos = s.Pos(len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2)
        unclosed = _unclosed(source)
        if unclosed is not None:
            message = f"the file ends too early; this '{source[unclosed]}' is not closed"
            line, column = source.count("\n", 0, unclosed) + 1, unclosed - source.rfind("\n", 0, unclosed)
            return Diagnostic(path, s.Pos(line, column, line, column + 1), message, code="syntax")
        expected = getattr(e, "expected", ())
        return Diagnostic(path, pos, f"the file ends too early; expected {_expected(expected)}", code="syntax")
    line, column = max(e.line, 1), max(e.column, 1)
    if isinstance(e, UnexpectedCharacters):
        found, width, expected = repr(e.char), 1, e.allowed or ()
    else:
        token = cast("UnexpectedToken", e).token
        found, width, expected = f"'{token}'", len(token), cast("UnexpectedToken", e).expected
    message = f"unexpected {found}; expected {_expected(expected)}"
    return Diagnostic(path, s.Pos(line, column, line, column + width), message, code="syntax")


def _unclosed(source: str) -> int | None:
    """The offset of the innermost bracket that is open at the end of a text."""
    opened: list[int] = []
    for m in re.finditer(r'//[^\n]*|"(?:[^"\\\n]|\\.)*"|[(){}\[\]]', source):
        if m[0] in ("(", "{", "["):
            opened.append(m.start())
        elif m[0] in (")", "}", "]") and opened:
            opened.pop()
    return opened[-1] if opened else None


def _expected(terminals: Iterable[str]) -> str:
    words = {_TERMINALS.get(t, f"'{t.lower()}'") for t in terminals if not t.startswith("__")}
    listed = sorted(words)
    if len(listed) > 6:
        listed = [*listed[:6], "…"]
    return " or ".join(listed) if listed else "something else"


def _pos(node: Tree[Token] | Token) -> s.Pos:
    if isinstance(node, Token):
        line, column = node.line or 1, node.column or 1
        return s.Pos(line, column, node.end_line or line, node.end_column or column + 1)
    meta = node.meta
    if meta.empty:
        return s.Pos(1, 1, 1, 1)
    return s.Pos(meta.line, meta.column, meta.end_line, meta.end_column)


def number(text: str) -> int | float:
    """The value of a numeric token; integers stay integers."""
    if text.lstrip("+-") in ("inf", "nan"):
        return float(text)
    return float(text) if any(c in text for c in ".eE") else int(text)


_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def unquote(token: str) -> str:
    """The text inside a string token."""
    out, chars = "", iter(token[1:-1])
    for c in chars:
        if c == "\\":
            c = next(chars, "")
            c = _ESCAPES.get(c, "\\" + c)
        out += c
    return out


class _Reader:
    """Walks lark's tree; one method per kind of node."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.out = s.RuleFile(path, source)
        self.stage = ""
        self.use: tuple[str, ...] = ()
        self.errors: list[Diagnostic] = []

    def error(self, pos: s.Pos, message: str) -> None:
        self.errors.append(Diagnostic(self.path, pos, message, code="syntax"))

    def file(self, tree: Tree[Token]) -> s.RuleFile:
        for item in _trees(tree):
            getattr(self, f"_item_{item.data}")(item)
        for part in (*self.out.rules, *self.out.fns.values(), *self.out.patterns.values()):
            deep = _too_deep(part)
            if deep is not None:
                self.error(deep, _TOO_DEEP)
        if self.errors:
            raise RuleError(self.errors, {self.path: self.out.source})
        return self.out

    # ---- items

    def _item_stage(self, t: Tree[Token]) -> None:
        self.stage = str(t.children[0])

    def _item_use(self, t: Tree[Token]) -> None:
        self.use = tuple(str(c) for c in t.children)

    def _item_pattern_def(self, t: Tree[Token]) -> None:
        name = str(t.children[0])
        if name in self.out.patterns:
            self.error(_pos(t), f"pattern '{name}' is defined twice")
        body = self.pattern(_child(t, "pattern"))
        self.out.patterns[name] = s.PatternDef(name, self.names(t), body, self.use, _pos(t))

    def _item_fn(self, t: Tree[Token]) -> None:
        name = str(t.children[0])
        if name in self.out.fns:
            self.error(_pos(t), f"fn '{name}' is defined twice")
        self.out.fns[name] = s.FnDef(name, self.names(t), self.expr(_child(t, "expr")), _pos(t))

    def _item_extern(self, t: Tree[Token]) -> None:
        name, module = str(t.children[0]), str(t.children[1])
        self.out.externs[name] = s.Extern(name, module, _pos(t))

    def names(self, t: Tree[Token]) -> tuple[str, ...]:
        found = _find(t, "names")
        return tuple(str(c) for c in found.children) if found is not None else ()

    def _item_rule(self, t: Tree[Token]) -> None:
        name = cast("Token", t.children[0])
        doc = next((unquote(c) for c in t.children if isinstance(c, Token) and c.type == "STRING"), "")
        clauses: dict[str, list[Tree[Token]]] = {}
        for c in _trees(t):
            clauses.setdefault(c.data, []).append(c)
        for once in ("match", "numeric"):
            for extra in clauses.get(once, [])[1:]:
                self.error(_pos(extra), f"rule '{name}' has more than one '{once}' clause")
        if "match" not in clauses:
            self.error(_pos(name), f"rule '{name}' has no 'match' clause")
        rewrites = [c for c in _trees(t) if c.data in ("rewrite", "otherwise", "rewrite_by")]
        if not rewrites:
            self.error(_pos(name), f"rule '{name}' has no 'rewrite' clause")
        if rewrites and rewrites[0].data == "otherwise":
            self.error(_pos(rewrites[0]), f"rule '{name}': 'else' without a 'rewrite' before it")
        self.out.rules.append(
            s.Rule(
                name=str(name),
                doc=doc,
                stage=self.stage,
                use=self.use,
                match=tuple(self.match_stmt(m) for c in clauses.get("match", [])[:1] for m in _trees(c)),
                where=tuple(self.expr(e) for c in clauses.get("where", []) for e in _trees(c) if e.data == "expr"),
                let=tuple(
                    s.LetStmt(str(b.children[0]), self.expr(_child(b, "expr")), _pos(b))
                    for c in clauses.get("let", [])
                    for b in _trees(c)
                ),
                rewrites=tuple(self.rewrite(c) for c in rewrites),
                numeric=self.numeric(clauses["numeric"][0]) if "numeric" in clauses else s.Numeric(),
                before=tuple(n for c in clauses.get("before", []) for n in self.names(c)),
                after=tuple(n for c in clauses.get("after", []) for n in self.names(c)),
                examples=tuple(self.givens(_child(c, "givens")) for c in clauses.get("example", [])),
                tests=tuple(self.test(c) for c in clauses.get("test", [])),
                pos=_pos(t),
                name_pos=_pos(name),
                file=self.path,
            )
        )

    def numeric(self, t: Tree[Token]) -> s.Numeric:
        contract = str(t.children[0])
        rtol = float(t.children[1]) if len(t.children) > 1 else None  # type: ignore[arg-type]
        if contract not in ("exact", "rounding", "approximate"):
            self.error(_pos(t), f"unknown contract '{contract}'; expected exact, rounding or approximate(rtol)")
        if (contract == "approximate") != (rtol is not None):
            self.error(_pos(t), "approximate takes a relative tolerance, as in approximate(1e-3); the others take none")
        return s.Numeric(contract, rtol)

    def rewrite(self, t: Tree[Token]) -> s.Rewrite:
        if t.data == "rewrite_by":
            return s.Rewrite(None, (), str(t.children[0]), _pos(t))
        when = _find(t, "when")
        condition = self.expr(_child(when, "cexpr")) if when is not None else None
        return s.Rewrite(condition, self.build(_child(t, "build")), None, _pos(t))

    def build(self, t: Tree[Token]) -> tuple[s.BuildStmt, ...]:
        return tuple(
            s.BuildStmt(self.targets(_child(b, "targets")), self.expr(_child(b, "expr")), _pos(b)) for b in _trees(t)
        )

    def givens(self, t: Tree[Token]) -> tuple[s.Given, ...]:
        out = []
        for g in _trees(t):
            name = str(g.children[0])
            if g.data == "given_value":
                out.append(s.Given(name, self.constraint(_child(g, "constraint")), None, _pos(g)))
            elif g.data == "given_data":
                out.append(s.Given(name, None, self.expr(_child(g, "expr")), _pos(g)))
        return tuple(out)

    def test(self, t: Tree[Token]) -> s.Test:
        doc = next((unquote(c) for c in t.children if isinstance(c, Token)), "")
        givens = _find(t, "givens")
        outcome = cast("Tree[Token]", t.children[-1])
        became = outcome.data == "becomes"
        return s.Test(
            doc=doc,
            givens=self.givens(givens) if givens is not None else (),
            before=self.build(_child(t, "build")),
            after=self.build(_child(outcome, "build")) if became else None,
            because=unquote(str(outcome.children[0])) if not became and outcome.children else "",
            pos=_pos(t),
        )

    # ---- patterns

    def targets(self, t: Tree[Token]) -> tuple[s.Target, ...]:
        return tuple(s.Target(str(c.children[0]), self.optional_constraint(c), _pos(c)) for c in _trees(t))

    def match_stmt(self, t: Tree[Token]) -> s.MatchStmt:
        every = _find(t, "all_results")
        if every is not None:
            targets: tuple[s.Target, ...] = (s.Target(str(every.children[1]), None, _pos(every), variadic=True),)
        else:
            targets = self.targets(_child(t, "targets"))
        return s.MatchStmt(targets, self.pattern(_child(t, "pattern")), _pos(t))

    def pattern(self, t: Tree[Token]) -> s.Pattern:
        choices = tuple(self.one_pattern(c) for c in _trees(t))
        return choices[0] if len(choices) == 1 else s.Alternatives(choices, _pos(t))

    def one_pattern(self, t: Tree[Token]) -> s.Pattern:
        pos = _pos(t)
        if t.data == "pattern":
            return self.pattern(t)
        if t.data == "value_pattern":
            optional = any(isinstance(c, Token) and c.type == "OPTIONAL" for c in t.children)
            default = _find(t, "operand_default")
            absent = self.const(_trees(default)[0]) if default is not None else None
            constraint = self.optional_constraint(t)
            return s.ValuePattern(str(t.children[0]), optional or default is not None, constraint, pos, absent)
        if t.data == "literal_pattern":
            value = next(number(c) for c in t.children if isinstance(c, Token) and c.type == "SIGNED")
            return s.LiteralPattern(value, self.tolerance(t), pos)
        if t.data == "list_pattern":
            return s.ListPattern(tuple(number(str(c)) for c in t.children), pos)
        regions = _find(t, "regions")
        if _is_ordered(t):
            return self.ordered(t)
        return s.OpPattern(
            names=tuple(str(c) for c in _child(t, "op_names").children),
            args=tuple(self.operand(c) for c in _trees(t) if c.data in ("pattern", "named_arg", "variadic")),
            attrs=self.attr_patterns(_find(t, "pattrs")),
            regions=tuple(str(c) for c in regions.children) if regions is not None else (),
            pos=pos,
        )

    def ordered(self, t: Tree[Token]) -> s.Pattern:
        inner = self.pattern(_child(t, "pattern"))
        choices = inner.choices if isinstance(inner, s.Alternatives) else (inner,)
        if not all(isinstance(c, s.OpPattern) for c in choices):
            self.error(_pos(t), "ordered(…) takes an operator, as in ordered(Add(x, k))")
            return inner
        fixed = tuple(replace(cast("s.OpPattern", c), ordered=True) for c in choices)
        return fixed[0] if len(fixed) == 1 else s.Alternatives(fixed, _pos(t))

    def tolerance(self, t: Tree[Token]) -> float | None:
        tokens = [c for c in t.children if isinstance(c, Token)]
        if tokens[0].type != "APPROX":
            if tokens[-1].type == "NUMBER":
                self.error(_pos(t), "a tolerance needs '≈' before the number")
            return None
        return float(tokens[-1]) if tokens[-1].type == "NUMBER" else DEFAULT_TOLERANCE

    def operand(self, t: Tree[Token]) -> s.Pattern | s.NamedOperand | s.VariadicPattern:
        if t.data == "named_arg":
            return s.NamedOperand(str(t.children[0]), self.pattern(_child(t, "pattern")), _pos(t))
        if t.data == "variadic":
            return s.VariadicPattern(str(t.children[1]), self.optional_constraint(t), _pos(t))
        return self.pattern(t)

    def optional_constraint(self, t: Tree[Token]) -> s.Constraint | None:
        found = _find(t, "constraint")
        return self.constraint(found) if found is not None else None

    def constraint(self, t: Tree[Token]) -> s.Constraint:
        dtypes, dims = _find(t, "dtypes"), _find(t, "dims")
        return s.Constraint(
            const=any(isinstance(c, Token) and c.type == "CONST" for c in t.children),
            dtypes=tuple(str(c) for c in dtypes.children) if dtypes is not None else None,
            dims=tuple(self.dim(c) for c in _trees(dims)) if dims is not None else None,
            pos=_pos(t),
        )

    @staticmethod
    def dim(t: Tree[Token]) -> s.Dim:
        text = str(t.children[-1])
        kind = str(t.data)
        value = int(text) if kind == "dim_size" else text
        return s.Dim(value, kind.startswith("dim_rest"), _pos(t), kind.endswith("into"))

    def attr_patterns(self, t: Tree[Token] | None) -> tuple[s.AttrPattern | s.AttrSpread, ...]:
        out: list[s.AttrPattern | s.AttrSpread] = []
        for a in _trees(t) if t is not None else ():
            if a.data == "attr_spread":
                out.append(s.AttrSpread(str(a.children[0]), _pos(a)))
            else:
                out.append(s.AttrPattern(str(a.children[0]), tuple(self.attr_choice(c) for c in _trees(a)), _pos(a)))
        return tuple(out)

    def attr_choice(self, t: Tree[Token]) -> s.AttrChoice:
        kind, first = str(t.data).removeprefix("attr_"), t.children[0]
        if kind == "name":
            return s.AttrChoice("bind", str(first), _pos(t))
        if kind == "optional":
            return s.AttrChoice("optional", str(first), _pos(t))
        if kind == "default":
            return s.AttrChoice("default", (str(first), self.const(cast("Tree[Token]", t.children[-1]))), _pos(t))
        if kind == "approx":
            value = number(str(t.children[1]))
            return s.AttrChoice("approx", (value, self.tolerance(t)), _pos(t))
        return s.AttrChoice("literal", self.const(cast("Tree[Token]", first)), _pos(t))

    def const(self, t: Tree[Token]) -> Any:
        if t.data == "const_list":
            return tuple(self.const(c) for c in _trees(t))
        text = str(t.children[0])
        return unquote(text) if t.data == "const_string" else number(text)

    # ---- expressions

    def expr(self, t: Tree[Token]) -> s.Expr:
        items = list(t.children)
        conditional = items.pop() if isinstance(items[-1], Tree) and items[-1].data == "conditional" else None
        body = _Climber(items, self.postfix).parse(0)
        if conditional is None:
            return body
        condition, otherwise = (self.expr(c) for c in _trees(cast("Tree[Token]", conditional)))
        return s.Conditional(body, condition, otherwise, _pos(t))

    def postfix(self, t: Tree[Token]) -> s.Expr:
        pos = _pos(t)
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
            case "list" if len(t.children) == 1 and _trees(t)[0].data == "comprehension":
                return cast("s.Comprehension", self.arg(_trees(t)[0]))
            case "list":
                return s.ListExpr(tuple(self.arg(c) for c in _trees(t)), pos)
            case _:
                attrs, regions = _find(t, "attrs"), _find(t, "given_regions")
                return s.Call(
                    callee=str(t.children[0]),
                    args=tuple(self.arg(c) for c in _trees(t) if c.data not in ("attrs", "given_regions")),
                    attrs=tuple(self.attr(a) for a in _trees(attrs)) if attrs is not None else None,
                    regions=tuple(self.region(c) for c in _trees(regions)) if regions is not None else (),
                    pos=pos,
                )

    def region(self, t: Tree[Token]) -> str | s.Region:
        if t.data == "region_name":
            return str(t.children[0])
        statements = self.build(t)
        if not statements:
            self.error(_pos(t), "an empty region gives nothing; its last statement names what leaves it")
        return s.Region(statements, _pos(t))

    def subscript(self, t: Tree[Token]) -> s.Expr | s.Slice:
        if t.data == "expr":
            return self.expr(t)
        start, stop = _find(t, "slice_from"), _find(t, "slice_to")
        return s.Slice(
            self.expr(_child(start, "expr")) if start is not None else None,
            self.expr(_child(stop, "expr")) if stop is not None else None,
            _pos(t),
        )

    def arg(self, t: Tree[Token]) -> s.Arg:
        pos = _pos(t)
        match t.data:
            case "optional_arg":
                return s.Optional(str(t.children[0]), pos)
            case "keyword_arg":
                return s.Keyword(str(t.children[0]), self.expr(_child(t, "expr")), pos)
            case "spread_arg":
                return s.Spread(self.expr(_child(t, "expr")), pos)
            case "comprehension":
                parts = [self.expr(c) for c in _trees(t)]
                condition = parts[2] if len(parts) > 2 else None
                variable = next(str(c) for c in t.children if isinstance(c, Token))
                return s.Comprehension(parts[0], variable, parts[1], condition, pos)
            case _:
                return self.expr(t)

    def attr(self, t: Tree[Token]) -> s.AttrValue | s.AttrSpread:
        if t.data == "attr_spread":
            return s.AttrSpread(str(t.children[0]), _pos(t))
        return s.AttrValue(str(t.children[0]), self.expr(_child(t, "expr")), _pos(t))


#: Relative tolerance of ``≈``: wide enough for a constant that went through half precision, 2^-11 of itself.
DEFAULT_TOLERANCE = 5e-4


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
            left = s.Binary(op, left, right, _span(left.pos, right.pos))
        return left

    def unary(self) -> s.Expr:
        item = self.items[self.at]
        self.at += 1
        if not isinstance(item, Token):
            return self.operand(item)
        inner = self.parse(_NOT_LEVEL + 1 if item == "not" else _MINUS_LEVEL + 1)
        if item == "-" and isinstance(inner, s.Literal) and not isinstance(inner.value, str):
            return s.Literal(-inner.value, _span(_pos(item), inner.pos))
        return s.Unary(str(item), inner, _span(_pos(item), inner.pos))


def _too_deep(part: Any) -> s.Pos | None:
    """Where something in a rule or definition is nested deeper than is allowed."""
    todo: list[tuple[Any, int]] = [(part, 0)]
    while todo:
        node, depth = todo.pop()
        if isinstance(node, tuple):
            if not isinstance(node, s.Pos):
                todo.extend((x, depth) for x in node)
            continue
        fields = getattr(node, "__dataclass_fields__", None)
        if fields is None:
            continue
        if depth > _MOST_NESTED:
            return cast("s.Pos", node.pos)
        todo.extend((getattr(node, f), depth + 1) for f in fields)
    return None


def _is_ordered(t: Tree[Token]) -> bool:
    """Whether an operator pattern is the wrapper ``ordered(…)``."""
    inner = [c for c in _trees(t) if c.data not in ("op_names",)]
    names = _child(t, "op_names").children
    return len(names) == 1 and names[0] == "ordered" and len(inner) == 1 and inner[0].data == "pattern"


def _span(a: s.Pos, b: s.Pos) -> s.Pos:
    return s.Pos(a.line, a.column, b.end_line, b.end_column)


def _trees(t: Tree[Token]) -> list[Tree[Token]]:
    return [c for c in t.children if isinstance(c, Tree)]


def _find(t: Tree[Token], data: str) -> Tree[Token] | None:
    return next((c for c in _trees(t) if c.data == data), None)


def _child(t: Tree[Token], data: str) -> Tree[Token]:
    found = _find(t, data)
    assert found is not None, f"the grammar promises a {data} in every {t.data}"
    return found
