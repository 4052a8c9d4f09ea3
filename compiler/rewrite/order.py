"""The order in which the rules of a stage are tried."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Sequence
from typing import Any

from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import Diagnostic


def _size(p: Any) -> int:
    if isinstance(p, s.OpPattern):
        return 1 + sum(_size(a.pattern if isinstance(a, s.NamedOperand) else a) for a in p.args)
    return max((_size(c) for c in p.choices), default=0) if isinstance(p, s.Alternatives) else 0


def in_order(rules: Sequence[s.Rule], findings: list[Diagnostic]) -> list[s.Rule]:
    """Larger patterns first, then as written; ``before`` and ``after`` override both."""
    ranked = sorted(rules, key=lambda r: -sum(_size(m.pattern) for m in r.match))
    by_name = {r.name: r for r in ranked}
    if not any(r.before or r.after for r in ranked):
        return ranked
    position = {r.name: i for i, r in enumerate(ranked)}
    edges = {(r.name, other) for r in ranked for other in r.before if other in by_name}
    edges |= {(other, r.name) for r in ranked for other in r.after if other in by_name}
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter(dict.fromkeys(by_name, ()))
    for first, second in sorted(edges):
        sorter.add(second, first)
    try:
        sorter.prepare()
    except graphlib.CycleError as e:
        cycle: list[str] = e.args[1]
        rule = by_name[cycle[0]]
        message = f"'before' and 'after' contradict each other: {' → '.join(cycle)}; drop one of them"
        findings.append(Diagnostic(rule.file, rule.name_pos, message))
        return ranked
    out: list[s.Rule] = []
    ready = [position[name] for name in sorter.get_ready()]
    heapq.heapify(ready)
    while ready:
        rule = ranked[heapq.heappop(ready)]
        out.append(rule)
        sorter.done(rule.name)
        for name in sorter.get_ready():
            heapq.heappush(ready, position[name])
    return out
