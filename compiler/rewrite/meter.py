"""``planish rules stats``: what rules do over models, counted and timed while they take their usual road."""

from __future__ import annotations

from typing import Any

from compiler.ir import Block, Function, Module
from compiler.rewrite.driver import Report, RuleStats
from compiler.rewrite.library import Library


class Meter(Library):
    """A library that counts and times what its rules do, over as many models as are compiled with it."""

    def __init__(self, library: Library) -> None:
        super().__init__(library.files, library.disabled)
        self.total: dict[str, RuleStats] = {}
        self.visits = 0
        self.seconds = 0.0

    def rewrite(self, scope: Module | Function | Block, stage: str, target: Any = None, **options: Any) -> Report:
        report = super().rewrite(scope, stage, target, **{**options, "timed": True})
        self.visits += report.visits
        self.seconds += report.seconds
        for name, r in report.rules.items():
            t = self.total.setdefault(name, RuleStats())
            t.attempts += r.attempts
            t.fires += r.fires
            t.rejected += r.rejected
            t.seconds += r.seconds
            t.ops += r.ops
            t.reason = r.reason or t.reason
        return report

    @property
    def silent(self) -> list[str]:
        """The rules of the stages that ran that have never fired."""
        return [name for name, t in self.total.items() if not t.fires]
