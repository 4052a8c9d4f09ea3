"""Which operators lose too much in half precision, found on the proof's own inputs.

First by range: values that overflow to inf or sink below the smallest halves; powers of two bring back what they can
(:mod:`passes.rescale`). Then by search: the fewest operators found that bring the error back under the limit when they
stay in f32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.hardware import work
from compiler.ir import F32, Module, Op, TensorType, Value, clone_function, clone_module
from compiler.proof import LIMITS, MilSession, Verdict, judge, run_mil
from passes import half, rescale, two_halves

if TYPE_CHECKING:
    from compiler.report import Report
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

#: A value survives rounding to half if its relative L2 error stays below this; see :data:`passes.half.CONSTANT_LOSS`.
VALUE_LOSS = 5e-3

#: How many trial evaluations a search may take.
TRIALS = 36

#: An error that leaves room to the limit of half precision, 2e-2, for inputs that were not tried.
MARGIN = 1.6e-2

#: So much of the multiplications a margin may cost: 99 % of them are to run on a unit for half precision.
SHARE = 0.01

_LOSES = "loses too much in half precision on the proof's inputs"

_PROBE_BYTES = 1 << 28

_SUMS = frozenset({"mil.add", "mil.sub"})


@dataclass(slots=True)
class Trial:
    """A mil module that computes in f32, and what its outputs should be on the proof's inputs, within ``limit`` where
    that is given."""

    lowered: Module
    inputs: Sequence[Sequence[Array]]
    expected: Sequence[Sequence[Array]]
    library: Library
    os: str
    limit: float | None = None
    in_range: bool = False  # whether half precision is known to hold all values on all inputs

    def judge_full(self) -> Verdict:
        """The verdict on the module before half precision, by the limits of half precision."""
        return self._judge(clone_module(self.lowered), self.limit)

    def judge_half(self, keep: Mapping[Op, str], limit: float | None = None) -> Verdict:
        """The verdict on the module in half precision, ``keep`` in f32; within another limit where one is given."""
        return self._judge(halved(self.lowered, self.os, keep)[0], self.limit if limit is None else limit)

    def _judge(self, module: Module, limit: float | None) -> Verdict:
        """The verdict by the limits of half precision. The sets of inputs after one that fails are not run."""
        session = MilSession(module, self.library)
        names, ours = self.lowered.main.output_names, []
        verdict = Verdict("passed", "fp16")
        for inputs in self.inputs:
            ours.append(session.run(inputs))
            verdict = judge(names, ours, self.expected[: len(ours)], "fp16", limit)
            if not verdict.passed:
                break
        return verdict


def culprits(trial: Trial, keep: Mapping[Op, str]) -> dict[Op, str]:
    """The operators of ``trial.lowered`` that must join ``keep`` for half precision to hold; empty if none helps."""
    lost = {} if trial.in_range else _out_of_range(trial)
    out_of_range = {op: why for op, why in lost.items() if op not in keep}
    if out_of_range:
        return out_of_range
    return _search(trial, dict(keep))


def split(trial: Trial, keep: Mapping[Op, str], lost: Mapping[Op, str]) -> str:
    """Holds the constants of operators of ``lost`` by two halves, in place, if half precision does without them in f32
    and that multiplies hardly more.

    Returns:
        What was done, in a sentence; empty if nothing was.
    """
    copy, twins = _copy(trial.lowered)
    candidates = [twin for op in lost if (twin := twins[op.results[0]].op) is not None]
    if two_halves.run(candidates) < len(lost) or _multiplications(copy) > (1 + SHARE) * _multiplications(trial.lowered):
        return ""
    kept = {twin: why for op, why in keep.items() if (twin := twins[op.results[0]].op) is not None}
    if not replace(trial, lowered=copy).judge_half(kept).passed:
        return ""
    return f"held constants of {two_halves.run(lost)} operators by two halves each: one {_LOSES}"


def _multiplications(module: Module) -> int:
    return sum(work(op).macs for op in module.main.block.ops if _computes_floats(op))


def rescaled(trial: Trial) -> str:
    """Scales values of ``trial.lowered`` by powers of two, in place, where half precision cannot hold them as they are.

    Returns:
        What was done, in a sentence; empty if nothing was.
    """
    largest: dict[Value, float] = {}
    why = ""
    for index in range(len(trial.inputs)):
        for value, array in _values(trial, index):
            finite = np.abs(array[np.isfinite(array)])
            largest[value] = max(largest.get(value, 0.0), float(finite.max(initial=0.0)))
            why = why or (half.constant_loss(array, VALUE_LOSS) or "").replace("constant", "value", 1)
    trial.in_range = not why
    count = rescale.run(trial.lowered, largest) if why else 0
    return f"scaled {count} values by powers of two: {why}" if count else ""


def _out_of_range(trial: Trial) -> dict[Op, str]:
    """Operators that make or take a value that half precision cannot hold, by the values of the f32 evaluation.

    A value that does nothing but enter sums is judged by what they lose.
    """
    found: dict[Op, str] = {}
    lost: dict[Value, tuple[str, float]] = {}
    sums: dict[Op, float] = {}
    for value, array in _values(trial, 0):
        if value.op is not None and value.op.name in _SUMS:
            sums[value.op] = float(np.linalg.norm(array))
        loss = half.constant_loss(array, VALUE_LOSS)
        if loss is not None:
            lost[value] = loss.replace("constant", "value", 1), _rounding(array)
    for value, (why, error) in lost.items():
        if all(error <= 2.0**-11 * sums.get(user, 0.0) for user in value.users):
            continue
        producer = value.op
        if producer is not None:
            found.setdefault(producer, why)
        for user in value.users:
            if not user.defn.terminator:
                found.setdefault(user, why)
    return found


def _rounding(array: Array) -> float:
    """What rounding to half takes from an array, in the L2 norm; not finite if it overflows, or holds what is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(array.astype(np.float16).astype(np.float32) - array))


def _values(trial: Trial, index: int) -> Iterator[tuple[Value, Array]]:
    """Each f32 value of the main function with what it holds on a set of inputs, a limited number at a time."""
    batch: list[Value] = []
    size = 0
    for op in trial.lowered.main.block.ops:
        if op.defn.constant is not None or op.defn.terminator:
            continue
        for result in op.results:
            if isinstance(result.type, TensorType) and result.type.dtype is F32:
                batch.append(result)
                size += 4 * (result.type.size or 1 << 20)
        if size > _PROBE_BYTES:
            yield from zip(batch, probe(trial, batch, index), strict=True)
            batch, size = [], 0
    if batch:
        yield from zip(batch, probe(trial, batch, index), strict=True)


def probe(trial: Trial, values: Sequence[Value], index: int = 0) -> list[Array]:
    """What ``values`` of the lowered module hold on the set of inputs number ``index``, computed in f32."""
    copy, twins = _copy(trial.lowered)
    return run_mil(copy, [trial.inputs[index]], trial.library, [twins[v] for v in values])[0]


def halved(module: Module, os: str, keep: Mapping[Op, str]) -> tuple[Module, dict[Op, str]]:
    """A copy of a mil module in half precision but for ``keep``, and those of its operators that compute in f32."""
    copy, twins = _copy(module)
    twin_ops = {}
    for op, why in keep.items():
        twin = twins[op.results[0]].op
        assert twin is not None
        twin_ops[twin] = why
    return copy, half.run(copy, os, twin_ops)


def _copy(module: Module) -> tuple[Module, dict[Value, Value]]:
    twins: dict[Value, Value] = {}
    out = Module(module.name, module.attributes)
    for function in module.functions.values():
        out.add(clone_function(function, values=twins))
    return out, twins


def _search(trial: Trial, keep: dict[Op, str]) -> dict[Op, str]:
    """The fewest operators found that leave :data:`MARGIN` if they stay in f32, or, where these hold more than
    :data:`SHARE` of the multiplications, those that keep the limit itself if that takes fewer multiplications."""
    block = trial.lowered.main.block
    ops = [op for op in block.ops if _computes_floats(op) and op not in keep]
    most = SHARE * _multiplications(trial.lowered)
    own = LIMITS["fp16"] if trial.limit is None else trial.limit
    best: list[Op] = []
    least = np.inf
    for limit in dict.fromkeys((min(MARGIN, own), own)):
        found = _fewest(trial, keep, ops, limit)
        macs = sum(work(op).macs for op in found)
        if found and macs < least:
            best, least = found, macs
        if least <= most:
            break
    return dict.fromkeys(best, _LOSES)


def _fewest(trial: Trial, keep: dict[Op, str], ops: list[Op], limit: float) -> list[Op]:
    """Those of some operators that stay in f32 for an error within ``limit``; none if all of them do not suffice.

    All stay at first, then stretches of them go back, quarters, then shorter ones, down to single ones (after Zeller
    and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002).
    """

    def suffices(extra: Sequence[Op]) -> bool:
        return trial.judge_half({**keep, **dict.fromkeys(extra, _LOSES)}, limit).passed

    if not ops or not suffices(ops):
        return []
    needed, left, size = ops, TRIALS, -(-len(ops) // 4)
    while size and left:
        at = 0
        while at < len(needed) and size < len(needed) and left:
            without = needed[:at] + needed[at + size :]
            left -= 1
            if suffices(without):
                needed = without
            else:
                at += size
        size //= 2
    return needed


def _computes_floats(op: Op) -> bool:
    if op.defn.constant is not None or op.defn.terminator:
        return False
    return any(isinstance(r.type, TensorType) and r.type.dtype is F32 for r in op.results)


# ---- norms whose epsilon half precision cannot hold
#
# The smallest half stands in its place: (x - mean) / √(v + ε) changes by √((v + ε) / (v + ε')), which is nothing beside
# half precision's own rounding where the variance v is of the size of ordinary activations, and all where it is not. So
# it is measured on the proof's inputs.


def with_tiny_epsilon(module: Module) -> list[Op]:
    """The norms of the main function whose epsilon vanishes in half precision."""
    return [op for op in module.main.block.ops if half.epsilon_vanishes(op)]


def least_variance(epsilon: float) -> float:
    """The variance from which on :data:`passes.half.SMALLEST` in place of ``epsilon`` moves a norm by less than
    :data:`passes.half.CONSTANT_LOSS`, relatively: √((v + ε') / (v + ε)) - 1 ≈ (ε' - ε) / 2v."""
    return (half.SMALLEST - epsilon) / (2 * half.CONSTANT_LOSS)


def quiet(trial: Trial) -> dict[Op, str]:
    """The norms of ``trial.lowered`` that meet a row of less than :func:`least_variance` on the proof's inputs.

    Rows of one value only do not count: they give their bias whatever the epsilon.
    """
    norms = with_tiny_epsilon(trial.lowered)
    found: dict[Op, str] = {}
    for index in range(len(trial.inputs) if norms else 0):
        for op, x in zip(norms, probe(trial, [op.operands[0] for op in norms if op.operands[0]], index), strict=True):
            axes = op.attributes.get("axes")
            over = tuple(range(2, x.ndim)) if axes is None else tuple(axes)
            variance = np.asarray(x, np.float64).var(axis=over)
            epsilon = float(op.attributes["epsilon"])
            low = variance[(variance > 0.0) & (variance < least_variance(epsilon))]
            if low.size:
                found[op] = f"epsilon {epsilon:.3g} vanishes in half precision beside a variance of {low.min():.3g}"
    return found


def norms_in_full(trial: Trial, report: Report) -> dict[Op, str]:
    """The norms that stay in f32 for their epsilon's sake; notes what becomes of the others'."""
    norms = with_tiny_epsilon(trial.lowered)
    if not norms:
        return {}
    found = quiet(trial)
    if len(found) < len(norms):
        least = min(float(op.attributes["epsilon"]) for op in norms)
        report.note(
            f"epsilon {least:.0e} of {len(norms) - len(found)} norms becomes 6e-08, the smallest half: it would show "
            f"in rows of variance under {least_variance(least):.1e}"
        )
    return found
