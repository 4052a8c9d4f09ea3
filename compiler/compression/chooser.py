"""Which scheme for which weight, chosen anew until the package keeps its limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.compression import mixed
from compiler.compression.road import Road
from compiler.compression.settings import Settings
from compiler.errors import UserError
from compiler.ir import Module
from compiler.report import number
from passes.compress import Scheme

Inputs = list[np.ndarray[Any, Any]]


class Chooser:
    """The plan of mixed precision, made anew where the package turned out larger than the budget."""

    def __init__(self, settings: Settings, road: Road, data: Sequence[Inputs]) -> None:
        self.settings, self.road, self.data = settings, road, data
        self.plain_size = road.report.bytes["package"]
        #: By how many bytes packages turned out larger than planned, and which part of the error was too much.
        self.over = 0
        self.part = 1.0
        self.spent = road.report.verify.worst
        self.table: dict[str, list[mixed.Option]] | None = None
        self.sensitivity: mixed.Sensitivity | None = None

    def plan(self, stored: Module) -> dict[str, Scheme]:
        settings, road = self.settings, self.road
        if not settings.mixed:
            return {}
        if self.table is None or self.sensitivity is None:
            data = self.data or [list(t.values()) for t in road.tries]
            if not data:
                raise UserError("--quantize mixed measures outputs, and there are no inputs", "--calibrate data.npz")
            if not self.data:
                road.report.note("sensitivity was measured on the proof's inputs; --calibrate gives it better ones")
            self.sensitivity = mixed.Sensitivity(road.lowered, data, road.library)
            ios, tell = road.report.target.ios, road.report.at
            self.table = mixed.measure(road.lowered, stored, self.sensitivity, ios, tell)
        left = None
        if settings.budget is not None:
            held = sum(options[0].bits for options in self.table.values())
            left = (settings.budget - self.plain_size - self.over) * 8 + held
        return mixed.choose(self.table, self.sensitivity, left, self._allowed())

    def _allowed(self) -> float | None:
        """The error that is left for compression: rounding to half has its part already."""
        limit, worst = self.settings.max_error, self.spent
        if limit is None or worst is None:
            return limit
        spent = worst[1].badness
        if spent >= limit:
            raise UserError(
                f"without any compression outputs are {number(spent)} from the original's, over --max-error",
                "--precision fp32, or a larger --max-error",
            )
        return self.part * math.sqrt(limit**2 - spent**2)
