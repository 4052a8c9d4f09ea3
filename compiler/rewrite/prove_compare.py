"""The contracts that rules are held to, as comparisons of arrays.

``exact``: equal, infinities, NaN and their places included; 0.0 equals -0.0.

``rounding``: the two sides may round differently, as they compute the same in another order. Each element of a float
result may be off by RELATIVE of itself plus ABSOLUTE of the largest number that occurred on the way (a difference of
large numbers keeps their error). Beyond that, it may be off by SENSITIVE times what it moves by when the inputs are
rounded differently: inside an operator (x - mean) / deviation is a difference of large numbers too. Where the left
side is not finite the result says nothing and is not compared. 8-bit results of float computations may be off by one.
All other integers are equal. A rule that looks for constants by ``≈`` promises single precision at most.

``approximate(rtol)``: the relative L2 error is at most rtol, and no element is off by more than rtol of itself plus
of the result's largest element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.rewrite.syntax import Numeric

Array = np.ndarray[Any, Any]

#: What an element may be off by of itself: some hundred roundings of its element type. In double precision as in single
#: nearly: numbers written in a rule are single.
RELATIVE = {"f64": 1e-6, "f32": 5e-5, "f16": 8e-3, "bf16": 6e-2}
#: And of the largest number on the way: some ten roundings.
ABSOLUTE = {"f64": 1e-8, "f32": 2e-6, "f16": 2e-3, "bf16": 1.6e-2}


#: How many times what differently rounded inputs move a result by, it may be off.
SENSITIVE = 8.0


#: So many elements of an 8-bit result may be next to a tie, whatever its size.
_TIES = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two results part: the output, the index, both numbers, in words."""

    output: int
    text: str

    def __str__(self) -> str:
        return self.text


def difference(
    left: list[Array],
    right: list[Array],
    contract: Numeric,
    scale: float,
    rough: float,
    approximate: bool = False,
    moved: list[Array] | None = None,
) -> Difference | None:
    """What is wrong with ``right``, by the contract; None if nothing is.

    Args:
        scale: the largest finite magnitude among inputs, intermediate and final results of the left side.
        rough: the share of elements of 8-bit results that may be off by one, as floats are computed with on the way:
            those next to a tie. Where all are, the rounding is another.
        approximate: the rule looks for constants by ``≈``.
        moved: how far each element of the left side moves when inputs are rounded differently.
    """
    for i, (a, b) in enumerate(zip(left, right)):
        if a.dtype != b.dtype:
            return Difference(i, f"result {i} is of type {b.dtype}, not {a.dtype}")
        if a.shape != b.shape:
            return Difference(i, f"result {i} has shape {list(b.shape)}, not {list(a.shape)}")
        wrong = _wrong(a, b, contract, scale, rough, approximate, 0.0 if moved is None else SENSITIVE * moved[i])
        if wrong is not None and bool(wrong.any()):
            at = tuple(int(k) for k in np.argwhere(np.atleast_1d(wrong))[0]) if a.ndim else ()
            count = int(np.count_nonzero(wrong))
            share = f" and {count - 1} more of {a.size}" if count > 1 else f" of {a.size}"
            return Difference(i, f"result {i} at {list(at)}: {b[at]} instead of {a[at]}{share}")
    return None


def _wrong(
    a: Array, b: Array, contract: Numeric, scale: float, rough: float, approximate: bool, slack: Any
) -> Array | None:
    """Which elements break the contract."""
    name = _float_name(a.dtype)
    if name is None:
        if rough and contract.contract != "exact" and a.dtype.kind in "iu" and a.dtype.itemsize == 1:
            steps = np.abs(a.astype(np.int32) - b.astype(np.int32))
            besides = np.count_nonzero((steps == 1) & (np.broadcast_to(slack, a.shape) < 1))
            return np.asarray(steps > (1 if besides <= max(_TIES, rough * a.size) else 0))
        return np.asarray(a != b)
    if approximate and name == "f64":
        name = "f32"
    x, y = a.astype(np.float64), b.astype(np.float64)
    if contract.contract == "exact":
        return np.asarray((x != y) & ~(np.isnan(x) & np.isnan(y)))
    finite = np.isfinite(x)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(x - y)
        size = np.abs(x)
        undefined = np.isnan(x) & np.isfinite(y) & ~np.isinf(slack)
        if contract.contract == "rounding":
            most = RELATIVE.get(name, 0.1) * size + ABSOLUTE.get(name, 0.1) * scale + slack
            return np.asarray((finite & ~(off <= most)) | undefined)
        rtol = contract.rtol or 0.0
        peak = float(size[finite].max(initial=0.0))
        rtol += ABSOLUTE.get(name, 0.1)
        wrong = np.asarray(undefined | finite & ~(off <= rtol * (size + peak) + slack))
        slack = np.broadcast_to(slack, x.shape)
        solid = finite & np.isfinite(slack)
        norm = float(np.linalg.norm(x[solid]))
        extra = float(np.linalg.norm(slack[solid]))
        if not wrong.any() and float(np.linalg.norm(off[solid])) > rtol * norm + extra + 1e-30:
            return np.asarray(off >= float(off[solid].max(initial=0.0)))
        return wrong


def _float_name(dtype: np.dtype[Any]) -> str | None:
    from compiler.ir import from_numpy

    found = from_numpy(dtype)
    return found.name if found.is_float else None
