"""Trials: what each step gave, kept in a file so that a killed climb goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compiler.errors import UserError
from compiler.ladder.steps import Step

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """What a package is like.

    Attributes:
        package: its path.
        bytes: its size.
        latency_ms, energy_mj, memory_mb: estimates.
        macs: multiplications with additions of one call.
        scores: the metric, sample by sample.
        refused: why there is no package; everything else is empty then.
    """

    package: str = ""
    bytes: int = 0
    latency_ms: float = 0.0
    energy_mj: float = 0.0
    memory_mb: float = 0.0
    macs: int = 0
    scores: tuple[float, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A step, what it gave, and what became of it.

    Attributes:
        score, low, high: the metric's mean and the interval that holds the true one with 95 %.
        drop: how much worse the metric is than the original's.
        kept: whether the climb went on from here.
        why: why not.
    """

    step: Step
    options: Mapping[str, Any]
    measured: Measured
    score: float = 0.0
    low: float = 0.0
    high: float = 0.0
    drop: float = 0.0
    kept: bool = False
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        facts = {
            k: getattr(self.measured, k) for k in ("package", "bytes", "latency_ms", "energy_mj", "memory_mb", "macs")
        }
        keys = ("score", "low", "high", "drop", "kept", "why")
        return {"step": self.step.name, "options": dict(self.options), **facts, **{k: getattr(self, k) for k in keys}}


def front(trials: Sequence[Trial], allowed: float) -> list[Trial]:
    """The Pareto front: trials that no other beats in size, latency and metric at once, within the allowed drop."""
    fit = [t for t in trials if not t.measured.refused and t.drop <= allowed]

    def beats(a: Trial, b: Trial) -> bool:
        x, y = ((t.measured.bytes, t.measured.latency_ms, t.drop) for t in (a, b))
        return x != y and all(i <= j for i, j in zip(x, y, strict=True))

    return [t for t in fit if not any(beats(other, t) for other in fit)]


class Journal:
    """What was measured, by what was asked, in a file that is whole at any moment."""

    def __init__(self, folder: Path, of: str) -> None:
        """
        Args:
            of: what the measurements depend on besides the step: model, data, metric, target, rules.

        Raises:
            UserError: the folder cannot be used.
        """
        self._path = folder / "ladder.json"
        self._of = of
        self._measured: dict[str, Measured] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                found = json.loads(self._path.read_text(encoding="utf-8"))
                if found.get("format") == _FORMAT and found.get("of") == of:
                    rows = found["measured"].items()
                    self._measured = {k: Measured(**{**v, "scores": tuple(v["scores"])}) for k, v in rows}
        except OSError as e:
            raise UserError(f"cannot use the folder {folder}: {e.strerror}", "--work with another folder") from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{self._path} is damaged", f"remove it; steps are then measured again ({e})") from e

    def get(self, key: str) -> Measured | None:
        """What was measured before, if its package is still there."""
        found = self._measured.get(key)
        return found if found is not None and (found.refused or Path(found.package).exists()) else None

    def put(self, key: str, measured: Measured) -> None:
        """Keeps a measurement.

        Raises:
            UserError: there is no room.
        """
        self._measured[key] = measured
        rows = {k: asdict(m) for k, m in self._measured.items()}
        draft = self._path.with_suffix(".draft")
        try:
            draft.write_text(json.dumps({"format": _FORMAT, "of": self._of, "measured": rows}, indent=1) + "\n")
            os.replace(draft, self._path)
        except OSError as e:
            raise UserError(f"cannot write {self._path}: {e.strerror}", "--work with another folder") from e
