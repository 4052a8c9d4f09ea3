"""Expressions of the rule language → Python source.

Compile-time data is computed in *data* mode, where a value of the graph stands for the array it holds; operators are
built in *build* mode, where it stands for itself. Names of the rule become locals prefixed ``v_``, so they collide with
nothing in the generated code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from compiler.ir import DTYPES
from compiler.rewrite import syntax as s
from compiler.rewrite.functions import CONSTANTS, FUNCTIONS, contains, data, differ, equal
from compiler.rewrite.resolve_names import CLONE, Binding, Environment

_PLAIN = {"+", "-", "*", "/", "%", "**", "@", "<", ">", "<=", ">=", "and", "or"}


def local(name: str) -> str:
    """The Python local that holds what ``name`` stands for."""
    return f"v_{name}"


class ExpressionCompiler:
    """Turns resolved expressions into source text, and collects the objects that the text refers to in ``globals``."""

    def __init__(self, env: Environment, externs: Mapping[str, Callable[..., Any]]) -> None:
        self.env = env
        self.externs = externs
        self.globals: dict[str, Any] = {
            "_data": data,
            "_eq": equal,
            "_ne": differ,
            "_in": contains,
            "_list": list,
            "_tuple": tuple,
        }
        self.counter = itertools.count()

    # ---- data mode

    def data(self, e: s.Expr, scope: Mapping[str, Binding]) -> str:
        """Source of the compile-time value of ``e``."""
        match e:
            case s.Name(name, _):
                return self.name(name, scope, raw=False)
            case s.Literal(value, _):
                return repr(value)
            case s.Unary(op, operand, _):
                return f"({op} {self.data(operand, scope)})"
            case s.Binary():
                return self.binary(e, scope)
            case s.Conditional():
                then, test, other = (self.data(x, scope) for x in (e.then, e.condition, e.otherwise))
                return f"({then} if {test} else {other})"
            case s.Index(base, index, _):
                return f"{self.data(base, scope)}[{self.subscript(index, scope)}]"
            case s.Member(_, name, _):
                return f"target.{name}"
            case s.ListExpr(items, _):
                return f"[{', '.join(self.argument(a, scope, raw=False) for a in items)}]"
            case s.Comprehension():
                return self.comprehension(e, scope, raw=False)
            case s.Call():
                return self.call(e, scope)

    def name(self, name: str, scope: Mapping[str, Binding], raw: bool) -> str:
        binding = scope.get(name)
        if binding is not None:
            return local(name) if raw or binding.kind != "value" else f"_data({local(name)})"
        if name in CONSTANTS:
            return self.refer(f"c_{name}", CONSTANTS[name])
        if name in DTYPES:
            return self.refer(f"t_{name}", DTYPES[name])
        return name  # the target

    def refer(self, name: str, value: Any) -> str:
        self.globals[name] = value
        return name

    def binary(self, e: s.Binary, scope: Mapping[str, Binding]) -> str:
        left, right = self.data(e.left, scope), self.data(e.right, scope)
        match e.op:
            case "==":
                return f"_eq({left}, {right})"
            case "!=":
                return f"_ne({left}, {right})"
            case "div":
                return f"({left} // {right})"
            case "in":
                return f"_in({left}, {right})"
            case "not in":
                return f"(not _in({left}, {right}))"
            case "..":
                return f"range({left}, {right} + 1)"
            case "??":
                held = f"_h{next(self.counter)}"
                return f"({held} if ({held} := {left}) is not None else {right})"
            case op if op in _PLAIN:
                return f"({left} {op} {right})"
            case op:
                raise AssertionError(f"the grammar has no operator {op}")

    def subscript(self, index: s.Expr | s.Slice, scope: Mapping[str, Binding]) -> str:
        if isinstance(index, s.Slice):
            start = self.data(index.start, scope) if index.start is not None else ""
            stop = self.data(index.stop, scope) if index.stop is not None else ""
            return f"{start}:{stop}"
        return self.data(index, scope)

    def comprehension(self, e: s.Comprehension, scope: Mapping[str, Binding], raw: bool) -> str:
        inner = {**scope, e.variable: Binding("value")}
        element = self.argument(e.element, inner, raw)
        condition = f" if {self.data(e.condition, inner)}" if e.condition is not None else ""
        return f"[{element} for {local(e.variable)} in {self.argument(e.iterable, scope, True)}{condition}]"

    def call(self, e: s.Call, scope: Mapping[str, Binding]) -> str:
        if e.callee == "target.supports":
            return f"target.supports({', '.join(self.argument(a, scope, False) for a in e.args)})"
        known = FUNCTIONS.get(e.callee)
        if known is not None:
            args = ", ".join(self.argument(a, scope, known.takes_values) for a in e.args)
            return f"{self.refer(f'f_{e.callee}', known.call)}({args})"
        if e.callee in self.env.fns:
            args = ", ".join(self.argument(a, scope, True) for a in e.args)
            return f"{self.function(self.env.fns[e.callee])}({args})"
        args = ", ".join(self.argument(a, scope, self.passes_value(a, scope)) for a in e.args)
        return f"{self.refer(f'x_{e.callee}', self.externs[e.callee])}({args})"

    @staticmethod
    def passes_value(a: s.Arg, scope: Mapping[str, Binding]) -> bool:
        """A Python function gets the array of what is bound as ``const``, and other values as they are."""
        return isinstance(a, s.Name) and a.id in scope and not scope[a.id].const

    def argument(self, a: s.Arg, scope: Mapping[str, Binding], raw: bool) -> str:
        """Source of one argument; ``raw``: values of the graph are passed as they are."""
        match a:
            case s.Spread(value, _):
                return f"*{self.argument(value, scope, raw)}"
            case s.Keyword(name, value, _):
                return f"{name}={self.argument(value, scope, raw)}"
            case s.Optional(name, _):
                return local(name)
            case s.Name(name, _):
                return self.name(name, scope, raw)
            case s.Comprehension() if raw:
                return self.comprehension(a, scope, raw)
            case s.ListExpr(items, _) if raw:
                return f"[{', '.join(self.argument(i, scope, raw) for i in items)}]"
            case s.Index(base, index, _) if raw:
                return f"{self.argument(base, scope, raw)}[{self.subscript(index, scope)}]"
            case _:
                return self.data(a, scope)

    def function(self, fn: s.FnDef) -> str:
        """The Python function for a ``fn`` of the rule language, made when it is first called for."""
        name = f"u_{fn.name}"
        if name not in self.globals:
            self.globals[name] = None  # a fn that calls itself refers to what is defined below
            scope = {p: Binding("value") for p in fn.parameters}
            params = ", ".join(local(p) for p in fn.parameters)
            source = f"def {name}({params}):\n    return {self.data(fn.body, scope)}\n"
            exec(compile(source, f"<fn {fn.name}>", "exec"), self.globals)
        return name

    def region(self, r: str | s.Region, scope: Mapping[str, Binding], dialect: str) -> str:
        """Source of a region: one that the match has bound, or one that is built by a function of its own."""
        if isinstance(r, str):
            return local(r)
        inner = dict(scope)
        steps = []
        for stmt in r.statements:
            made = self.build(stmt.value, inner, len(stmt.targets))
            held = f"_h{next(self.counter)}"
            steps.append(f"({held} := {made})")
            for i, t in enumerate(stmt.targets):
                steps.append(f"({local(t.id)} := {held}{f'[{i}]' if len(stmt.targets) > 1 else ''})")
                inner[t.id] = Binding("value")
        given = ", ".join(local(t.id) for t in r.statements[-1].targets)
        return f"B.region(lambda: ({', '.join(steps)}, ({given},))[-1], {dialect!r})"

    # ---- build mode

    def build(self, e: s.Arg, scope: Mapping[str, Binding], results: int | str = 1, root: str = "None") -> str:
        """Source that makes what ``e`` says with the builder ``B``, and yields the value, the operand or the list.

        Args:
            results: how many results the statement names, or the source of that number.
            root: source of the matched values that the results stand for, or ``None``.
        """
        match e:
            case s.Call() if ("." in e.callee and e.callee != "target.supports") or e.callee == CLONE:
                return self.operator(e, scope, results, root)
            case s.Name(name, _):
                return self.name(name, scope, raw=True)
            case s.Optional(name, _):
                return local(name)
            case s.Spread(value, _):
                return f"*{self.build(value, scope)}"
            case s.ListExpr(items, _):
                return f"[{', '.join(self.build(a, scope) for a in items)}]"
            case s.Comprehension():
                inner = {**scope, e.variable: Binding("value")}
                condition = f" if {self.data(e.condition, inner)}" if e.condition is not None else ""
                iterable = self.argument(e.iterable, scope, True)
                return f"[{self.build(e.element, inner)} for {local(e.variable)} in {iterable}{condition}]"
            case s.Conditional():
                then, other = self.build(e.then, scope), self.build(e.otherwise, scope)
                return f"({then} if {self.data(e.condition, scope)} else {other})"
            case s.Index():
                return self.argument(e, scope, raw=True)
            case s.Keyword():
                raise AssertionError("operands by name are handled with their operator")
            case _:
                return self.data(e, scope)

    def operator(self, e: s.Call, scope: Mapping[str, Binding], results: int | str, root: str) -> str:
        args = list(e.args)
        first = ""
        if e.callee == CLONE:
            first = f"{self.build(args.pop(0), scope)}, "
        positional = [self.build(a, scope) for a in args if not isinstance(a, s.Keyword)]
        named = [f"{a.name!r}: {self.build(a.value, scope)}" for a in args if isinstance(a, s.Keyword)]
        operands = f"[{', '.join(positional)}]"
        attrs = []
        for a in e.attrs or ():
            attrs.append(
                f"**{local(a.id)}" if isinstance(a, s.AttrSpread) else f"{a.name!r}: {self.data(a.value, scope)}"
            )
        dialect = e.callee.partition(".")[0]
        regions = f"[{', '.join(self.region(r, scope, dialect) for r in e.regions)}]" if e.regions else "()"
        callee = first if first else f"{e.callee!r}, "
        method = "B.clone" if first else "B.op"
        tail = f", {{{', '.join(named)}}}" if named else ", None"
        return f"{method}({callee}{operands}, {{{', '.join(attrs)}}}, {results}, {root}, {regions}{tail})"
