"""What a model is compiled for: a compute unit, an OS release and a precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from compiler import hardware
from compiler.errors import UserError
from compiler.hardware import DEFAULT_CHIP
from compiler.ir import Op, lookup, suggest

Unit = Literal["ane", "gpu", "cpu", "metal"]
Precision = Literal["fp16", "fp32"]

UNITS: tuple[str, ...] = get_args(Unit)
PRECISIONS: tuple[str, ...] = get_args(Precision)

#: OS releases by the name that ``--os`` takes: the iOS number, its macOS twin's, and Core ML's specification version,
#: which is what ``since`` counts in for operators of a package.
RELEASES: dict[str, tuple[int, int, int]] = {
    "ios16": (16, 13, 7),
    "ios17": (17, 14, 8),
    "ios18": (18, 15, 9),
    "ios26": (26, 26, 10),
}

DEFAULT_OS = "ios17"

UNIT_TITLES = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU", "metal": "Metal kernels"}


@dataclass(frozen=True, slots=True)
class Target:
    """A compute unit × an OS release × a precision: what rules ask of it, and nothing else.

    Attributes:
        unit: ``ane``, ``gpu``, ``cpu`` or ``metal``.
        os: a key of :data:`RELEASES`.
        precision: ``fp16`` or ``fp32``: the element type that floats are computed in.
        chip: for which chip placement is predicted and time estimated; a package runs on all of them.
    """

    unit: Unit = "cpu"
    os: str = DEFAULT_OS
    precision: Precision = "fp32"
    chip: str = DEFAULT_CHIP

    @staticmethod
    def of(unit: str, os: str = DEFAULT_OS, precision: str | None = None, chip: str = DEFAULT_CHIP) -> Target:
        """The target with the default precision of its unit: fp16 on ane and gpu, fp32 on cpu and metal.

        Raises:
            UserError: a name is not one of those known.
        """
        unit = known("target", unit, UNITS)
        os = known("OS release", os, RELEASES)
        if precision is None:
            precision = "fp16" if unit in ("ane", "gpu") else "fp32"
        precision = known("precision", precision, PRECISIONS)
        name = hardware.chip(chip).name
        return Target(unit, os, precision, name)  # type: ignore[arg-type]  # known() has checked the names

    @property
    def ios(self) -> int:
        """The number of the iOS release; its macOS twin offers the same operators."""
        return RELEASES[self.os][0]

    @property
    def title(self) -> str:
        return UNIT_TITLES[self.unit]

    def milliseconds(self, op: Op) -> float:
        """The estimated time of an operator on the target's unit and chip, without the start of a call.

        Generated kernels run on the GPU.
        """
        unit = "gpu" if self.unit == "metal" else self.unit
        return hardware.cost(op, unit, hardware.chip(self.chip)).ms

    def milliseconds_away(self, op: Op) -> float:
        """The estimated time of an operator that leaves the target's unit for the CPU: there, its work, and back.

        The way is as :mod:`passes.place` counts it: a copy of each value that moves, and half of a call.
        """
        on = hardware.chip(self.chip)
        moved = {v for v in (*op.operands, *op.results) if v is not None and not hardware.is_parameter(v)}
        sizes = [hardware.footprint(v, "cpu") for v in moved]
        return hardware.cost(op, "cpu", on).ms + sum(hardware.transfer_ms(n, on) + on.dispatch_ms / 2 for n in sizes)

    def nanoseconds_moved(self, read_and_written: int) -> float:
        """The estimated time of moving so many bytes of f32 values on the target's unit, in its own precision."""
        unit = "gpu" if self.unit == "metal" else self.unit
        nbytes = read_and_written // 2 if self.precision == "fp16" else read_and_written
        return 1e6 * hardware.milliseconds(hardware.Work("copy", moved=nbytes), unit, hardware.chip(self.chip))

    def supports(self, op: str) -> bool:
        """Whether the release has the operator with this qualified name, by the ``since`` of its definition.

        Raises:
            UnknownOperatorError: no dialect defines it in any release.
        """
        return lookup(op).since <= RELEASES[self.os][2]


def known(what: str, name: str, names: Iterable[str]) -> str:
    """``name``, which must be one of ``names``.

    Raises:
        UserError: it is not; the message offers the nearest.
    """
    names = list(names)
    if name not in names:
        raise UserError(f"no {what} is called '{name}'{suggest(name, names)}", f"one of {', '.join(names)}")
    return name
