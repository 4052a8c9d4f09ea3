"""What the names in a rule mean, and what is wrong with it.

Resolution turns each variant of a rule (see :mod:`expand`) into one in which every operator is qualified and known,
every name has a kind, and every call is either an operator or a function. All findings are collected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from compiler.ir import DTYPES, OpDef, suggest
from compiler.rewrite import syntax as s
from compiler.rewrite.expand import Expander
from compiler.rewrite.functions import DTYPE_CLASSES
from compiler.rewrite.resolve_names import CLONE, Binding, Variant
from compiler.rewrite.resolve_terms import Terms


class Resolver(Terms):
    """Resolves the rules of one file."""

    # ---- rules

    def rule(self, rule: s.Rule) -> list[Variant]:
        """The resolved variants of ``rule``; empty if it has errors, which are in ``diagnostics``."""
        before = self._errors()
        if not rule.stage:
            self.report(rule.name_pos, f"rule '{rule.name}' stands before any 'stage' line; say which stage it joins")
        self.use = rule.use
        plain = Expander(self.env.patterns, self.report).variants(rule)
        resolved = [v for statements in plain if (v := self.variant(rule, statements)) is not None]
        return resolved if self._errors() == before else []

    def definitions_of(self, file: s.RuleFile) -> None:
        """Finds what is wrong with the patterns and functions of a file, whether or not a rule uses them."""
        for fn in file.fns.values():
            self.expr(fn.body, {p: Binding("data") for p in fn.parameters})
        for macro in file.patterns.values():
            self.bindings, self.use = {}, macro.use
            for p in Expander(self.env.patterns, self.report).expand(macro.body, {}, (macro.name,)):
                self.pattern(p)

    def variant(self, rule: s.Rule, statements: tuple[s.MatchStmt, ...]) -> Variant | None:
        self.bindings, self.used = {}, set()
        roots: dict[str, int] = {}
        for i, stmt in enumerate(statements):
            for t in stmt.targets:
                if t.id in roots and t.id != "_":
                    self.report(t.pos, f"'{t.id}' names two results")
                roots[t.id] = i
                self.bind(t.id, Binding("value"), t.pos)
        resolved = tuple(self.statement(stmt) for stmt in statements)
        anchors = self.anchors(resolved)
        known = dict(self.bindings)
        let = []
        for b in rule.let:
            let.append(replace(b, value=self.expr(b.value, known)))
            if b.id in known:
                self.report(b.pos, f"'{b.id}' is already bound; choose another name")
            known[b.id] = Binding("data")
        # A condition may use what `let` computes, wherever the clause stands.
        where = tuple(self.expr(e, known) for e in rule.where)
        required = {t.id for i in anchors for t in statements[i].targets if t.id != "_"}
        every = {t.id for stmt in statements for t in stmt.targets if t.variadic}
        rewrites = tuple(self.rewrite(r, known, set(roots), required, every) for r in rule.rewrites)
        self.unused(rule, known)
        if not anchors:
            self.report(
                rule.name_pos, f"rule '{rule.name}': every matched operator feeds another; no result to replace"
            )
            return None
        if any(r.when is None for r in rule.rewrites[:-1]):
            self.report(rule.rewrites[-1].pos, "never reached: the variant before it has no 'when'")
        return Variant(rule, resolved, where, tuple(let), rewrites, known, anchors)

    def anchors(self, statements: tuple[s.MatchStmt, ...]) -> tuple[int, ...]:
        """The statements whose results no other statement uses: the roots, in order."""
        named = {t.id: i for i, stmt in enumerate(statements) for t in stmt.targets}
        consumed: set[int] = set()
        for i, stmt in enumerate(statements):
            for name in _operand_names(stmt.pattern):
                if name in named:
                    consumed.add(named[name])
                    if named[name] == i:
                        self.report(stmt.pos, f"'{name}' is used to make itself")
        return tuple(i for i in range(len(statements)) if i not in consumed)

    def unused(self, rule: s.Rule, known: Mapping[str, Binding]) -> None:
        if any(r.builder for r in rule.rewrites):
            return  # a builder sees every binding
        targets = {t.id for stmt in rule.match for t in stmt.targets}
        for b in rule.let:
            if b.id not in self.used:
                self.report(b.pos, f"'{b.id}' is computed but never used", "warning", "unused")
        for name, binding in known.items():
            if name in self.used or name in targets or name.startswith("_") or "__" in name:
                continue
            if binding.kind in ("attrs", "region"):
                self.report(rule.name_pos, f"rule '{rule.name}' binds '{name}' and drops it", "warning", "unused")

    # ---- patterns

    def statement(self, stmt: s.MatchStmt) -> s.MatchStmt:
        for t in stmt.targets:
            self.constraint(t.constraint)
        pattern = stmt.pattern
        if not isinstance(pattern, s.OpPattern):
            self.report(pattern.pos, "a statement matches an operator, as in y = Relu(x)")
            return stmt
        resolved = self.op_pattern(pattern)
        for defn in self.definitions(resolved.names):
            most = len(defn.results)
            if len(stmt.targets) > most and not (defn.results and defn.results[-1].arity == "variadic"):
                self.report(stmt.pos, f"{defn.name} has {most} results, {len(stmt.targets)} are named")
        return replace(stmt, pattern=resolved)

    def op_pattern(self, p: s.OpPattern) -> s.OpPattern:
        names = tuple(self.op_name(n, p.pos) for n in p.names)
        defns = self.definitions(names)
        args = tuple(self.operand(a, p, defns) for a in p.args)
        self.arity(p, defns)
        for a in p.attrs:
            self.attribute_pattern(a, defns)
        for r in p.regions:
            self.bind(r, Binding("region"), p.pos)
        for defn in defns:
            if p.regions and len(p.regions) != len(defn.regions):
                self.report(p.pos, f"{defn.name} has {len(defn.regions)} regions, {len(p.regions)} are named")
        return replace(p, names=names, args=args)

    def operand(
        self, a: s.Pattern | s.NamedOperand | s.VariadicPattern, p: s.OpPattern, defns: list[OpDef]
    ) -> s.Pattern | s.NamedOperand | s.VariadicPattern:
        if isinstance(a, s.NamedOperand):
            for defn in defns:
                if defn.operand_index(a.name) is None:
                    known = [o.name for o in defn.operands]
                    self.report(a.pos, f"{defn.name} has no operand '{a.name}'{suggest(a.name, known)}")
                elif defn.operand_index(a.name) != defns[0].operand_index(a.name):
                    self.report(a.pos, f"'{a.name}' is another operand of {defn.name} than of {defns[0].name}")
            return replace(a, pattern=self.pattern(a.pattern))
        if isinstance(a, s.VariadicPattern):
            if a is not p.args[-1]:
                self.report(a.pos, f"*{a.id} must be the last operand")
            self.constraint(a.constraint)
            self.bind(a.id, Binding("values"), a.pos)
            return a
        return self.pattern(a)

    def arity(self, p: s.OpPattern, defns: list[OpDef]) -> None:
        open_end = any(isinstance(a, s.VariadicPattern) for a in p.args)
        positional = [a for a in p.args if not isinstance(a, (s.NamedOperand, s.VariadicPattern))]
        named = [a.name for a in p.args if isinstance(a, s.NamedOperand)]
        for defn in defns:
            least, most = defn.operand_range
            given = len(positional) + len(named)
            if most is not None and given > most:
                self.report(p.pos, f"{defn.name} takes at most {most} operands, the pattern has {given}", code="arity")
            missing = [
                o.name
                for o in defn.operands[len(positional) : least]
                if o.name not in named and o.arity == "required" and not open_end
            ]
            if missing:
                self.report(
                    p.pos, f"{defn.name} needs operand '{missing[0]}', which the pattern leaves out", code="arity"
                )

    def pattern(self, p: s.Pattern) -> s.Pattern:
        match p:
            case s.ValuePattern(name, optional, constraint, pos):
                self.constraint(constraint)
                self.bind(name, Binding("value", optional, constraint is not None and constraint.const), pos)
                return p
            case s.OpPattern():
                return self.op_pattern(p)
            case _:
                return p

    def constraint(self, c: s.Constraint | None) -> None:
        if c is None:
            return
        for name in c.dtypes or ():
            if name in DTYPES or name in DTYPE_CLASSES:
                continue
            if len(c.dtypes or ()) > 1 or not name[:1].isupper():
                known = [*DTYPES, *DTYPE_CLASSES]
                self.report(c.pos, f"unknown element type '{name}'{suggest(name, known)}", code="unknown-dtype")
                continue
            self.bind(name, Binding("dtype"), c.pos)
        rests = 0
        for d in c.dims or ():
            if d.broadcast and d.value == "_":
                self.report(d.pos, "'~_' says nothing; write '_' for any dimension")
            if d.rest:
                rests += 1
                self.bind(str(d.value), Binding("dims"), d.pos)
            elif isinstance(d.value, str):
                self.bind(d.value, Binding("dim"), d.pos)
        if rests > 1:
            self.report(c.pos, "a shape has at most one *rest")

    def attribute_pattern(self, a: s.AttrPattern | s.AttrSpread, defns: list[OpDef]) -> None:
        if isinstance(a, s.AttrSpread):
            self.bind(a.id, Binding("attrs"), a.pos)
            return
        self.attribute_name(a.name, a.pos, defns)
        for c in a.choices:
            match c.kind:
                case "bind" if c.value in DTYPES or c.value in ("true", "false"):
                    pass  # a literal: the grammar cannot tell it from a name
                case "bind":
                    self.bind(c.value, Binding("data"), c.pos)
                case "optional":
                    self.bind(c.value, Binding("data", optional=True), c.pos)
                case "default":
                    self.bind(c.value[0], Binding("data"), c.pos)
                case _:
                    pass

    # ---- results

    def rewrite(
        self, r: s.Rewrite, known: Mapping[str, Binding], targets: set[str], required: set[str], every: set[str]
    ) -> s.Rewrite:
        when = self.expr(r.when, known) if r.when is not None else None
        if r.builder is not None:
            return replace(r, when=when)
        scope = dict(known)
        assigned: set[str] = set()
        statements = []
        for stmt in r.statements:
            self.all_results(stmt, every)
            for name in sorted((required - assigned) & _built_from(stmt.value)):
                self.report(stmt.pos, f"'{name}' is what the rewrite replaces; it cannot be built from itself")
            value = self.expr(stmt.value, scope, building=True)
            for t in stmt.targets:
                if t.id in assigned:
                    self.report(t.pos, f"'{t.id}' is given twice")
                if t.id in known and t.id not in targets:
                    self.report(t.pos, f"'{t.id}' is an input of the match; only its results can be replaced")
                assigned.add(t.id)
                scope[t.id] = Binding("value")
            if len(stmt.targets) > 1 and not isinstance(value, s.Call):
                self.report(stmt.pos, "several results come from one operator")
            statements.append(replace(stmt, value=value))
        for name in sorted(required - assigned):
            self.report(r.pos, f"the rewrite gives no '{name}', which the match names as a result", code="no-result")
        return replace(r, when=when, statements=tuple(statements))


def _built_from(e: s.Arg) -> set[str]:
    """The names that become operands of what an expression builds; facts such as ``dim(y, 0)`` may be of any value."""
    match e:
        case s.Name(name, _) | s.Optional(name, _):
            return {name}
        case s.Call(callee, args, _, _, _) if callee == CLONE or "." in callee or callee[:1].isupper():
            regions = [stmt.value for r in e.regions if isinstance(r, s.Region) for stmt in r.statements]
            return set().union(*map(_built_from, (*(args[1:] if callee == CLONE else args), *regions)))
        case s.Spread(value, _) | s.Keyword(_, value, _):
            return _built_from(value)
        case s.Conditional():
            return _built_from(e.then) | _built_from(e.otherwise)
        case s.ListExpr(items, _):
            return set().union(*map(_built_from, items))
        case s.Comprehension():
            return _built_from(e.element) | _built_from(e.iterable)
        case s.Index():
            return _built_from(e.base)
        case _:
            return set()


def _operand_names(p: s.Pattern) -> Iterable[str]:
    if isinstance(p, s.ValuePattern):
        yield p.id
    elif isinstance(p, s.OpPattern):
        for a in p.args:
            if isinstance(a, s.VariadicPattern):
                continue
            yield from _operand_names(a.pattern if isinstance(a, s.NamedOperand) else a)
