"""Rules that can never match because an earlier one always does, and pairs of rules whose order decides the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import InferenceError, Module, Op
from compiler.rewrite import syntax as s
from compiler.rewrite.check_covers import covers
from compiler.rewrite.check_cycles import RuleGraph, matches
from compiler.rewrite.check_examples import TARGETS, Example
from compiler.rewrite.check_examples import example as make
from compiler.rewrite.check_terms import Node, Term, Terms, terms
from compiler.rewrite.check_unify import Substitution, resolve, unify_nodes
from compiler.rewrite.diagnostics import Diagnostic, RewriteError
from compiler.rewrite.driver import apply_once, rewrite
from compiler.rewrite.resolve_names import Variant
from compiler.rewrite.stage import Entry, Stage

# ---- unreachable rules


def unreachable(entries: Sequence[Entry], only: Sequence[Entry] | None = None) -> list[Diagnostic]:
    """The rules of a stage, in the order in which they are tried, each of whose variants an earlier rule forestalls.

    Only what is sure is reported: the earlier rule has no condition that the later one has not, and always rewrites.
    """
    by_rule: dict[str, list[Entry]] = {}
    first: dict[str, list[Entry]] = {}
    place = {e: i for i, e in enumerate(entries)}
    for e in entries:
        by_rule.setdefault(e.rule.name, []).append(e)
        if _always_rewrites(e.variant):
            for name in e.keys:
                first.setdefault(name, []).append(e)
    held: dict[Entry, Terms] = {}

    def of(e: Entry) -> Terms:
        if e not in held:
            held[e] = terms(e.variant)
        return held[e]

    wanted = set(only) if only is not None else None
    out = []
    for own in by_rule.values():
        if wanted is not None and not wanted & set(own):
            continue
        by: list[str] = []
        for e in own:
            before = [x for x in first.get(min(e.keys), ()) if place[x] < place[e] and x.rule.name != e.rule.name]
            found = next((x for x in before if _forestalls(of(x), of(e))), None)
            if found is None:
                break
            by.append(found.rule.name)
        else:
            rule = own[0].rule
            earlier = next(e.rule for e in entries if e.rule.name == by[0])
            message = (
                f"rule '{rule.name}' never matches: '{earlier.name}' ({earlier.file}:{earlier.pos.line}) is tried "
                f"first and always does; write 'before {earlier.name}' in it, or drop it"
            )
            out.append(Diagnostic(rule.file, rule.name_pos, message, code="unreachable"))
    return out


def _always_rewrites(v: Variant) -> bool:
    """Whether a match of the pattern is an application: no builder or compile-time value may decline."""
    if len(v.anchors) != 1 or v.let or v.where or v.rewrites[-1].when is not None or len(v.rewrites) > 1:
        return False
    return all(r.builder is None and all(_only_operators(stmt.value) for stmt in r.statements) for r in v.rewrites)


def _only_operators(e: s.Arg) -> bool:
    """Whether an expression builds operators from values and numbers alone, so that nothing can decline."""
    match e:
        case s.Name() | s.Optional() | s.Literal():
            return True
        case s.Call():
            attributes = all(
                isinstance(a, s.AttrSpread) or isinstance(a.value, (s.Literal, s.Name, s.ListExpr))
                for a in e.attrs or ()
            )
            return "." in e.callee and attributes and all(_only_operators(a) for a in e.args)
        case _:
            return False


def _forestalls(general: Terms, special: Terms) -> bool:
    a, b = general.roots[0], special.roots[0]
    for t in general.named.values():
        if t.tied or any(d.value != "_" and isinstance(d.value, str) for d in t.dims or ()):
            return False  # what a name ties together must agree or be known: more than terms say
    return len(special.roots) == 1 and covers(a, b, {})


# ---- overlaps

#: So many graphs are tried for a pair of rules.
_GUESSES = 6
#: Rules with many alternatives are compared in so many of their combinations.
_VARIANTS = 16


def overlapping(entries: Sequence[Entry], stage: Stage, only: Sequence[Entry] | None = None) -> Iterator[Diagnostic]:
    """Pairs of rules of which both match one graph, and which of them fires first decides what comes out.

    Candidates are critical pairs: the root of one pattern unified with an operator of another. On a graph of that
    structure each is applied first, then the whole stage; different outcomes are reported, as warnings, with the graph.
    """
    graph = RuleGraph(entries)
    pairs: set[frozenset[str]] = set()
    wanted = set(entries if only is None else only)
    tried: Counter[frozenset[str]] = Counter()
    for a in graph.entries:
        for b in graph.entries:
            names = frozenset((a.rule.name, b.rule.name))
            if len(names) < 2 or names in pairs or len(b.variant.anchors) > 1 or len(a.variant.anchors) > 1:
                continue
            if _ordered(a.rule, b.rule) or not wanted & {a, b} or tried[names] >= _VARIANTS:
                continue
            tried[names] += 1
            found = _difference(graph, a, b, stage)
            if found is not None:
                pairs.add(names)
                yield found


def _ordered(a: s.Rule, b: s.Rule) -> bool:
    """Whether their author has said which of the two goes first."""
    return b.name in (*a.before, *a.after) or a.name in (*b.before, *b.after)


def _difference(graph: RuleGraph, a: Entry, b: Entry, stage: Stage) -> Diagnostic | None:
    outer, inner = graph.terms(a), terms(b.variant)
    root = inner.roots[0].node
    assert root is not None
    for node in outer.nodes:
        if not node.ops & root.ops:
            continue
        for found in unify_nodes(node, root, {}):
            place = _same_operator(outer, node, inner.roots[0], found)
            outcome = _try(a, b, outer, node, place, stage)
            if outcome is not None:
                example, first, second = outcome
                message = (
                    f"'{a.rule.name}' and '{b.rule.name}' both match here, and the order decides what comes out; "
                    f"say 'before {b.rule.name}' or 'after {b.rule.name}', or add rules that make both come out alike"
                )
                text = f"{example}\n{a.rule.name} first:\n{first}\n{b.rule.name} first:\n{second}"
                return Diagnostic(a.rule.file, a.rule.name_pos, message, "warning", "overlap", text)
            break
    return None


def _same_operator(outer: Terms, node: Node, root: Term, found: Substitution) -> Substitution:
    """The substitution in which the root of the inner pattern is the outer pattern's operator."""
    merged = dict(found)
    values = [t for t in _values(outer) if t.node is node and t.index == root.index]
    if values:
        one, other = resolve(values[0], merged), resolve(root, merged)
        if one is not other:
            merged[other] = one
    return merged


def _values(t: Terms) -> Iterator[Term]:
    yield from t.named.values()
    yield from t.roots
    for n in t.nodes:
        yield from (a for a in n.args if a is not None)


def _try(
    a: Entry, b: Entry, outer: Terms, node: Node, found: Substitution, stage: Stage
) -> tuple[str, str, str] | None:
    """An example on which both match, and what comes of it one way and the other, if that differs."""
    root = outer.roots[0].node
    assert root is not None
    tried = 0
    for target in TARGETS[:2]:
        for guess in range(_GUESSES):
            example = make(outer.roots, found, guess)
            if example is None or node not in example.ops or not matches(a, example.ops[root], target):
                continue
            if any(_is_computed_constant(op) for op in example.module.walk()):
                continue
            if not matches(b, example.ops[node], target):
                continue
            tried += 1
            text = example.text()
            again = make(outer.roots, found, guess)
            assert again is not None, "what could be made once can be made again"
            try:
                first = _outcome(a, example, example.ops[root], stage, target)
                second = _outcome(b, again, again.ops[node], stage, target)
            except (RewriteError, InferenceError, UserError):
                continue
            if first is not None and second is not None and first != second:
                return text, first, second
            if tried >= 2:
                return None
    return None


def _is_computed_constant(op: Op) -> bool:
    """Whether all that an operator depends on is constant. Such operators are folded away before rules see them."""
    operands = [v for v in op.operands if v is not None]
    return bool(operands) and not op.defn.terminator and all(v.constant is not None for v in operands)


def _outcome(entry: Entry, example: Example, anchor: Op, stage: Stage, target: object) -> str | None:
    """The graph after ``entry`` and then all rules; None if ``entry`` does not apply after all."""
    if not apply_once(entry, anchor, stage, target):
        return None
    rewrite(example.module, stage, target, descent=150)
    return _canonical(example.module)


def _canonical(module: Module) -> str:
    """The text of a module without dead operators, values numbered from the outputs on: equal for equal graphs."""
    lines: list[str] = []
    numbers: dict[Op, int] = {}

    def visit(op: Op) -> None:
        if op in numbers:
            return
        for v in op.operands:
            if v is not None and v.op is not None:
                visit(v.op)
        numbers[op] = len(numbers)
        operands = ", ".join(_spelled(v, numbers) for v in op.operands)
        attributes = ", ".join(f"{k} = {_written(v)}" for k, v in sorted(op.attributes.items()))
        lines.append(f"  %{numbers[op]} = {op.name}({operands}) {{{attributes}}}")

    outputs = module.main.outputs
    for v in outputs:
        if v.op is not None:
            visit(v.op)
    lines.append(f"  return {', '.join(_spelled(v, numbers) for v in outputs)}")
    return "\n".join(lines)


def _written(v: Any) -> Any:
    """An attribute. One number is written once, whatever the shape: rules leave it to broadcasting."""
    if not isinstance(v, np.ndarray):
        return v
    if v.dtype.kind == "f":
        v = v + v.dtype.type(0)  # no rule minds the sign of zero
    return v.flat[0].item() if v.size and v.dtype != object and bool((v == v.flat[0]).all()) else v.tolist()


def _spelled(v: object, numbers: dict[Op, int]) -> str:
    op = getattr(v, "op", None)
    if v is None:
        return "none"
    return f"%{numbers[op]}" if op is not None else f"%{getattr(v, 'name', '')}"
