"""Wrong variants of rules: what the prover is measured by.

A mutant is a rule whose syntax tree was changed in one place. Whether it is caught is asked in the order in which an
author would learn of it: by the resolver and the checks at load time, then by the proof.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from compiler.ir import UnknownOperatorError, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.check import at_load
from compiler.rewrite.diagnostics import RuleError
from compiler.rewrite.library import Library
from compiler.rewrite.prove import Prover
from compiler.rewrite.resolve import Resolver
from compiler.rewrite.stage import Entry, Stage

#: Operators that are easily mistaken for each other.
_OTHER = {
    "Add": "Sub", "Sub": "Add", "Mul": "Add", "Div": "Mul", "Max": "Min", "Min": "Max", "Less": "Greater",
    "Greater": "Less", "And": "Or", "Or": "And", "Relu": "Abs", "Sqrt": "Abs", "ReduceSum": "ReduceMean",
    "ReduceMean": "ReduceSum", "ReduceMax": "ReduceMin", "Floor": "Ceil", "Ceil": "Floor", "Exp": "Log",
    "add": "sub", "sub": "add", "mul": "add", "real_div": "mul", "maximum": "minimum", "minimum": "maximum",
    "less": "greater", "greater": "less", "reduce_sum": "reduce_mean", "reduce_mean": "reduce_sum",
}  # fmt: skip
_ARITHMETIC = {"+": "-", "-": "+", "*": "+", "/": "*", "//": "*", "**": "*"}
_COMPARISON = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}
#: A condition about one of these is there because the rewrite would not pay or cannot be computed, not because it would
#: be wrong.
_PROFIT = ("uses", "op_name", "is_const", "supports", "has_rank", "is_static")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A wrong variant: the kind of mistake, what was changed where, and the rule with it."""

    kind: str
    what: str
    rule: s.Rule


def mutants(rule: s.Rule) -> Iterator[Mutant]:
    """Every variant of a rule with one mistake."""
    yield from _conditions(rule)
    yield from _swapped_rewrites(rule)
    for part in ("rewrites", "let"):
        for kind, what, changed in _changes(getattr(rule, part)):
            yield Mutant(kind, what, replace(rule, **{part: changed}))
    for kind, what, changed in _pattern_changes(rule.match):
        yield Mutant(kind, what, replace(rule, match=changed))


def caught(prover: Prover, mutant: Mutant, count: int, seed: int) -> str:
    """How a mutant is caught: what the load check or the proof says; empty if it survives."""
    try:
        changed = mutated(prover, mutant.rule)
    except RuleError as e:
        return f"load: {e.diagnostics[0].message}"
    proof = changed.prove(mutant.rule, count, seed)
    return f"wrong: {proof.wrong}" if proof.wrong else f"stuck: {proof.stuck}" if proof.stuck else ""


def mutated(prover: Prover, rule: s.Rule) -> Prover:
    """The prover of a library in which ``rule`` stands for the one of its name.

    Raises:
        RuleError: the check at load time finds it wrong.
    """
    out = copy.copy(prover)
    out.library = _with(prover.library, rule)
    out.traced = _with(prover.traced, rule)
    return out


def _with(library: Library, rule: s.Rule) -> Library:
    file = next(f for f in library.files if any(r.name == rule.name for r in f.rules))
    changed = replace(file, rules=[rule if r.name == rule.name else r for r in file.rules])
    out = Library([changed if f is file else f for f in library.files], library.disabled, library.traced)
    resolver = Resolver(out.env, changed)
    variants = resolver.rule(rule)
    errors = [d for d in resolver.diagnostics if d.severity == "error"]
    if not errors:
        own = [Entry(v, out) for v in variants]
        others = [e for e in library.stage(rule.stage).entries if e.rule.name != rule.name]
        errors = [d for d in at_load([*own, *others], own, rule.stage) if d.severity == "error"]
    if errors:
        raise RuleError(errors, out.sources)
    for stage in library.stages:
        out._stages[stage] = library.stage(stage) if stage != rule.stage else Stage(stage, [*own, *others])
    return out


# ---- conditions


def _conditions(rule: s.Rule) -> Iterator[Mutant]:
    for i, w in enumerate(rule.where):
        for part, rest in _parts(w):
            if not _is_profit(part):
                kept = (*rule.where[:i], *([rest] if rest is not None else []), *rule.where[i + 1 :])
                yield Mutant("condition dropped", _at(part), replace(rule, where=kept))
    for i, r in enumerate(rule.rewrites):
        if r.when is None:
            continue
        for changed in _negated(r.when):
            rewrites = (*rule.rewrites[:i], replace(r, when=changed), *rule.rewrites[i + 1 :])
            yield Mutant("comparison turned round", _at(r.when), replace(rule, rewrites=rewrites))


def dropped(original: s.Rule, mutant: Mutant) -> s.Expr | None:
    """The condition that a mutant has lost; None if that is not what is wrong with it."""
    if mutant.kind == "condition dropped":
        for w in original.where:
            for part, _ in _parts(w):
                if _at(part) == mutant.what:
                    return part
    return None


def _parts(e: s.Expr) -> Iterator[tuple[s.Expr, s.Expr | None]]:
    """The parts of a conjunction, each with what is left without it."""
    if isinstance(e, s.Binary) and e.op == "and":
        for part, rest in _parts(e.left):
            yield part, replace(e, left=rest) if rest is not None else e.right
        for part, rest in _parts(e.right):
            yield part, replace(e, right=rest) if rest is not None else e.left
    else:
        yield e, None


def _negated(e: s.Expr) -> Iterator[s.Expr]:
    if isinstance(e, s.Binary) and e.op in _COMPARISON:
        yield replace(e, op=_COMPARISON[e.op])
    else:
        yield s.Unary("not", e, e.pos)


def _is_profit(e: s.Expr) -> bool:
    text = repr(e)
    return any(f"callee='{n}'" in text for n in _PROFIT) or "id='target'" in text


def _swapped_rewrites(rule: s.Rule) -> Iterator[Mutant]:
    for i in range(len(rule.rewrites) - 1):
        a, b = rule.rewrites[i : i + 2]
        if a.builder is None and b.builder is None:
            changed = (replace(a, statements=b.statements), replace(b, statements=a.statements))
            rewrites = (*rule.rewrites[:i], *changed, *rule.rewrites[i + 2 :])
            yield Mutant("rewrites swapped", _at(a), replace(rule, rewrites=rewrites))


# ---- results and compile-time values


Change = tuple[str, str, Any]


def _changes(node: Any) -> Iterator[Change]:
    """Every change of one node below: kind, place, and the whole with it."""
    yield from _here(node)
    yield from _below(node, _changes)


def _below(node: Any, of: Callable[[Any], Iterator[Change]]) -> Iterator[Change]:
    if isinstance(node, s.Pos):
        return
    if isinstance(node, tuple):
        for i, x in enumerate(node):
            for kind, what, changed in of(x):
                yield kind, what, (*node[:i], changed, *node[i + 1 :])
    elif is_dataclass(node) and not isinstance(node, type):
        for f in fields(node):
            if f.name in ("pos", "when"):
                continue
            for kind, what, changed in of(getattr(node, f.name)):
                yield kind, what, replace(node, **{f.name: changed})


def _here(node: Any) -> Iterator[Change]:
    match node:
        case s.Literal(value, _) if isinstance(value, int) and not isinstance(value, bool):
            yield "off by one", _at(node), replace(node, value=value + 1)
        case s.Literal(value, _) if isinstance(value, float):
            yield "wrong constant", _at(node), replace(node, value=value * 1.5 if value else 1.0)
        case s.Binary(op, _, _, _) if op in _ARITHMETIC:
            yield "wrong arithmetic", _at(node), replace(node, op=_ARITHMETIC[op])
        case s.Call("inverse", (inner,), _, _, _) if isinstance(inner, s.Expr):
            yield "permutation not inverted", _at(node), inner
        case s.Call("compose", (a, b), _, _, _):
            yield "permutations composed the other way", _at(node), replace(node, args=(b, a))
        case s.Call():
            yield from _operator(node)


def _operator(call: s.Call) -> Iterator[Change]:
    prefix, _, name = call.callee.rpartition(".")
    if name in _OTHER:
        other = f"{prefix}.{_OTHER[name]}" if prefix else _OTHER[name]
        yield "wrong operator", _at(call), replace(call, callee=other)
    commutative = _commutative(call.callee)
    plain = [i for i, a in enumerate(call.args) if isinstance(a, (s.Name, s.Call))]
    if call.attrs is not None or (name[:1].isupper() or prefix):
        for i, j in itertools.pairwise(plain):
            if not commutative and call.args[i] != call.args[j]:
                args = list(call.args)
                args[i], args[j] = args[j], args[i]
                yield "operands swapped", _at(call), replace(call, args=tuple(args))
    for i, a in enumerate(call.attrs or ()):
        if isinstance(a, s.AttrValue) and not _is_default(call.callee, a):
            attrs = (*(call.attrs or ())[:i], *(call.attrs or ())[i + 1 :])
            yield "attribute left out", _at(a), replace(call, attrs=attrs)


def _is_default(callee: str, a: s.AttrValue) -> bool:
    """Whether an attribute is given the value that it has anyway."""
    for qualified in (callee, f"onnx.{callee}"):
        try:
            spec = lookup(qualified).attributes.get(a.name)
        except UnknownOperatorError:
            continue
        return spec is not None and isinstance(a.value, s.Literal) and a.value.value == spec.default
    return False


def _commutative(name: str) -> bool:
    for qualified in (name, f"onnx.{name}"):
        try:
            return lookup(qualified).commutative
        except UnknownOperatorError:
            continue
    return False


# ---- patterns


def _pattern_changes(node: Any) -> Iterator[Change]:
    match node:
        case s.LiteralPattern(value, _, _):
            yield "wrong constant", _at(node), replace(node, value=value * 1.25 + (0.5 if value == 0 else 0.0))
        case s.ValuePattern(_, _, constraint, _) if constraint is not None and constraint.dims is not None:
            dims = constraint.dims
            if any(d.rest or d.value != "_" for d in dims):
                yield "dimensions unconstrained", _at(node), replace(node, constraint=replace(constraint, dims=None))
        case s.AttrChoice("literal", value, _):
            if isinstance(value, tuple) and len(value) > 1 and value[0] != value[-1]:
                other = (value[-1], *value[1:-1], value[0])
                yield "wrong attribute", _at(node), replace(node, value=other)
            elif isinstance(value, int) and not isinstance(value, bool):
                yield "off by one", _at(node), replace(node, value=value + 1)
            elif isinstance(value, str):
                yield "any attribute", _at(node), s.AttrChoice("bind", "_", node.pos)
    yield from _below(node, _pattern_changes)


def _at(node: Any) -> str:
    return f"{node.pos.line}:{node.pos.column}"


def sample(library: Library, stages: tuple[str, ...], rng: random.Random) -> Iterator[Mutant]:
    """Mutants of random rules, without end: no rule gives more than its share."""
    rules = [r for r in library.rules.values() if r.stage in stages]
    seen: set[tuple[str, str, str]] = set()
    while True:
        rule = rng.choice(rules)
        choices = [m for m in mutants(rule) if (rule.name, m.kind, m.what) not in seen]
        if choices:
            kind = rng.choice(sorted({m.kind for m in choices}))
            chosen = rng.choice([m for m in choices if m.kind == kind])
            seen.add((rule.name, chosen.kind, chosen.what))
            yield chosen
