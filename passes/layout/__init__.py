"""Layout assignment: in which arrangement each tensor lies, so that least is moved.

The views of a model (transposes, reshapes and their like) are taken away; what they connect becomes one tensor, which
may lie in any order of its factors. :mod:`passes.layout.plan` decides in which, :mod:`passes.layout.write` writes the
operators anew, with transposes and reshapes where tensors are wanted otherwise than they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import Module, Op
from compiler.rewrite.driver import aside
from passes.layout.flows import used
from passes.layout.names import LAYOUT, VIEWS
from passes.layout.plan import MoveCost, Plan, moved_bytes
from passes.layout.write import Writer

__all__ = ["Result", "interior", "moved_bytes", "run"]


@dataclass(slots=True)
class Result:
    """What was done: tensors that lie otherwise than they were written, and views before and after."""

    moved: int = 0
    before: int = 0
    after: int = 0


def run(module: Module, cost: MoveCost = moved_bytes, in_order: bool = False) -> Result:
    """Assigns layouts to the tensors of every function of a module of mil.* operators, in place.

    Args:
        cost: what a step costs; the compiler asks the cost model of the target, which knows how fast its unit copies.
        in_order: whether reductions, norms and softmax must walk through elements in the order they were written in:
            rows side by side are what GPU and CPU like, and a sum in another order rounds otherwise.
    """
    result = Result()
    with aside():
        for function in module.functions.values():
            views = sum(op.name in VIEWS for op in function.block.ops)
            if views:
                plan = Plan(function.block, cost, in_order)
                plan.decide()
                result.moved += Writer(plan).write()
                result.before += views
                result.after += sum(op.name in VIEWS for op in function.block.ops)
    return result


def interior(module: Module) -> int:
    """How many views stand between operators that compute: some such operator before them and some behind."""
    count = 0
    for function in module.functions.values():
        ops = [op for op in function.block.ops if op.defn.constant is None]
        before: set[Op] = set()
        for op in ops:
            for v in used(op):
                if v.op is not None and (v.op in before or _computes(v.op)):
                    before.add(op)
        behind: set[Op] = set()
        for op in reversed(ops):
            if op.defn.terminator:
                continue
            if any(u in behind or _computes(u) for r in op.results for u in r.users):
                behind.add(op)
        count += sum(op in before and op in behind for op in ops if op.name in LAYOUT)
    return count


def _computes(op: Op) -> bool:
    return op.name not in LAYOUT and op.name != "mil.cast" and op.defn.constant is None and not op.defn.terminator
