"""Channels through a whole graph of onnx.* operators.

What operators do with them stands in :mod:`passes.prune.mixing`, :mod:`passes.prune.apart` and
:mod:`passes.prune.moving`. What is not known there mixes channels for all one knows, and fixes them.
"""

from __future__ import annotations

from compiler.ir import Function
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
        for inner in op.walk():
            for v in inner.operands:
                state.classes.fix(state.known(v))
        for result in op.results:
            state.of.pop(result, None)
    return state.classes
