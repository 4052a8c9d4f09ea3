"""The worklist: applies the rules of a stage until none applies.

Cost is local: an application touches what the rule matched and built, and queues again only the operators near it.
Nothing is changed before a match is whole, and what a rule built is taken back if the types do not fit.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from compiler.ir import (
    Block,
    Function,
    InferenceError,
    Location,
    Module,
    Op,
    OpResult,
    TensorType,
    Type,
    Value,
    type_meet,
)
from compiler.rewrite.build import RuleBuilder
from compiler.rewrite.diagnostics import RewriteError
from compiler.rewrite.endless import MOST_WATCHED, WATCHED, Descent, endless, look
from compiler.rewrite.functions import Decline
from compiler.rewrite.placement import place, reaches_users
from compiler.rewrite.stage import Entry, Stage

#: What rules see where no target is given.
NO_TARGET = SimpleNamespace(unit=None, ios=None, precision=None, supports=lambda name: True)

#: An operator may descend from this many applications, and four times the size of the graph more, before the rules
#: count as not terminating: a transpose that travels through a whole graph is one long descent, a swap has no end.
_DESCENT = 1000


@dataclass(slots=True)
class RuleStats:
    """What one rule did: how often it was tried, applied, and turned down because what it built did not fit.

    ``reason`` says why it was turned down last; ``misfit`` has the types of a new value and the old one, if that was
    why; ``ops`` is by how many operators it has changed their number.
    """

    attempts: int = 0
    fires: int = 0
    rejected: int = 0
    seconds: float = 0.0
    reason: str = ""
    misfit: tuple[Type, Type] | None = None
    ops: int = 0


@dataclass(slots=True)
class Report:
    """What a stage did to a module."""

    stage: str
    rules: dict[str, RuleStats] = field(default_factory=dict)
    visits: int = 0
    seconds: float = 0.0

    @property
    def fires(self) -> dict[str, int]:
        """The rules that fired, with how often, most first."""
        counts = Counter({name: r.fires for name, r in self.rules.items() if r.fires})
        return dict(counts.most_common())


OnFire = Callable[[str, Sequence[Op], Sequence[Op]], None]


def rewrite(
    scope: Module | Function | Block,
    stage: Stage,
    target: Any = None,
    *,
    timed: bool = False,
    on_fire: OnFire | None = None,
    descent: int = _DESCENT,
) -> Report:
    """Applies the rules of ``stage`` to everything in ``scope``, regions included, until none applies.

    Args:
        target: what conditions see as ``target``.
        timed: also measure the seconds that each rule takes.
        on_fire: called after each application with the rule's name, the matched operators that are gone, and the new.
        descent: from how many applications on, one upon the other, rules on a small graph count as not terminating.

    Raises:
        RewriteError: the rules do not terminate (the message names the cycle), or one of them built what cannot be.
    """
    # Rules ask whether what they compute is finite; NumPy need not warn of it. Where numbers that are not too large by
    # themselves are so together, no rule applies: in the graph one of them meets 0, or what is small, before the other.
    with aside(), np.errstate(all="ignore", over="raise"):
        return _Run(stage, NO_TARGET if target is None else target, timed, on_fire, descent).run(scope)


@contextmanager
def aside() -> Iterator[None]:
    """Keeps what is there already out of the garbage collector's way: walking the graph again takes it as long
    as the rewriting. What the rules make is collected as ever."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def expand(op: Op, stage: Stage, target: Any = None) -> tuple[list[tuple[Value, Value]], RuleBuilder] | None:
    """Builds, before ``op``, what the first rule that matches would put in its place, and replaces nothing.

    Returns:
        Pairs of a result of ``op`` and what would stand for it, and the builder, which can take everything back; None
        if no rule matches.

    Raises:
        InferenceError: the result cannot be built.
    """
    target = NO_TARGET if target is None else target
    for entry in stage.candidates(op):
        found = entry.matcher.match(op, target)
        if found is None:
            continue
        variant, matched, bound = found
        builder = RuleBuilder(op, Location.fuse((m.loc for m in matched), entry.rule.name), target)
        try:
            return list(entry.builds[variant](builder, target, bound)), builder
        except (Decline, FloatingPointError):
            builder.undo()
    return None


def apply_once(entry: Entry, op: Op, stage: Stage, target: Any = None) -> bool:
    """Applies one rule of ``stage`` at one operator; says whether it did.

    Raises:
        RewriteError: a condition or the result failed.
    """
    run = _Run(stage, NO_TARGET if target is None else target, False, None, _DESCENT)
    run.limit = run.fuel = _DESCENT
    return run.try_rule(entry, op, run.report.rules[entry.rule.name])


class _Run:
    def __init__(self, stage: Stage, target: Any, timed: bool, on_fire: OnFire | None, descent: int) -> None:
        self.stage = stage
        self.patience = descent
        self.target = target
        self.timed = timed
        self.on_fire = on_fire
        self.report = Report(stage.name, {name: RuleStats() for name in stage.rules})
        self.queue: deque[Op] = deque()
        self.queued: set[Op] = set()
        self.descent: dict[Op, Descent] = {}
        self.limit = 0
        self.fuel = 0

    def run(self, scope: Module | Function | Block) -> Report:
        started = time.perf_counter()
        size = 0
        for op in scope.walk():
            size += 1
            self.push(op)
        self.limit = self.patience + 4 * size
        self.fuel = 3 * self.patience + 100 * size
        queue, queued = self.queue, self.queued
        candidates = self.stage.candidates
        visits = 0
        while queue:
            op = queue.popleft()
            queued.discard(op)
            if op.block is None:
                continue
            visits += 1
            for entry in candidates(op):
                if self.attempt(entry, op):
                    break
        self.report.visits = visits
        self.report.seconds = time.perf_counter() - started
        return self.report

    def push(self, op: Op) -> None:
        if op not in self.queued and self.stage.starts_at(op):
            self.queued.add(op)
            self.queue.append(op)

    def attempt(self, entry: Entry, op: Op) -> bool:
        stats = self.report.rules[entry.rule.name]
        stats.attempts += 1
        if not self.timed:
            return self.try_rule(entry, op, stats)
        started = time.perf_counter()
        try:
            return self.try_rule(entry, op, stats)
        finally:
            stats.seconds += time.perf_counter() - started

    def try_rule(self, entry: Entry, op: Op, stats: RuleStats) -> bool:
        try:
            found = entry.matcher.match(op, self.target)
        except MemoryError:  # the model is to blame, not the rule
            raise
        except Exception as e:
            raise _failed(entry, op, "a condition", e) from e
        if found is None:
            return False
        variant, matched, bound = found
        roots = self.roots(entry, matched, bound)
        before = place(roots, matched)
        if before is None:
            return False
        loc = Location.fuse((m.loc for m in matched), entry.rule.name)
        builder = RuleBuilder(before, loc, self.target)
        try:
            pairs = entry.builds[variant](builder, self.target, bound)
        except (Decline, FloatingPointError):
            builder.undo()
            return False
        except InferenceError as e:  # the rule is not made for a graph like this one
            builder.undo()
            return turned_down(stats, str(e))
        except MemoryError:
            builder.undo()
            raise
        except Exception as e:
            builder.undo()
            raise _failed(entry, op, "the result", e) from e
        made = set(builder.made)
        misfit = next(((old, new) for old, new in pairs if not _fits(old, new, made)), None)
        if misfit is not None:
            builder.undo()
            stats.misfit = misfit[1].type, misfit[0].type
            return turned_down(stats, f"a value of type {misfit[1].type} cannot stand for one of type {misfit[0].type}")
        if not reaches_users(pairs, roots, before, matched):
            builder.undo()
            return turned_down(stats, "a result inside the match is used before the place where it would be made")
        stats.fires += 1
        stats.ops += len(builder.made) - self.apply(entry.rule.name, pairs, matched, builder.made)
        return True

    @staticmethod
    def roots(entry: Entry, matched: Sequence[Op], bound: Sequence[Any]) -> list[Op]:
        v = entry.variant
        if len(v.anchors) == 1:
            return [matched[0]]
        values = dict(zip(entry.matcher.names, bound))
        roots: list[Op] = []
        for i in v.anchors:
            name = next((t.id for t in v.statements[i].targets if t.id != "_"), None)
            if name is not None:
                roots.append(values[name].op)
        return roots

    def apply(self, rule: str, pairs: Sequence[tuple[Value, Any]], matched: Sequence[Op], made: Sequence[Op]) -> int:
        """Puts the new values in the place of the old; the number of operators that are gone."""
        parent = None
        for m in matched:
            d = self.descent.get(m)
            if d is not None and (parent is None or d.depth > parent.depth):
                parent = d
        depth = parent.depth + 1 if parent else 1
        watched = WATCHED <= depth < WATCHED + MOST_WATCHED and bool(made)
        step = Descent(rule, parent, depth, look(made[-1]) if watched else None)
        self.fuel -= 1
        if depth > self.limit or self.fuel < 0 or (watched and step.recurs()):
            raise endless(self.stage.name, {n: r.fires for n, r in self.report.rules.items()}, step)
        near: list[Value] = []
        for old, new in pairs:
            if not new.name or (isinstance(new, OpResult) and new.op in made):
                new.name = old.name or new.name
            met = type_meet(new.type, old.type)
            if met is not None and isinstance(new, OpResult):
                new.type = met
            old.replace_all_uses_with(new)
            near.append(new)
        for op in made:
            self.descent[op] = step
            self.push(op)
            for region in op.regions:
                for inner in region.walk():
                    self.push(inner)
        gone = self.erase(matched)
        self.requeue(near)
        if self.stage.roots:
            for op in made:
                for v in op.operands:
                    if v is not None:
                        for user in list(v.users):
                            if user.defn.name in self.stage.roots:
                                self.push(user)
        if self.on_fire is not None:
            self.on_fire(rule, gone, made)
        return len(gone)

    def erase(self, matched: Sequence[Op]) -> list[Op]:
        """Erases matched operators that nothing uses any more, and what thereby falls out of use."""
        gone: list[Op] = []
        stack = list(reversed(matched))
        roots = {matched[0]}
        while stack:
            op = stack.pop()
            if op.block is None or not op.is_unused or not (op.defn.pure or op in roots) or op.defn.terminator:
                continue
            operands = op.operands
            op.erase()
            self.descent.pop(op, None)
            gone.append(op)
            for v in operands:
                if v is None:
                    continue
                if v.op is not None and v.op.is_unused:
                    stack.append(v.op)
                elif len(v._uses) == 1:
                    # A condition on the number of uses may hold from now on.
                    self.requeue((v,))
        return gone

    def requeue(self, values: Iterable[Value]) -> None:
        """Queues the operators whose patterns may reach ``values``."""
        front = list(values)
        seen: set[Op] = set()
        below, between = self.stage.below, self.stage.between
        level = 0
        while front:
            level += 1
            following: list[Value] = []
            for v in front:
                for user in v._uses:
                    if user not in seen:
                        seen.add(user)
                        name = user.defn.name
                        if below.get(name, 0) >= level:
                            self.push(user)
                        if between.get(name, 0) >= level:
                            following.extend(user.results)
            front = following


def _fits(old: Value, new: Any, made: set[Op]) -> bool:
    """Whether ``new`` may stand for ``old``: the same type, or, for what was just built, one that does not contradict.

    Inference may know less of a new operator than of the old one, or more; of a value that was there before, a less
    specific type means that the two need not have the same shape.
    """
    if new.type is old.type:
        return True
    met = type_meet(old.type, new.type)
    if met is None:
        return False
    if isinstance(new, OpResult) and new.op in made:
        return True
    return met is new.type and not (isinstance(old.type, TensorType) and old.type.shape is None)


def turned_down(stats: RuleStats, reason: str) -> bool:
    """Counts a result that is not taken."""
    stats.rejected += 1
    stats.reason = reason
    return False


def _failed(entry: Entry, op: Op, part: str, e: Exception) -> RewriteError:
    rule = entry.rule
    where = f" at {op.loc}" if op.loc.nodes else ""
    what = f"{type(e).__name__}: {e}"
    return RewriteError(
        f"{rule.file}:{rule.pos.line}: rule '{rule.name}': {part} failed on {op.name}{where}: {what}",
        f"correct the rule, or leave it out with --disable-rule {rule.name}",
    )
