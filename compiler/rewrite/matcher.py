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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.ir import DTYPES, UNKNOWN, Dim, DType, Op, OpDef, TensorType, Value, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.expressions import ExpressionCompiler, local
from compiler.rewrite.functions import DTYPE_CLASSES, Decline, contains, same
from compiler.rewrite.resolve import Variant

#: Stands for the number of the chosen rewrite among the locals.
VARIANT = "_variant"

#: A successful match: number of the rewrite, the matched operators (the anchor first), what the rule's names stand for.
Match = tuple[int, tuple[Op, ...], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One test of a matcher: where it is written, and what it says."""

    pos: s.Pos
    text: str


@dataclass(slots=True)
class Trace:
    """What a traced matcher calls where a clause fails: ``hook`` gets the step's number and the locals by then."""

    hook: Callable[[int, dict[str, Any]], None] | None = None

    def __call__(self, step: int, found: dict[str, Any]) -> None:
        if self.hook is not None:
            self.hook(step, found)


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


# ---- what the generated code calls


def only(op: Op, mentioned: frozenset[str]) -> bool:
    """Whether every attribute that the pattern does not mention has its default value."""
    specs = op.defn.attributes
    return all(k in mentioned or same(v, specs[k].default) for k, v in op.attributes.items())


def unused_beyond(op: Op, named: int) -> bool:
    """Whether the results that the pattern does not name have no users."""
    return not any(r._uses for r in op.results[named:])


def holds(value: Value, number: float, tolerance: float | None) -> bool:
    """Whether all elements of a constant are ``number``, rounded to its element type or to a relative tolerance."""
    array = value.constant
    if array is None or array.size == 0 or array.dtype == np.object_:
        return False
    first = array.reshape(-1)[0]
    if not _is(first, number, tolerance):
        return False
    return array.size == 1 or bool((array == first).all())


def _is(x: Any, number: float, tolerance: float | None) -> bool:
    have = float(x)
    if tolerance is not None:
        return abs(have - number) <= tolerance * abs(number)
    if have == number:
        return True
    kind = getattr(x, "dtype", None)
    if kind is None or kind.kind in "iub":
        return False
    return bool(x == kind.type(number)) or (math.isnan(have) and math.isnan(number))


def holds_list(value: Value, numbers: tuple[float, ...]) -> bool:
    """Whether a constant is a vector of exactly these numbers."""
    array = value.constant
    return array is not None and array.shape == (len(numbers),) and bool((array == np.asarray(numbers)).all())


def into(have: Sequence[Dim], want: Sequence[Dim]) -> bool:
    """Whether dimensions, aligned at the last, broadcast to ``want`` without changing it."""
    if len(have) > len(want):
        return False
    return all(h == 1 or same(h, w) for h, w in zip(have, want[len(want) - len(have) :]))


def together(a: Sequence[Dim], b: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """What two shapes broadcast to; None if that is not surely anything."""
    if len(a) < len(b):
        a, b = b, a
    out = list(a[: len(a) - len(b)])
    for x, y in zip(a[len(a) - len(b) :], b):
        if x != 1 and y != 1 and not same(x, y):
            return None
        out.append(x if y == 1 else y)
    return tuple(out)


def shapeless(value: Value, user: Op) -> bool:
    """Whether a constant surely leaves the results of ``user`` in the shape that another operand gives them."""
    array = value.constant
    assert array is not None
    if array.ndim == 0:
        return True
    others = [v.shape for v in user.operands if v is not None and v is not value]
    if array.size == 1:
        return not others or any(d is not None and len(d) >= array.ndim for d in others)
    shape = user.results[0].shape
    return shape is not None and any(d is not None and same(d, shape) for d in others)


def close(x: Any, number: float, tolerance: float) -> bool:
    """Whether an attribute is ``number`` to a relative tolerance."""
    return isinstance(x, (int, float)) and abs(x - number) <= tolerance * abs(number)


_HELPERS: dict[str, Any] = {
    "_only": only,
    "_unused": unused_beyond,
    "_holds": holds,
    "_holds_list": holds_list,
    "_shapeless": shapeless,
    "_close": close,
    "_into": into,
    "_together": together,
    "_same": same,
    "_in": contains,
    "_Decline": Decline,
    "_TensorType": TensorType,
    "_int": int,
}

#: CPython's limit on nested blocks is 20; a matcher with more loops is refused.
_MOST_LOOPS = 16


class MatcherCompiler:
    """Generates the function of one variant."""

    def __init__(self, variant: Variant, expressions: ExpressionCompiler, traced: bool = False) -> None:
        self.variant = variant
        self.expressions = expressions
        self.traced = traced
        self.lines: list[str] = []
        self.depth = 1
        self.loops = 0
        self.late: list[Callable[[], None]] = []
        self.broadcast: list[Callable[[], None]] = []
        self.defaults: list[tuple[str, Any]] = []
        self.grown: list[tuple[str, s.Pos]] = []
        self.bound: set[str] = set()
        self.produced: dict[str, str] = {}  # name of a result → local of its operator, once matched
        self.steps: list[Step] = []
        self.serial = 0
        self.globals: dict[str, Any] = dict(_HELPERS)
        self.statement_of = {t.id: i for i, stmt in enumerate(variant.statements) for t in stmt.targets if t.id != "_"}
        self.matched: dict[int, str] = {}
        self.ops: list[str] = ["op"]

    # ---- emission

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def fail(self) -> str:
        return "continue" if self.loops else "return None"

    def check(self, condition: str, pos: s.Pos, text: str) -> None:
        """Emits a test that must hold."""
        if not self.traced:
            self.emit(f"if not ({condition}): {self.fail()}")
            return
        self.steps.append(Step(pos, text))
        self.emit(f"if not ({condition}):")
        self.emit(f"    _trace({len(self.steps) - 1}, locals())")
        self.emit(f"    {self.fail()}")

    def loop(self, header: str) -> None:
        self.emit(header)
        self.depth += 1
        self.loops += 1

    def fresh(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def refer(self, value: Any, prefix: str = "k") -> str:
        name = self.fresh(prefix)
        self.globals[name] = value
        return name

    def spelled(self, value: Any) -> str:
        """Source of a value: Python has no literal for infinity and NaN."""
        return repr(value) if _finite(value) else self.refer(value)

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
        self.emit("except _Decline as _why:")
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

    # ---- attributes and types

    def attributes(self, var: str, p: s.OpPattern) -> None:
        mentioned = {a.name for a in p.attrs if isinstance(a, s.AttrPattern)}
        spread = next((a for a in p.attrs if isinstance(a, s.AttrSpread)), None)
        if p.attrs:
            attrs = self.fresh("t")
            self.emit(f"{attrs} = {var}.attributes")
            for a in p.attrs:
                if isinstance(a, s.AttrPattern):
                    self.attribute(attrs, a)
        if spread is not None:
            self.bound.add(spread.id)
            names = self.refer(frozenset(mentioned), "n") if mentioned else ""
            filtered = f" if k not in {names}" if mentioned else ""
            self.emit(f"{local(spread.id)} = {{k: x for k, x in {var}.attributes.items(){filtered}}}")
        elif any(set(lookup(n).attributes) - mentioned for n in p.names):
            names = self.refer(frozenset(mentioned), "n")
            self.check(
                f"_only({var}, {names})", p.pos, "attributes that the pattern does not mention have their default"
            )

    def attribute(self, attrs: str, a: s.AttrPattern) -> None:
        var = self.fresh("t")
        self.emit(f"{var} = {attrs}.get({a.name!r})")
        tests = []
        for c in a.choices:
            match c.kind:
                case "bind" if c.value in ("true", "false"):
                    tests.append(f"{var} is {c.value.title()}")
                case "bind" if c.value in DTYPES:
                    tests.append(f"{var} is {self.refer(DTYPES[c.value])}")
                case "bind" | "optional" | "default":
                    self.bind_attribute(var, a, c)
                    return
                case "literal":
                    tests.append(f"_same({var}, {self.spelled(c.value)})")
                case _:
                    number, tolerance = c.value
                    tests.append(f"_close({var}, {number!r}, {tolerance!r})")
        self.check(" or ".join(tests), a.pos, f"attribute {a.name}")

    def bind_attribute(self, var: str, a: s.AttrPattern, c: s.AttrChoice) -> None:
        name = c.value[0] if c.kind == "default" else c.value
        if c.kind == "bind":
            if name == "_":
                return
            self.check(f"{var} is not None", a.pos, f"attribute {a.name} is given")
        elif c.kind == "default":
            self.emit(f"if {var} is None: {var} = {self.spelled(c.value[1])}")
        if name in self.bound:
            self.check(f"_same({var}, {local(name)})", a.pos, f"attribute {a.name} equals '{name}'")
        else:
            self.emit(f"{local(name)} = {var}")
            self.bound.add(name)

    def variadic_constraint(self, rest: s.VariadicPattern) -> None:
        assert rest.constraint is not None
        c = rest.constraint
        tests = ["x is not None"]
        if c.const:
            tests.append("x.constant is not None")
        if c.dtypes is not None:
            tests.append(f"type(x.type) is _TensorType and x.type.dtype in {self.refer(_dtype_set(c.dtypes), 'd')}")
        if c.dims is not None:
            tests.append(f"x.shape is not None and len(x.shape) == {len(c.dims)}")
        self.check(f"all({' and '.join(tests)} for x in {local(rest.id)})", rest.pos, f"every one of '{rest.id}'")

    def constraint(self, var: str, c: s.Constraint, optional: bool = False) -> None:
        """Emits the tests of element type and dimensions; the names of dimensions are bound where they first occur."""
        if c.dtypes is None and c.dims is None:
            return
        absent = f"{var} is None or " if optional else ""
        self.check(f"{absent}type({var}.type) is _TensorType", c.pos, "a tensor")
        if c.dtypes is not None:
            self.element_type(var, c, absent)
        if c.dims is None:
            return
        shape = self.fresh("s")
        self.emit(f"{shape} = {var}.type.shape" + (f" if {var} is not None else None" if optional else ""))
        rest = next((i for i, d in enumerate(c.dims) if d.rest), None)
        if optional:
            # An absent operand binds no dimensions; names first met here would be unbound, so they are only tested.
            self.optional_dims(var, shape, c)
            return
        n = len(c.dims)
        size = f"len({shape}) == {n}" if rest is None else f"len({shape}) >= {n - 1}"
        self.check(f"{shape} is not None and {size}", c.pos, f"rank {n if rest is None else f'at least {n - 1}'}")
        for i, d in enumerate(c.dims):
            if d.rest:
                end = n - 1 - i
                source = f"{shape}[{i}:{f'len({shape}) - {end}' if end else ''}]"
                if d.broadcast:
                    self.broadcast.append(lambda d=d, of=source: self.broadcast_dims(of, d))  # type: ignore[misc]
                else:
                    self.bind_dim(source, str(d.value), d.pos)
            else:
                at = i if rest is None or i < rest else i - n
                if d.broadcast:
                    self.broadcast.append(lambda d=d, of=f"{shape}[{at}],": self.broadcast_dims(of, d))  # type: ignore[misc]
                else:
                    self.dim(f"{shape}[{at}]", d)

    def optional_dims(self, var: str, shape: str, c: s.Constraint) -> None:
        tests = [f"{shape} is not None and len({shape}) == {len(c.dims or ())}"]
        for i, d in enumerate(c.dims or ()):
            if isinstance(d.value, int):
                tests.append(f"{shape}[{i}] == {d.value}")
            elif d.rest:
                raise ValueError(f"the shape of an optional operand is given in full, without *{d.value}")
            elif d.value in self.bound:
                one = f"{shape}[{i}] == 1 or " if d.broadcast else ""
                tests.append(f"({one}{shape}[{i}] == {local(d.value)} != {UNKNOWN!r})")
            elif d.value != "_":
                raise ValueError(f"dimension '{d.value}' of an optional operand must also occur in another operand")
        self.check(f"{var} is None or ({' and '.join(tests)})", c.pos, "shape")

    def element_type(self, var: str, c: s.Constraint, absent: str) -> None:
        names = c.dtypes or ()
        variable = len(names) == 1 and names[0] not in DTYPES and names[0] not in DTYPE_CLASSES
        if not variable:
            allowed = self.refer(_dtype_set(names), "d")
            self.check(f"{absent}{var}.type.dtype in {allowed}", c.pos, f"element type {' or '.join(names)}")
        elif names[0] in self.bound:
            self.check(f"{absent}{var}.type.dtype is {local(names[0])}", c.pos, f"element type {names[0]}")
        else:
            self.emit(f"{local(names[0])} = {var}.type.dtype")
            self.bound.add(names[0])

    def dim(self, source: str, d: s.Dim) -> None:
        if isinstance(d.value, int):
            self.check(f"{source} == {d.value}", d.pos, f"dimension {d.value}")
        elif d.value != "_":
            self.bind_dim(source, d.value, d.pos)

    def bind_dim(self, source: str, name: str, pos: s.Pos) -> None:
        if name in self.bound:
            self.check(f"_same({source}, {local(name)})", pos, f"dimension '{name}'")
            return
        self.emit(f"{local(name)} = {source}")
        self.bound.add(name)
        if name in self.computed_dims():
            self.known(name, pos)

    def known(self, name: str, pos: s.Pos) -> None:
        known = f"type({local(name)}) is _int"
        if self.variant.bindings[name].kind == "dims":
            known = f"all(type(d) is _int for d in {local(name)})"
        self.check(known, pos, f"dimension '{name}' is known")

    def broadcast_dims(self, source: str, d: s.Dim) -> None:
        """Emits the test that dimensions broadcast to those that a name stands for.

        A name that some constraint also has without ``~`` is what that says. One that only has ``~`` stands for what
        its occurrences broadcast to together, so that it grows with each.
        """
        name, at = str(d.value), "" if d.rest else "[0]"
        held = local(name) if d.rest else f"({local(name)},)"
        if name not in self.bound:
            self.emit(f"{local(name)} = ({source}){at}")
            self.bound.add(name)
            self.grown.append((name, d.pos))
        elif all(name != n for n, _ in self.grown):
            self.check(f"_into({source if d.rest else f'({source})'}, {held})", d.pos, f"broadcasts to '{name}'")
        else:
            both = self.fresh("b")
            self.emit(f"{both} = _together({held}, {source if d.rest else f'({source})'})")
            self.check(f"{both} is not None", d.pos, f"broadcasts with '{name}'")
            self.emit(f"{local(name)} = {both}{at}")

    def known_dims(self) -> None:
        """Emits: what grew by broadcasting is a number where expressions compute with it."""
        computed = self.computed_dims()
        for name, pos in self.grown:
            if name in computed:
                self.known(name, pos)

    def computed_dims(self) -> set[str]:
        """Dimensions that expressions compute with: they must be numbers. The others only have to agree."""
        v = self.variant
        used: set[str] = set()
        for w in v.where:
            used |= s.mentioned(w)
        for b in v.let:
            used |= s.mentioned(b.value)
        for r in v.rewrites:
            used |= s.mentioned(r.when) if r.when is not None else set()
            for stmt in r.statements:
                used |= s.mentioned(stmt.value)
            if r.builder is not None:
                used |= set(v.bindings)
        return {n for n in used if n in v.bindings and v.bindings[n].kind in ("dim", "dims")}


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


def _finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _open_results(defn: OpDef) -> bool:
    return bool(defn.results) and defn.results[-1].arity == "variadic"


def _interchangeable(a: s.Pattern, b: s.Pattern) -> bool:
    """Whether swapping two operand patterns changes nothing: two plain names, neither constrained."""
    return all(isinstance(x, s.ValuePattern) and x.id == "_" and x.constraint is None for x in (a, b))


def _dtype_set(names: Iterable[str]) -> frozenset[DType]:
    out: set[DType] = set()
    for n in names:
        out |= {DTYPES[n]} if n in DTYPES else {d for d in DTYPES.values() if DTYPE_CLASSES[n](d)}
    return frozenset(out)
