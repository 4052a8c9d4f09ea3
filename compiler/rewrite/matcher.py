"""Variants of rules → Python functions that match.

The generated function walks from the anchor (the operator that the driver offers) to its operands, and from what is
bound to further roots by way of users: never over the graph. It tests structure first (operator names, which values are
constant, where the same value must recur), then attributes, element types and dimensions, then the contents of
constants, and conditions last. Commutative operands are tried in both orders by a loop, not by cloning the rule.

In the *traced* form the function reports each clause that fails, with what was bound by then: `explain` is built on it,
so that it cannot disagree with the matcher.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from compiler.ir import Op, OpDef, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.expressions import local
from compiler.rewrite.matcher_source import Step, Trace
from compiler.rewrite.matcher_types import TypeTests
from compiler.rewrite.resolve_names import Variant

#: Stands for the number of the chosen rewrite among the locals.
VARIANT = "_variant"

#: A successful match: number of the rewrite, the matched operators (the anchor first), what the rule's names stand for.
Match = tuple[int, tuple[Op, ...], tuple[Any, ...]]


@dataclass(slots=True)
class Matcher:
    """A compiled variant.

    Attributes:
        match: takes the anchor and the target; gives a :data:`Match`, or None.
        names: the names of the rule that a match has values for, in order.
        steps: what the traced form's step numbers mean, in the order in which they are tested.
        trace: where the traced form reports the clauses that fail.
    """

    variant: Variant
    match: Callable[[Op, Any], Match | None]
    names: tuple[str, ...]
    source: str
    steps: list[Step] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)


#: CPython's limit on nested blocks is 20; a matcher with more loops is refused.
_MOST_LOOPS = 16


class MatcherCompiler(TypeTests):
    """Generates the function of one variant."""

    # ---- the function

    def compile(self) -> Matcher:
        v = self.variant
        anchor = v.statements[v.anchors[0]]
        pattern = anchor.pattern
        assert isinstance(pattern, s.OpPattern)
        self.op("op", pattern, v.anchors[0])
        for i in v.anchors[1:]:
            self.another_root(i)
        pending, self.late = self.late, []
        for emit in pending:
            emit()
        for emit in self.broadcast:
            emit()
        self.known_dims()
        for name, value in self.defaults:
            self.emit(f"if {local(name)} is None: {local(name)} = {self.spelled(value)}")
        self.conditions()
        names = tuple(dict.fromkeys([*sorted(self.bound), *(b.id for b in v.let)]))
        values = ", ".join(local(n) for n in names)
        self.emit(f"return {local(VARIANT)}, ({', '.join(self.ops)},), ({values}{',' if values else ''})")
        if self.loops:
            self.lines.append("    return None")
        source = "def match(op, target):\n" + "\n".join(self.lines) + "\n"
        trace = Trace()
        env: dict[str, Any] = {**self.expressions.globals, **self.globals, "_trace": trace}
        exec(compile(source, f"<rule {v.rule.name}>", "exec"), env)
        return Matcher(v, env["match"], names, source, self.steps, trace)

    def conditions(self) -> None:
        v = self.variant
        lets = {b.id for b in v.let}
        early = [w for w in v.where if not lets & s.mentioned(w)]
        late = [w for w in v.where if lets & s.mentioned(w)]
        if not early and not late and not v.let and all(r.when is None for r in v.rewrites):
            self.emit(f"{local(VARIANT)} = 0")
            return
        self.emit("try:")
        self.depth += 1
        for w in early:
            self.clause(w, "where")
        for b in v.let:
            self.clause(b.value, "let")
            self.emit(f"{local(b.id)} = {self.expressions.data(b.value, v.bindings)}")
        for w in late:
            self.clause(w, "where")
        chosen = local(VARIANT)
        if self.traced:
            whens = [r.when.pos for r in v.rewrites if r.when is not None]
            self.at(whens[0] if whens else v.rule.pos, "when")
        for i, r in enumerate(v.rewrites):
            if r.when is None:
                self.emit(f"{'else: ' if i else ''}{chosen} = {i}")
                break
            word = "elif" if i else "if"
            self.emit(f"{word} {self.expressions.data(r.when, v.bindings)}: {chosen} = {i}")
        else:
            if self.traced:
                self.emit(f"else: _trace(_at, locals()); {self.fail()}")
            else:
                self.emit(f"else: {self.fail()}")
        self.depth -= 1
        self.emit("except (_Decline, FloatingPointError) as _why:")
        if self.traced:
            self.emit("    _trace(_at, locals())")
        self.emit(f"    {self.fail()}")

    def clause(self, e: s.Expr, text: str) -> None:
        """Emits the test of a condition; of what ``let`` computes, only where it is written."""
        if self.traced:
            self.at(e.pos, text)
        if text == "let":
            return
        condition = self.expressions.data(e, self.variant.bindings)
        self.emit(f"if not ({condition}):")
        if self.traced:
            self.emit("    _trace(_at, locals())")
        self.emit(f"    {self.fail()}")

    def at(self, pos: s.Pos, text: str) -> None:
        """Emits, in the traced form, which clause comes now: what is not known may be asked for anywhere in it."""
        self.steps.append(Step(pos, text))
        self.emit(f"_at = {len(self.steps) - 1}")

    # ---- operators

    def op(self, var: str, p: s.OpPattern, statement: int | None) -> None:
        """Emits the tests of an operator whose name has been tested already; ``var`` holds it."""
        results = 1
        if statement is not None:
            self.matched[statement] = var
            targets = self.variant.statements[statement].targets
            results = len(targets)
            named = max((i for i, t in enumerate(targets) if t.id != "_"), default=0)
            if not targets[0].variadic and any(named >= lookup(n).result_range[0] for n in p.names):
                self.check(f"len({var}.results) > {named}", p.pos, "a result that the pattern names is absent")
            for i, t in enumerate(targets):
                if t.id == "_":
                    continue
                self.emit(f"{local(t.id)} = {var}.results{'' if t.variadic else f'[{i}]'}")
                self.bound.add(t.id)
                if t.constraint is not None:
                    self.late.append(lambda t=t: self.constraint(local(t.id), t.constraint))  # type: ignore[misc]
        defns = [lookup(n) for n in p.names]
        every = statement is not None and self.variant.statements[statement].targets[0].variadic
        if not every and any(
            len(d.results) > results or (d.results and d.results[-1].arity == "variadic") for d in defns
        ):
            self.check(f"_unused({var}, {results})", p.pos, "results that the pattern does not name are used")
        self.operands(var, p, defns)
        for i, r in enumerate(p.regions):
            if r != "_":
                self.emit(f"{local(r)} = {var}.regions[{i}]")
                self.bound.add(r)
        self.late.append(lambda: self.attributes(var, p))

    def operands(self, var: str, p: s.OpPattern, defns: list[OpDef]) -> None:
        placed: dict[int, s.Pattern] = {}
        rest: s.VariadicPattern | None = None
        a: s.Pattern | s.NamedOperand | s.VariadicPattern
        for i, a in enumerate(p.args):
            if isinstance(a, s.VariadicPattern):
                rest = a
            elif isinstance(a, s.NamedOperand):
                index = defns[0].operand_index(a.name)
                assert index is not None, "resolved"
                placed[index] = a.pattern
            else:
                placed[i] = a
        width = max(placed, default=-1) + 1
        ops = self.fresh("o")
        self.emit(f"{ops} = {var}.operands")
        optional = {i for i, a in placed.items() if isinstance(a, s.ValuePattern) and a.optional}
        required = max((i + 1 for i in placed if i not in optional), default=0)
        if rest is not None:
            if required:
                self.check(f"len({ops}) >= {required}", p.pos, "number of operands")
        elif required == width:
            self.check(f"len({ops}) == {width}", p.pos, "number of operands")
        else:
            self.check(f"{required} <= len({ops}) <= {width}", p.pos, "number of operands")
        for gap in range(width):
            if gap not in placed:
                self.check(f"{ops}[{gap}] is None", p.pos, f"operand {gap} must be absent")
        values = {i: f"{ops}[{i}]" if i < required else f"({ops}[{i}] if len({ops}) > {i} else None)" for i in placed}
        if rest is not None:
            self.emit(f"{local(rest.id)} = {ops}[{width}:]")
            self.bound.add(rest.id)
            if rest.constraint is not None:
                self.late.append(lambda: self.variadic_constraint(rest))
        swappable = set(placed) == {0, 1} and all(d.commutative for d in defns) and not optional and not p.ordered
        if swappable and not _interchangeable(placed[0], placed[1]):
            if self.loops >= _MOST_LOOPS:
                raise ValueError("more commutative operators in one rule than the matcher can nest")
            first, second = self.fresh("a"), self.fresh("a")
            self.loop(f"for {first}, {second} in (({ops}[0], {ops}[1]), ({ops}[1], {ops}[0])):")
            values = {0: first, 1: second}
        # Cheap operands first: a nested operator whose name is wrong ends the attempt before anything is bound.
        for i in sorted(placed, key=lambda i: (not isinstance(placed[i], s.OpPattern), i)):
            self.value(values[i], placed[i], var)

    def value(self, source: str, p: s.Pattern, user: str) -> None:
        """Emits the tests of one operand of the operator in ``user``."""
        match p:
            case s.ValuePattern(name, optional, constraint, pos, default):
                self.named_value(source, name, optional, constraint, pos)
                if default is not None and name != "_":
                    self.defaults.append((name, default))
            case s.OpPattern():
                var = self.fresh("v")
                self.emit(f"{var} = {source}")
                self.producer(var, p, None, 0)
            case s.LiteralPattern(number, tolerance, pos):
                var = self.constant(source, pos)
                shown = f"{'≈' if tolerance is not None else ''}{number}"
                number_name = repr(number) if math.isfinite(number) else self.refer(number)
                test = f"_holds({var}, {number_name}, {tolerance!r}) and _shapeless({var}, {user})"
                self.late.append(lambda: self.check(test, pos, f"constant {shown}"))
            case s.ListPattern(values, pos):
                var = self.constant(source, pos)
                self.late.append(lambda: self.check(f"_holds_list({var}, {values!r})", pos, f"constant {list(values)}"))
            case _:
                raise AssertionError("alternatives are expanded before rules are compiled")

    def constant(self, source: str, pos: s.Pos) -> str:
        var = self.fresh("v")
        self.emit(f"{var} = {source}")
        self.check(f"{var} is not None and {var}.constant is not None", pos, "a constant")
        return var

    def named_value(self, source: str, name: str, optional: bool, constraint: s.Constraint | None, pos: s.Pos) -> None:
        if name == "_":
            var = self.fresh("v")
            self.emit(f"{var} = {source}")
            if not optional:
                self.check(f"{var} is not None", pos, "an operand")
        elif name in self.bound:
            self.check(f"{source} is {local(name)}", pos, f"the same value as '{name}'")
            var = local(name)
        else:
            var = local(name)
            self.emit(f"{var} = {source}")
            stmt = self.statement_of.get(name)
            if stmt is not None and stmt not in self.matched:
                pattern = self.variant.statements[stmt].pattern
                assert isinstance(pattern, s.OpPattern)
                targets = [t.id for t in self.variant.statements[stmt].targets]
                self.producer(var, pattern, stmt, targets.index(name))
            else:
                self.bound.add(name)
                if not optional:
                    self.check(f"{var} is not None", pos, f"operand '{name}'")
        if constraint is not None:
            if constraint.const:
                there = f"{var} is None or " if optional else ""
                self.check(f"{there}{var}.constant is not None", pos, f"'{name}' is a constant")
            self.late.append(lambda: self.constraint(var, constraint, optional))

    def producer(self, var: str, p: s.OpPattern, statement: int | None, index: int) -> None:
        """Emits: the value in ``var`` is result ``index`` of an operator like ``p``."""
        made = self.fresh("p")
        self.ops.append(made)
        self.emit(f"{made} = {var}.op if {var} is not None else None")
        self.check(f"{made} is not None and {self.name_test(made, p)}", p.pos, f"made by {' or '.join(p.names)}")
        if any(len(lookup(n).results) > 1 or _open_results(lookup(n)) for n in p.names):
            self.check(f"{var}.index == {index}", p.pos, f"result {index}")
        self.op(made, p, statement)

    def name_test(self, var: str, p: s.OpPattern) -> str:
        if len(p.names) == 1:
            return f"{var}.defn.name == {p.names[0]!r}"
        return f"{var}.defn.name in {self.refer(frozenset(p.names), 'n')}"

    # ---- further roots

    def another_root(self, index: int) -> None:
        """Emits loops from a value that is bound already, through users, to another root."""
        pattern = self.variant.statements[index].pattern
        assert isinstance(pattern, s.OpPattern)
        path = self.path_from_bound(pattern)
        if path is None:
            raise ValueError("a result shares no named operand with the others, so it cannot be found from them")
        start, steps = path
        current = local(start)
        for depth, node in enumerate(steps):
            if self.loops >= _MOST_LOOPS:
                raise ValueError("more loops in one rule than the matcher can nest")
            user = self.fresh("r")
            self.loop(f"for {user} in list({current}.users):")
            self.ops.append(user)
            self.check(self.name_test(user, node), node.pos, f"used by {' or '.join(node.names)}")
            if depth + 1 < len(steps):
                current = f"{user}.results[0]"
        others = " and ".join(f"{user} is not {o}" for o in self.matched.values())
        self.check(f"{others} and {user}.block is op.block", pattern.pos, "another operator of the same block")
        self.op(user, pattern, index)

    def path_from_bound(self, p: s.OpPattern) -> tuple[str, list[s.OpPattern]] | None:
        """A bound name below ``p`` and the patterns from its user up to ``p``."""
        for a in p.args:
            inner = a.pattern if isinstance(a, s.NamedOperand) else a
            if isinstance(inner, s.ValuePattern):
                if inner.id in self.bound:
                    return inner.id, [p]
                stmt = self.statement_of.get(inner.id)
                if stmt is not None and stmt not in self.matched:
                    inner = self.variant.statements[stmt].pattern
            if isinstance(inner, s.OpPattern):
                found = self.path_from_bound(inner)
                if found is not None:
                    return found[0], [*found[1], p]
        return None


def anchor_keys(v: Variant) -> tuple[dict[str, tuple[frozenset[str] | None, ...]], frozenset[str]]:
    """For each operator that can be the anchor of a variant, which producers its operands must have (None: any); and
    those of them whose first two operands may be swapped."""
    p = v.statements[v.anchors[0]].pattern
    assert isinstance(p, s.OpPattern)
    statement_of = {t.id: i for i, stmt in enumerate(v.statements) for t in stmt.targets if t.id != "_"}
    needs: list[frozenset[str] | None] = []
    for a in p.args:
        if isinstance(a, s.NamedOperand):
            break
        inner: Any = a
        if isinstance(a, s.ValuePattern) and a.id in statement_of:
            inner = v.statements[statement_of[a.id]].pattern
        needs.append(frozenset(inner.names) if isinstance(inner, s.OpPattern) else None)
    while needs and needs[-1] is None:
        needs.pop()
    swappable = frozenset(n for n in p.names if lookup(n).commutative and not p.ordered)
    return {n: tuple(needs) for n in p.names}, swappable


def _open_results(defn: OpDef) -> bool:
    return bool(defn.results) and defn.results[-1].arity == "variadic"


def _interchangeable(a: s.Pattern, b: s.Pattern) -> bool:
    """Whether swapping two operand patterns changes nothing: two plain names, neither constrained."""
    return all(isinstance(x, s.ValuePattern) and x.id == "_" and x.constraint is None for x in (a, b))
