"""The source of a matcher in the making."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compiler.rewrite import syntax as s
from compiler.rewrite.expressions import ExpressionCompiler
from compiler.rewrite.matcher_runtime import HELPERS
from compiler.rewrite.resolve_names import Variant


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


def _finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class Emitter:
    """Lines of a function that matches a variant of a rule, and what they refer to.

    Attributes:
        late: what emits tests of attributes and types, after those of structure.
        broadcast: what emits tests of dimensions that broadcast, after all other dimensions are bound.
        bound: names of the rule that have a value in the lines so far.
        matched: the local that holds the operator of a statement.
        ops: the locals that hold matched operators, the anchor first.
    """

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
        self.steps: list[Step] = []
        self.serial = 0
        self.globals: dict[str, Any] = dict(HELPERS)
        self.statement_of = {t.id: i for i, stmt in enumerate(variant.statements) for t in stmt.targets if t.id != "_"}
        self.matched: dict[int, str] = {}
        self.ops: list[str] = ["op"]

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
