"""Channels through a whole graph of onnx.* operators.

What operators do with them stands in :mod:`passes.prune.mixing`, :mod:`passes.prune.apart` and
:mod:`passes.prune.moving`. What is not known there mixes channels for all one knows, and fixes them.
"""

from __future__ import annotations

from compiler.ir import Function, Op
from passes.prune import apart, mixing, moving  # noqa: F401 (they register what they know)
from passes.prune.channels import Classes
from passes.prune.state import HANDLERS, Analysis


def analyse(function: Function) -> Classes:
    """The classes of channels of a function, and all that changes with them. The same graph gets the same numbers."""
    state = Analysis()
    for op in function.block.ops:
        if op.defn.constant is not None:
            continue
        handler = HANDLERS.get(op.name)
        if not op.regions and handler is not None and handler(state, op):
            continue
        taken = [known for inner in op.walk() for v in inner.operands if (known := state.known(v)) is not None]
        for known in taken:
            state.classes.fix(known)
        state.classes.holders[op] = sum(len(known.ids) for known in taken)
        for result in op.results:
            state.of.pop(result, None)
    return state.classes


#: What makes channels of its own.
_LAYERS = frozenset(f"onnx.{name}" for name in ("Conv", "ConvTranspose", "Gemm", "MatMul"))


def obstacle(function: Function) -> tuple[Op, str] | None:
    """The operator that is most to blame where no channel of a function can go, and what it does, in a clause."""
    inside = {op: sum(i.name in _LAYERS for i in op.walk()) for op in function.block.ops if op.regions}
    owner = max(inside, key=inside.__getitem__, default=None)
    if owner is not None and inside[owner]:
        return owner, f"{_named(owner)} holds {inside[owner]} layers inside, where nothing is cut"
    holders = {op: n for op, n in analyse(function).holders.items() if n and not op.defn.terminator}
    if not holders:
        return None
    op = max(holders, key=holders.__getitem__)
    return op, f"{_named(op)} needs all {holders[op]} that it takes"


def _named(op: Op) -> str:
    return f"{op.name.removeprefix('onnx.')}{f' of node {op.loc.nodes[0]!r}' if op.loc.nodes else ''}"
