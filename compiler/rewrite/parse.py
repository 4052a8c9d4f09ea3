"""Text of a rule file → syntax tree."""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import replace
from typing import Any, cast

import lark
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from compiler.rewrite import syntax as s
from compiler.rewrite.cache import kept
from compiler.rewrite.diagnostics import Diagnostic, RuleError
from compiler.rewrite.parse_errors import syntax_error
from compiler.rewrite.parse_terms import TermReader
from compiler.rewrite.parse_tree import child, find, number, position, trees, unquote

#: Relative tolerance of ``≈``: wide enough for a constant that went through half precision, 2^-11 of itself.
DEFAULT_TOLERANCE = 5e-4

#: Patterns and expressions nest no deeper: Python itself refuses an expression in 200 parentheses.
_MOST_NESTED = 64
_TOO_DEEP = f"this is nested more than {_MOST_NESTED} deep; name parts of it"


@functools.cache
def _parser() -> Lark:
    """The parser of the grammar. Its tables take a third of a second to make, and so are kept."""
    grammar = s.GRAMMAR.read_text(encoding="utf-8")

    def tables() -> bytes:
        out = io.BytesIO()
        Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False).save(out)
        return out.getvalue()

    name = f"grammar-lark{lark.__version__}-{hashlib.sha256(grammar.encode()).hexdigest()[:24]}"
    return Lark.load(io.BytesIO(kept(name, tables)))


def parse(source: str, path: str = "<rules>") -> s.RuleFile:
    """The syntax tree of a rule file.

    Raises:
        RuleError: the text does not follow the grammar; one diagnostic with what was expected.
    """
    try:
        return _Reader(path, source).file(_parser().parse(source))
    except UnexpectedInput as e:
        raise RuleError([syntax_error(e, source, path)], {path: source}) from None
    except RecursionError:
        raise RuleError([Diagnostic(path, s.Pos(1, 1, 1, 2), _TOO_DEEP, code="syntax")], {path: source}) from None


class _Reader(TermReader):
    """Walks lark's tree; one method per kind of node."""

    def __init__(self, path: str, source: str) -> None:
        super().__init__(path)
        self.out = s.RuleFile(path, source)
        self.stage = ""
        self.use: tuple[str, ...] = ()

    def file(self, tree: Tree[Token]) -> s.RuleFile:
        for item in trees(tree):
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
            self.error(position(t), f"pattern '{name}' is defined twice")
        body = self.pattern(child(t, "pattern"))
        self.out.patterns[name] = s.PatternDef(name, self.names(t), body, self.use, position(t))

    def _item_fn(self, t: Tree[Token]) -> None:
        name = str(t.children[0])
        if name in self.out.fns:
            self.error(position(t), f"fn '{name}' is defined twice")
        self.out.fns[name] = s.FnDef(name, self.names(t), self.expr(child(t, "expr")), position(t))

    def _item_extern(self, t: Tree[Token]) -> None:
        name, module = str(t.children[0]), str(t.children[1])
        self.out.externs[name] = s.Extern(name, module, position(t))

    def names(self, t: Tree[Token]) -> tuple[str, ...]:
        found = find(t, "names")
        return tuple(str(c) for c in found.children) if found is not None else ()

    def _item_rule(self, t: Tree[Token]) -> None:
        name = cast("Token", t.children[0])
        doc = next((unquote(c) for c in t.children if isinstance(c, Token) and c.type == "STRING"), "")
        clauses: dict[str, list[Tree[Token]]] = {}
        for c in trees(t):
            clauses.setdefault(c.data, []).append(c)
        for once in ("match", "numeric"):
            for extra in clauses.get(once, [])[1:]:
                self.error(position(extra), f"rule '{name}' has more than one '{once}' clause")
        if "match" not in clauses:
            self.error(position(name), f"rule '{name}' has no 'match' clause")
        rewrites = [c for c in trees(t) if c.data in ("rewrite", "otherwise", "rewrite_by")]
        if not rewrites:
            self.error(position(name), f"rule '{name}' has no 'rewrite' clause")
        if rewrites and rewrites[0].data == "otherwise":
            self.error(position(rewrites[0]), f"rule '{name}': 'else' without a 'rewrite' before it")
        self.out.rules.append(
            s.Rule(
                name=str(name),
                doc=doc,
                stage=self.stage,
                use=self.use,
                match=tuple(self.match_stmt(m) for c in clauses.get("match", [])[:1] for m in trees(c)),
                where=tuple(self.expr(e) for c in clauses.get("where", []) for e in trees(c) if e.data == "expr"),
                let=tuple(
                    s.LetStmt(str(b.children[0]), self.expr(child(b, "expr")), position(b))
                    for c in clauses.get("let", [])
                    for b in trees(c)
                ),
                rewrites=tuple(self.rewrite(c) for c in rewrites),
                numeric=self.numeric(clauses["numeric"][0]) if "numeric" in clauses else s.Numeric(),
                before=tuple(n for c in clauses.get("before", []) for n in self.names(c)),
                after=tuple(n for c in clauses.get("after", []) for n in self.names(c)),
                examples=tuple(self.givens(child(c, "givens")) for c in clauses.get("example", [])),
                tests=tuple(self.test(c) for c in clauses.get("test", [])),
                pos=position(t),
                name_pos=position(name),
                file=self.path,
            )
        )

    def numeric(self, t: Tree[Token]) -> s.Numeric:
        contract = str(t.children[0])
        rtol = float(t.children[1]) if len(t.children) > 1 else None  # type: ignore[arg-type]
        if contract not in ("exact", "rounding", "approximate"):
            self.error(position(t), f"unknown contract '{contract}'; expected exact, rounding or approximate(rtol)")
        if (contract == "approximate") != (rtol is not None):
            self.error(
                position(t), "approximate takes a relative tolerance, as in approximate(1e-3); the others take none"
            )
        return s.Numeric(contract, rtol)

    def rewrite(self, t: Tree[Token]) -> s.Rewrite:
        if t.data == "rewrite_by":
            return s.Rewrite(None, (), str(t.children[0]), position(t))
        when = find(t, "when")
        condition = self.expr(child(when, "cexpr")) if when is not None else None
        return s.Rewrite(condition, self.build(child(t, "build")), None, position(t))

    def givens(self, t: Tree[Token]) -> tuple[s.Given, ...]:
        out = []
        for g in trees(t):
            name = str(g.children[0])
            if g.data == "given_value":
                out.append(s.Given(name, self.constraint(child(g, "constraint")), None, position(g)))
            elif g.data == "given_data":
                out.append(s.Given(name, None, self.expr(child(g, "expr")), position(g)))
        return tuple(out)

    def test(self, t: Tree[Token]) -> s.Test:
        doc = next((unquote(c) for c in t.children if isinstance(c, Token)), "")
        givens = find(t, "givens")
        outcome = cast("Tree[Token]", t.children[-1])
        became = outcome.data == "becomes"
        return s.Test(
            doc=doc,
            givens=self.givens(givens) if givens is not None else (),
            before=self.build(child(t, "build")),
            after=self.build(child(outcome, "build")) if became else None,
            because=unquote(str(outcome.children[0])) if not became and outcome.children else "",
            pos=position(t),
        )

    # ---- patterns

    def match_stmt(self, t: Tree[Token]) -> s.MatchStmt:
        return s.MatchStmt(self.targets(t), self.pattern(child(t, "pattern")), position(t))

    def pattern(self, t: Tree[Token]) -> s.Pattern:
        choices = tuple(self.one_pattern(c) for c in trees(t))
        return choices[0] if len(choices) == 1 else s.Alternatives(choices, position(t))

    def one_pattern(self, t: Tree[Token]) -> s.Pattern:
        pos = position(t)
        if t.data == "pattern":
            return self.pattern(t)
        if t.data == "value_pattern":
            optional = any(isinstance(c, Token) and c.type == "OPTIONAL" for c in t.children)
            default = find(t, "operand_default")
            absent = self.const(trees(default)[0]) if default is not None else None
            constraint = self.optional_constraint(t)
            return s.ValuePattern(str(t.children[0]), optional or default is not None, constraint, pos, absent)
        if t.data == "literal_pattern":
            value = next(number(c) for c in t.children if isinstance(c, Token) and c.type == "SIGNED")
            return s.LiteralPattern(value, self.tolerance(t), pos)
        if t.data == "list_pattern":
            return s.ListPattern(tuple(number(str(c)) for c in t.children), pos)
        regions = find(t, "regions")
        if _is_ordered(t):
            return self.ordered(t)
        return s.OpPattern(
            names=tuple(str(c) for c in child(t, "op_names").children),
            args=tuple(self.operand(c) for c in trees(t) if c.data in ("pattern", "named_arg", "variadic")),
            attrs=self.attr_patterns(find(t, "pattrs")),
            regions=tuple(str(c) for c in regions.children) if regions is not None else (),
            pos=pos,
        )

    def ordered(self, t: Tree[Token]) -> s.Pattern:
        inner = self.pattern(child(t, "pattern"))
        choices = inner.choices if isinstance(inner, s.Alternatives) else (inner,)
        if not all(isinstance(c, s.OpPattern) for c in choices):
            self.error(position(t), "ordered(…) takes an operator, as in ordered(Add(x, k))")
            return inner
        fixed = tuple(replace(cast("s.OpPattern", c), ordered=True) for c in choices)
        return fixed[0] if len(fixed) == 1 else s.Alternatives(fixed, position(t))

    def tolerance(self, t: Tree[Token]) -> float | None:
        tokens = [c for c in t.children if isinstance(c, Token)]
        if tokens[0].type != "APPROX":
            if tokens[-1].type == "NUMBER":
                self.error(position(t), "a tolerance needs '≈' before the number")
            return None
        return float(tokens[-1]) if tokens[-1].type == "NUMBER" else DEFAULT_TOLERANCE

    def operand(self, t: Tree[Token]) -> s.Pattern | s.NamedOperand | s.VariadicPattern:
        if t.data == "named_arg":
            return s.NamedOperand(str(t.children[0]), self.pattern(child(t, "pattern")), position(t))
        if t.data == "variadic":
            return s.VariadicPattern(str(t.children[1]), self.optional_constraint(t), position(t))
        return self.pattern(t)

    def attr_patterns(self, t: Tree[Token] | None) -> tuple[s.AttrPattern | s.AttrSpread, ...]:
        out: list[s.AttrPattern | s.AttrSpread] = []
        for a in trees(t) if t is not None else ():
            if a.data == "attr_spread":
                out.append(s.AttrSpread(str(a.children[0]), position(a)))
            else:
                out.append(s.AttrPattern(str(a.children[0]), tuple(self.attr_choice(c) for c in trees(a)), position(a)))
        return tuple(out)

    def attr_choice(self, t: Tree[Token]) -> s.AttrChoice:
        kind, first = str(t.data).removeprefix("attr_"), t.children[0]
        if kind == "name":
            return s.AttrChoice("bind", str(first), position(t))
        if kind == "optional":
            return s.AttrChoice("optional", str(first), position(t))
        if kind == "default":
            return s.AttrChoice("default", (str(first), self.const(cast("Tree[Token]", t.children[-1]))), position(t))
        if kind == "approx":
            value = number(str(t.children[1]))
            return s.AttrChoice("approx", (value, self.tolerance(t)), position(t))
        return s.AttrChoice("literal", self.const(cast("Tree[Token]", first)), position(t))

    def const(self, t: Tree[Token]) -> Any:
        if t.data == "const_list":
            return tuple(self.const(c) for c in trees(t))
        text = str(t.children[0])
        return unquote(text) if t.data == "const_string" else number(text)


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
    inner = [c for c in trees(t) if c.data not in ("op_names",)]
    names = child(t, "op_names").children
    return len(names) == 1 and names[0] == "ordered" and len(inner) == 1 and inner[0].data == "pattern"
