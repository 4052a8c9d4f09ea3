"""``planish rules explain``: what a rule does on a model, and why it does not fire.

It looks on while a model takes its usual road: the library that the driver is given is one that watches. The clauses
that failed are reported by the matchers themselves, in their traced form, so the explanation cannot disagree with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.ir import Block, Function, Module, Op, Value
from compiler.rewrite.driver import NO_TARGET, OnFire, Report, rewrite
from compiler.rewrite.library import Library
from compiler.rewrite.syntax import Pos

#: The longest spelling of a value in a message.
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Fire:
    """An application: the operators that it replaced, and the nodes of the model that they came from; constants only
    where there is nothing else."""

    nodes: tuple[str, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Miss:
    """A place where a rule was tried in vain.

    Attributes:
        step: how far the matcher got; the greater, the nearer.
        pos, text: the clause that failed, None where the matcher succeeded but the result was turned down.
        reason: what was not known, or why the result was turned down; empty where the clause is plainly false.
        seen: what the clause's names stood for.
    """

    op: str
    nodes: tuple[str, ...]
    step: int
    pos: Pos | None
    text: str
    reason: str
    seen: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Explanation:
    """What a rule did in its stage, and how near it came where it did nothing; the nearest first.

    Attributes:
        starts: the operators at which it could start.
        taken: how many of those other rules have replaced, by rule.
    """

    rule: str
    fires: list[Fire] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
    ran: bool = False
    rejected: int = 0
    reason: str = ""
    starts: tuple[str, ...] = ()
    taken: Counter[str] = field(default_factory=Counter)


class Watch(Library):
    """A library that explains one rule while the driver rewrites with it as usual."""

    def __init__(self, library: Library, rule: str, node: str | None = None) -> None:
        """
        Args:
            node: look only where the operators come from this node of the model.

        Raises:
            UserError: no rule has that name.
        """
        super().__init__(library.files, library.disabled, traced=True)
        self.watched = known_rule(self, rule)
        self.node = node
        self.found = Explanation(rule)

    def rewrite(self, scope: Module | Function | Block, stage: str, target: Any = None, **options: Any) -> Report:
        found = self.found
        if not found.starts:
            if self.node is not None:
                known_node(scope, self.node)
            entries = self.stage(self.watched.stage).entries
            found.starts = tuple(dict.fromkeys(n for e in entries if e.rule.name == found.rule for n in e.keys))
        further: OnFire | None = options.pop("on_fire", None)

        def fired(rule: str, gone: Sequence[Op], made: Sequence[Op]) -> None:
            if further is not None:
                further(rule, gone, made)
            if self.node is not None and not any(self.node in op.loc.nodes for op in (*gone, *made)):
                return
            if rule != found.rule:
                # One that is put together anew is still there.
                taken = sum(op.name in found.starts for op in gone) - sum(op.name in found.starts for op in made)
                if taken > 0:
                    found.taken[rule] += taken
            else:
                # The first that is matched is the last of them in the graph.
                ops = [op for op in reversed(gone) if op.defn.constant is None] or [*gone]
                nodes = dict.fromkeys(n for op in ops for n in op.loc.nodes)
                found.fires.append(Fire(tuple(nodes), tuple(op.name for op in ops)))

        report = rewrite(scope, self.stage(stage), target, on_fire=fired, **options)
        if stage != self.watched.stage:
            return report
        found.ran = True
        stats = report.rules.get(found.rule)
        if stats is not None:
            found.rejected, found.reason = stats.rejected, stats.reason
        self.look(scope, NO_TARGET if target is None else target)
        return report

    def look(self, scope: Module | Function | Block, target: Any) -> None:
        """Tries the rule on every operator at which it could start, as the graph is once the stage is through."""
        self.found.misses.clear()
        for entry in self.stage(self.watched.stage).entries:
            if entry.rule.name != self.watched.name:
                continue
            for op in scope.walk():
                if op.name in entry.keys and (self.node is None or self.node in op.loc.nodes):
                    miss = self.try_at(entry, op, target)
                    if miss is not None:
                        self.found.misses.append(miss)
        self.found.misses.sort(key=lambda m: -m.step)

    def try_at(self, entry: Any, op: Op, target: Any) -> Miss | None:
        steps = entry.matcher.steps
        deepest: tuple[int, dict[str, Any]] | None = None

        def failed(step: int, found: dict[str, Any]) -> None:
            nonlocal deepest
            if deepest is None or step >= deepest[0]:
                deepest = (step, found)

        entry.matcher.trace.hook = failed
        try:
            match = entry.matcher.match(op, target)
        finally:
            entry.matcher.trace.hook = None
        if match is not None:
            why = self.found.reason or "another rule comes first, or its builder declines"
            return Miss(op.name, op.loc.nodes, len(steps), None, "it matches", why, ())
        if deepest is None:
            return None
        step, found = deepest
        why = str(found.get("_why") or "")
        text, pos = steps[step].text, steps[step].pos
        return Miss(op.name, op.loc.nodes, step, pos, text, why, _seen(found, self.clause(pos), target))

    def clause(self, pos: Pos | None) -> str:
        """The source of a clause."""
        if pos is None:
            return ""
        lines = self.sources[self.watched.file].splitlines()[pos.line - 1 : pos.end_line]
        if len(lines) == 1:
            return lines[0][pos.column - 1 : pos.end_column - 1]
        return " ".join(line.strip() for line in lines)

    def nowhere(self) -> list[str]:
        """Why there is no place at which the rule could start."""
        names = " or ".join(self.found.starts)
        if not self.found.taken:
            return [f"  it starts at {names}, and there is none{' more' if self.found.fires else ''}"]
        lines = [
            f"  it starts at {names}, and none is left: stage {self.watched.stage} sees what other rules have made"
        ]
        for rule, count in self.found.taken.most_common(3):
            lines.append(f"    {rule} (stage {self.rules[rule].stage}) has replaced {count}")
        return lines

    def render(self, most: int = 3) -> str:
        """The explanation as text: where it fires, then the nearest misses with the clause and what it saw."""
        found = self.found
        where = f" at node '{self.node}'" if self.node else ""
        lines = [f"{found.rule} fires {len(found.fires)} times{where}"]
        for fire in found.fires[:10]:
            lines.append(f"  {', '.join(fire.nodes) or '(unnamed)'}: {', '.join(fire.ops)}")
        if len(found.fires) > 10:
            lines.append(f"  … and {len(found.fires) - 10} more")
        if not found.ran:
            lines.append(f"  its stage, {self.watched.stage}, is not run for this target")
        elif not found.misses:
            lines += self.nowhere()
        else:
            lines.append(f"nearest misses, {min(most, len(found.misses))} of {len(found.misses)}:")
        for m in found.misses[:most]:
            lines.append(f"  {m.op} ({', '.join(m.nodes) or 'unnamed'})")
            if m.pos is None:
                lines.append(f"    {m.text}, but was turned down: {m.reason}")
                continue
            lines.append(f"    {self.watched.file}:{m.pos.line}:{m.pos.column}: {_failed(m)}")
            source = self.sources[self.watched.file].splitlines()[m.pos.line - 1]
            width = m.pos.end_column - m.pos.column if m.pos.end_line == m.pos.line else len(source) - m.pos.column + 1
            lines.append(f"      {source}")
            lines.append(f"      {' ' * (m.pos.column - 1)}{'^' * max(width, 1)}")
            lines += [f"      {name} = {value}" for name, value in m.seen]
        return "\n".join(lines)


def _failed(m: Miss) -> str:
    if m.reason:
        return f"not known: {m.reason}"
    return "this condition does not hold" if m.text in ("where", "when") else f"not so here: {m.text}"


def _seen(found: dict[str, Any], clause: str, target: Any) -> tuple[tuple[str, str], ...]:
    """The rule's names that a clause mentions, or all if it mentions none, with what they stood for."""
    import re

    bound = {k[2:]: v for k, v in found.items() if k.startswith("v_") and not k.startswith("v__")}
    words = set(re.findall(r"[A-Za-z_]\w*", clause))
    facts = [(f"target.{n}", repr(getattr(target, n))) for n in re.findall(r"target\.(unit|ios|precision)\b", clause)]
    named = [n for n in bound if n in words] or ([] if facts else list(bound))
    return (*((n, _spelled(bound[n])) for n in named), *facts)


def _spelled(value: Any) -> str:
    if isinstance(value, Value):
        array = value.constant
        if array is None:
            made = _maker(value)
            if value.op is not None:
                made += f"({', '.join('absent' if v is None else _maker(v) for v in value.op.operands)})"
            return f"%{value.name or '?'}: {value.type}, {made}, used {value.use_count}×"
        content = np.array2string(array, threshold=8, separator=", ").replace("\n", "")
        return f"constant {content} : {value.type}"[:_WIDTH]
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if v is not None}
    text = repr(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _maker(value: Value) -> str:
    """What gives a value."""
    if value.constant is not None:
        return "constant"
    return value.op.name if value.op is not None else "an input"


def known_node(scope: Module | Function | Block, node: str) -> None:
    """Raises UserError if no operator comes from that node of the model; the message offers the nearest."""
    from compiler.errors import UserError
    from compiler.ir import suggest

    nodes = {n for op in scope.walk() for n in op.loc.nodes}
    if node not in nodes:
        raise UserError(f"no operator comes from a node '{node}'{suggest(node, nodes)}", "planish show MODEL.onnx")


def known_rule(library: Library, name: str) -> Any:
    """The rule of that name.

    Raises:
        UserError: there is none; the message offers the nearest.
    """
    from compiler.errors import UserError
    from compiler.ir import suggest

    rule = library.rules.get(name)
    if rule is None:
        raise UserError(f"no rule is called '{name}'{suggest(name, library.rules)}", "planish rules doc lists them")
    return rule
