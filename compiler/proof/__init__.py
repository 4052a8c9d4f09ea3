"""The proof: a package on disk, read back and given meaning, beside the original model in onnxruntime.

The way back starts from bytes and shares nothing with the way out: reader, then the rules of stage ``meaning``, then
onnxruntime. Half precision is emulated by rounding between operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.errors import VerificationError
from compiler.execution.running import MilSession, read_package, run_mil
from compiler.ir import TensorType, Type
from compiler.proof.reference import Reference

__all__ = [
    "MilSession", "OutputError", "Reference", "Verdict", "compare", "hold_to_shapes", "judge", "read_package",
    "run_mil", "worse",
]  # fmt: skip

Array = np.ndarray[Any, Any]

#: The greatest relative L2 error of an output, by precision.
LIMITS = {"fp16": 2e-2, "fp32": 1e-4}

#: The least share of elements of an integer or bool output that must agree. Near-ties of an argmax may fall either way
#: once values are rounded.
AGREEMENT = {"fp16": 0.98, "fp32": 0.999}

#: What stands for the PSNR of equal arrays, in dB: JSON knows no infinity.
EXACT_PSNR = 200.0


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far an output is from what it should be.

    Attributes:
        rel_l2: ‖a-b‖ / ‖b‖ over the elements that are finite in the reference; inf where finiteness disagrees.
        max_abs: the greatest absolute difference.
        rmse: the root of the mean square difference.
        psnr: 20·log10(max|b| / rmse) in dB, at most :data:`EXACT_PSNR`.
        agree: the share of equal elements of an integer or bool output, else None.
        argmax: the share of equal argmax positions along the last axis, for float outputs that have one; else None.
        undefined: how many elements are NaN in both.
    """

    rel_l2: float
    max_abs: float
    rmse: float
    psnr: float
    agree: float | None = None
    argmax: float | None = None
    undefined: int = 0

    def passes(self, precision: str, limit: float | None = None) -> bool:
        """Whether it is small enough for a package in ``precision``, or for ``limit`` where that is given."""
        if self.agree is not None:
            return self.agree >= AGREEMENT[precision]
        return self.rel_l2 <= (LIMITS[precision] if limit is None else limit)

    @property
    def badness(self) -> float:
        """One number to compare by: the relative error, or for integers the share of elements that differ."""
        return self.rel_l2 if self.agree is None else 1.0 - self.agree


def compare(ours: Array, reference: Array) -> OutputError:
    """The distance of ``ours`` from ``reference``. Element types may differ, shapes must not.

    A reference of texts is a choice: ours must be one of them.
    """
    if reference.dtype.kind == "U":
        return OutputError(0.0, 0.0, 0.0, EXACT_PSNR, agree=float(np.isin(ours, reference).all()))
    if ours.shape != reference.shape:
        return OutputError(math.inf, math.inf, math.inf, 0.0)
    exact = reference.dtype.kind in "iub"
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    undefined = int(np.count_nonzero(np.isnan(a) & np.isnan(b)))
    finite = np.isfinite(b)
    # Where the reference is inf or NaN ours must be the same.
    same = bool(np.array_equal(a[~finite], b[~finite], equal_nan=True)) and bool(np.isfinite(a[finite]).all())
    if not same:
        agree = float(np.mean(a == b)) if exact else None
        return OutputError(math.inf, math.inf, math.inf, 0.0, agree, undefined=undefined)
    difference = a[finite] - b[finite]
    kept = b[finite]
    error = float(np.linalg.norm(difference))
    scale = float(np.linalg.norm(kept))
    rel = 0.0 if error == 0.0 else (error / scale if scale > 0.0 else math.inf)
    max_abs = float(np.abs(difference).max(initial=0.0))
    peak = float(np.abs(kept).max(initial=0.0))
    rmse = error / math.sqrt(max(kept.size, 1))
    psnr = min(EXACT_PSNR, 20.0 * math.log10(peak / rmse)) if rmse > 0.0 and peak > 0.0 else EXACT_PSNR
    agree = float(np.mean(a == b)) if exact and a.size else (1.0 if exact else None)
    argmax = None
    if not exact and a.ndim >= 1 and a.shape[-1] > 1 and not undefined and a.size:
        argmax = float(np.mean(a.argmax(-1) == b.argmax(-1)))
    return OutputError(rel, max_abs, rmse, psnr, agree, argmax, undefined)


def worse(a: OutputError, b: OutputError) -> OutputError:
    """The one of two that is further off."""
    return a if a.badness >= b.badness else b


@dataclass(slots=True)
class Verdict:
    """What the proof found. ``outputs`` holds the worst error of each output over all sets of inputs."""

    status: str = "off"  # "passed", "failed" or "off"
    precision: str = "fp32"
    limit: float = LIMITS["fp32"]
    outputs: dict[str, OutputError] = field(default_factory=dict)
    sets: int = 0
    notes: list[str] = field(default_factory=list)
    failing_set: int | None = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def worst(self) -> tuple[str, OutputError] | None:
        """The output that is furthest off."""
        if not self.outputs:
            return None
        return max(self.outputs.items(), key=lambda item: item[1].badness)

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "limit": self.limit,
            "input_sets": self.sets,
            "outputs": {
                name: {
                    "rel_l2": _finite(e.rel_l2),
                    "max_abs": _finite(e.max_abs),
                    "psnr": _finite(e.psnr),
                    **({"agree": e.agree} if e.agree is not None else {}),
                    **({"argmax": e.argmax} if e.argmax is not None else {}),
                }
                for name, e in self.outputs.items()
            },
            "notes": self.notes,
        }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def judge(
    names: Sequence[str],
    ours: Sequence[Sequence[Array]],
    reference: Sequence[Sequence[Array]],
    precision: str,
    limit: float | None = None,
) -> Verdict:
    """Compares the outputs of every set of inputs with the reference's.

    Args:
        limit: the greatest relative L2 error of a float output, where it is not the precision's.
    """
    verdict = Verdict("passed", precision, LIMITS[precision] if limit is None else limit, sets=len(reference))
    for i, (mine, theirs) in enumerate(zip(ours, reference, strict=True)):
        for name, a, b in zip(names, mine, theirs, strict=True):
            error = compare(a, b)
            before = verdict.outputs.get(name)
            verdict.outputs[name] = error if before is None else worse(error, before)
            if not error.passes(precision, verdict.limit):
                verdict.status = "failed"
                if verdict.failing_set is None:
                    verdict.failing_set = i
    for name, error in verdict.outputs.items():
        if error.undefined:
            verdict.notes.append(f"output '{name}' has {error.undefined} NaN in the original model too")
    return verdict


def hold_to_shapes(declared: Sequence[tuple[str, Type]], results: Sequence[Sequence[Array]]) -> None:
    """Holds what a package computes to the shapes that it declares for its outputs.

    Raises:
        VerificationError: the model declares a size that depends on numbers.
    """
    for one in results:
        for (name, type_), array in zip(declared, one, strict=True):
            if isinstance(type_, TensorType) and type_.is_static and type_.static_shape != array.shape:
                raise VerificationError(
                    f"output '{name}' is {list(type_.static_shape)} as the model declares, and {list(array.shape)} on "
                    "inputs that were tried",
                    "a model that leaves the sizes of this output open",
                )
