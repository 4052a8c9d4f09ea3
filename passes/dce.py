"""Dead code elimination: pure operators whose results nobody uses are dropped. Inputs of functions stay."""

from __future__ import annotations

from compiler import ir


def run(module: ir.Module) -> int:
    """Drops dead operators in one sweep from the last operator to the first.

    Returns:
        How many were dropped, those inside regions of dropped operators included.
    """
    return sum(_sweep(function.block) for function in module.functions.values())


def is_pure(op: ir.Op) -> bool:
    """Whether an operator, and all inside its regions, depend on operands and attributes alone and do nothing else."""
    return op.defn.pure and all(is_pure(inner) or inner.defn.terminator for r in op.regions for inner in r.ops)


def _sweep(block: ir.Block) -> int:
    dropped = 0
    op = block.last
    while op is not None:
        before = op.prev
        if op.is_unused and not op.defn.terminator and is_pure(op):
            dropped += sum(1 for each in op.walk() if not each.defn.terminator)
            op.erase()
        else:
            for region in op.regions:
                dropped += _sweep(region)
        op = before
    return dropped
