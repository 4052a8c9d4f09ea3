"""The expressions of rules, resolved: which names they use, which operators and functions they call."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from compiler.ir import DTYPES, OpDef, dialects, suggest
from compiler.rewrite import syntax as s
from compiler.rewrite.functions import CONSTANTS, FUNCTIONS
from compiler.rewrite.resolve_names import CLONE, Binding, Names

_TARGET_MEMBERS = ("unit", "ios", "precision", "supports")


class Terms(Names):
    """Resolves expressions: conditions, what is computed, what is built."""

    def expr(self, e: s.Expr, scope: Mapping[str, Binding], building: bool = False) -> s.Expr:
        match e:
            case s.Name(name, pos):
                if name in scope:
                    self.used.add(name)
                elif name not in CONSTANTS and name not in DTYPES and name != "target":
                    self.report(pos, f"'{name}' is not bound{suggest(name, [*scope, *CONSTANTS])}", code="unbound")
                return e
            case s.Literal():
                return e
            case s.Unary():
                return replace(e, operand=self.expr(e.operand, scope))
            case s.Binary():
                return replace(e, left=self.expr(e.left, scope), right=self.expr(e.right, scope))
            case s.Conditional():
                return replace(
                    e,
                    then=self.expr(e.then, scope, building),
                    condition=self.expr(e.condition, scope),
                    otherwise=self.expr(e.otherwise, scope, building),
                )
            case s.Index():
                index = e.index
                if isinstance(index, s.Slice):
                    index = replace(
                        index,
                        start=self.expr(index.start, scope) if index.start is not None else None,
                        stop=self.expr(index.stop, scope) if index.stop is not None else None,
                    )
                else:
                    index = self.expr(index, scope)
                return replace(e, base=self.expr(e.base, scope), index=index)
            case s.Member(base, name, pos):
                if not (isinstance(base, s.Name) and base.id == "target"):
                    bound = base.id if isinstance(base, s.Name) and base.id in scope else None
                    attributes = bound is not None and scope[bound].kind == "attrs"
                    how = f"; bind it in the pattern, as in {{{name} = a, ..{bound}}}" if attributes else ""
                    self.report(pos, f"only 'target' has members; '.{name}' has no meaning here{how}")
                elif name not in _TARGET_MEMBERS:
                    self.report(pos, f"the target has no '{name}'{suggest(name, _TARGET_MEMBERS)}")
                return e
            case s.ListExpr(items, _):
                return replace(e, items=tuple(self.arg(a, scope, building) for a in items))
            case s.Comprehension():
                iterable = self.expr(e.iterable, scope)
                inner = {**scope, e.variable: Binding("value")}
                condition = self.expr(e.condition, inner) if e.condition is not None else None
                return replace(e, iterable=iterable, condition=condition, element=self.expr(e.element, inner, building))
            case s.Call():
                return self.call(e, scope, building)

    def arg(self, a: s.Arg, scope: Mapping[str, Binding], building: bool) -> s.Arg:
        match a:
            case s.Spread():
                return replace(a, value=self.expr(a.value, scope, building))
            case s.Keyword():
                return replace(a, value=self.expr(a.value, scope, building))
            case s.Optional(name, pos):
                if name not in scope:
                    self.report(pos, f"'{name}' is not bound{suggest(name, scope)}", code="unbound")
                self.used.add(name)
                return a
            case _:
                return self.expr(a, scope, building)

    def call(self, e: s.Call, scope: Mapping[str, Binding], building: bool) -> s.Expr:
        if e.callee == "target.supports" and e.attrs is None:
            return replace(e, args=tuple(self.arg(a, scope, False) for a in e.args))
        if "." not in e.callee and e.attrs is None:
            known = FUNCTIONS.get(e.callee)
            if known is not None:
                return self.function(e, scope, known.least, known.most)
            if e.callee in self.env.fns:
                n = len(self.env.fns[e.callee].parameters)
                return self.function(e, scope, n, n)
            if e.callee in self.env.externs:
                return self.function(e, scope, 0, None)
        if e.callee == CLONE:
            return self.operator(e, scope, building, None)
        if not building and "." not in e.callee and not self._is_operator(e.callee):
            names = [*FUNCTIONS, *self.env.fns, *self.env.externs]
            self.report(e.pos, f"unknown function '{e.callee}'{suggest(e.callee, names)}", code="unknown-function")
            return replace(e, args=tuple(self.arg(a, scope, False) for a in e.args))
        name = self.op_name(e.callee, e.pos)
        if not building:
            self.report(e.pos, f"operator {name} cannot be built here, only in 'rewrite'")
        defns = self.definitions((name,))
        return self.operator(replace(e, callee=name), scope, building, defns[0] if defns else None)

    def _is_operator(self, name: str) -> bool:
        return any(bool(self.definitions((f"{d}.{name}",))) for d in self.use if d in dialects())

    def function(self, e: s.Call, scope: Mapping[str, Binding], least: int, most: int | None) -> s.Expr:
        positional = sum(not isinstance(a, s.Keyword) for a in e.args)
        given = len(e.args)
        spread = any(isinstance(a, s.Spread) for a in e.args)
        if not spread and (given < least or (most is not None and positional > most)):
            want = str(least) if least == most else f"{least} to {'any number of' if most is None else most}"
            self.report(e.pos, f"{e.callee} takes {want} arguments, got {given}", code="arity")
        return replace(e, args=tuple(self.arg(a, scope, False) for a in e.args))

    def operator(self, e: s.Call, scope: Mapping[str, Binding], building: bool, defn: OpDef | None) -> s.Expr:
        args = tuple(self.arg(a, scope, building) for a in e.args)
        regions = tuple(self.region(r, e.pos, scope, building) for r in e.regions)
        attrs: list[s.AttrValue | s.AttrSpread] = []
        for a in e.attrs or ():
            if isinstance(a, s.AttrSpread):
                bound = scope.get(a.id)
                if bound is None or bound.kind not in ("attrs", "data"):
                    self.report(a.pos, f"'..{a.id}' needs attributes that the match has bound so")
                self.used.add(a.id)
                attrs.append(a)
            else:
                if defn is not None:
                    self.attribute_name(a.name, a.pos, (defn,))
                attrs.append(replace(a, value=self.expr(a.value, scope)))
        if defn is not None:
            self.operator_arity(e, args, defn)
        return replace(e, args=args, attrs=tuple(attrs) if e.attrs is not None else None, regions=regions)

    def region(self, r: str | s.Region, pos: s.Pos, scope: Mapping[str, Binding], building: bool) -> str | s.Region:
        if isinstance(r, str):
            if r not in scope:
                self.report(pos, f"region '{r}' is not bound{suggest(r, scope)}", code="unbound")
            self.used.add(r)
            return r
        inner = dict(scope)
        statements = []
        for stmt in r.statements:
            self.all_results(stmt)
            statements.append(replace(stmt, value=self.expr(stmt.value, inner, building)))
            for t in stmt.targets:
                if t.id in inner:
                    self.report(t.pos, f"'{t.id}' is already bound outside the region; choose another name")
                inner[t.id] = Binding("value")
        return replace(r, statements=tuple(statements))

    def all_results(self, stmt: s.BuildStmt, matched: Container[str] = ()) -> None:
        """Reports ``*ys = …`` where no statement of the match, whose ``matched`` names stand for all results, says how
        many there are."""
        t = stmt.targets[0]
        if t.variadic and t.id not in matched:
            self.report(t.pos, f"how many results '*{t.id}' has is not known here; name each, as in ({t.id}1, {t.id}2)")

    def operator_arity(self, e: s.Call, args: tuple[s.Arg, ...], defn: OpDef) -> None:
        for a in args:
            if isinstance(a, s.Keyword) and defn.operand_index(a.name) is None:
                known = [o.name for o in defn.operands]
                self.report(a.pos, f"{defn.name} has no operand '{a.name}'{suggest(a.name, known)}")
        least, most = defn.operand_range
        if any(isinstance(a, s.Spread) for a in args):
            return
        if len(args) < least or (most is not None and len(args) > most):
            want = str(least) if least == most else f"{least} to {'any number of' if most is None else most}"
            self.report(e.pos, f"{defn.name} takes {want} operands, got {len(args)}", code="arity")
