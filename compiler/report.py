"""What a compile has to say: collected stage by stage, written as JSON, printed as a compact summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from compiler.errors import UserError
from compiler.ir import Module, Op
from compiler.proof import OutputError, Verdict
from compiler.target import Target


class Progress(Protocol):
    """Who is told how far a compile is. The command line draws it; the API passes none."""

    def begin(self, stage: str) -> None:
        """A stage starts."""

    def end(self, stage: str, what: str, result: str) -> None:
        """A stage ended: what it did, and what came of it."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, stage: str) -> None:
        pass

    def end(self, stage: str, what: str, result: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@dataclass(slots=True)
class Report:
    """One compile.

    Attributes:
        accuracy: the precision whose limits the proof applies: the target's.
        limit: the greatest relative error that the proof lets pass, where it is not the precision's.
        seconds: wall-clock time by stage, in order.
        nodes: operators of the model as it came.
        ops: operators of the package by type, constants left out.
        interior: transposes, reshapes and their like that stand between operators that compute.
        rules: how often each rule fired.
        kept: operators that compute in f32 though the package computes in f16, with the reason.
        bytes: sizes on disk of ``source`` and ``package``.
        compression: what became of each weight, and how far outputs are from the original's; empty without.
        original: what the original model gives on the proof's inputs, where another one is compiled in its place.
    """

    model: str
    target: Target
    accuracy: str = "fp32"
    progress: Progress = field(default_factory=Silent)
    output: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    nodes: int = 0
    ops: dict[str, int] = field(default_factory=dict)
    interior: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    verify: Verdict = field(default_factory=Verdict)
    placement: dict[str, Any] = field(default_factory=dict)
    kept: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    limit: float | None = None
    compression: dict[str, Any] = field(default_factory=dict)
    original: list[list[Any]] | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Times a stage and tells the progress; the body says what it did by setting ``what`` and ``result``."""
        self.progress.begin(name)
        stage = Stage()
        start = perf_counter()
        try:
            yield stage
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start
        if not stage.quiet:
            self.progress.end(name, stage.what, stage.result)

    def at(self, text: str) -> None:
        """Says how far the stage at work is, to those who want to know: ``progress`` need not have ``at``."""
        tell = getattr(self.progress, "at", None)
        if tell is not None:
            tell(text)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.progress.note(text)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "output": self.output,
            "target": self.target.unit,
            "os": self.target.os,
            "precision": self.target.precision,
            "seconds": {k: round(v, 4) for k, v in self.seconds.items()},
            "nodes": self.nodes,
            "ops": self.ops,
            "interior_layout_ops": self.interior,
            "rules": dict(self.rules.most_common()),
            "verify": self.verify.to_json(),
            "placement": self.placement,
            "fp32_ops": self.kept,
            "notes": self.notes,
            "bytes": self.bytes,
            **({"compression": self.compression} if self.compression else {}),
        }

    def write(self, path: str | Path) -> None:
        """Writes the report as JSON.

        Raises:
            UserError: it cannot be written there.
        """
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as e:
            raise UserError(f"cannot write the report {path}: {e.strerror}", "another file, with --json") from e


@dataclass(slots=True)
class Stage:
    """What a stage did, filled in by its body."""

    what: str = ""
    result: str = ""
    quiet: bool = False


def count_ops(module: Module) -> dict[str, int]:
    """Operators by type without the dialect's name, most frequent first; constants and terminators left out."""
    counts = Counter(short(op) for op in module.walk() if counts_as_op(op))
    return dict(counts.most_common())


def number_of_ops(module: Module) -> int:
    """How many operators compute something."""
    return sum(1 for op in module.walk() if counts_as_op(op))


def counts_as_op(op: Op) -> bool:
    """Whether an operator computes something: no constant, compressed or not, and no terminator."""
    return op.defn.constant is None and not op.defn.terminator and not op.name.startswith("mil.constexpr_")


def short(op: Op) -> str:
    """Its name without dialect and version."""
    return op.name.partition(".")[2].partition("@")[0]


def size_on_disk(path: str | Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def megabytes(size: int) -> str:
    """A size in bytes, for people."""
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size / 1e3:.1f} kB"


def fires(rules: Mapping[str, int], most: int = 4) -> str:
    """``batch_norm_into_conv ×35, hard_swish ×27, 3 more rules``."""
    ordered = sorted(rules.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} ×{count}" for name, count in ordered[:most])
    left = len(ordered) - most
    return f"{text}, {left} more rule{'s' if left > 1 else ''}" if left > 0 else text


def error_text(error: OutputError, limit: float) -> str:
    """``rel. L2 6.1e-4 (limit 2e-2), same argmax``."""
    if error.agree is not None:
        return f"{error.agree:.4g} of elements equal" if error.agree < 1.0 else "equal"
    text = f"rel. L2 {number(error.rel_l2)} (limit {number(limit)})"
    if error.argmax is not None:
        text += ", same argmax" if error.argmax == 1.0 else f", argmax agrees in {100 * error.argmax:.3g} %"
    return text


def number(x: float) -> str:
    """``6.1e-4``: two digits, the exponent without padding."""
    if x == 0.0:
        return "0"
    mantissa, _, exponent = f"{x:.1e}".partition("e")
    if not exponent:
        return mantissa
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
