"""The text of a kernel by its anchor, and what is known about it beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from codegen.metal import (
    index,
    kernels_pool,
    kernels_product,
    kernels_recurrent,
    kernels_rows,
    kernels_sample,
    kernels_select,
    kernels_window,
)
from codegen.metal.access import Access, static
from codegen.metal.body import Body, Element
from codegen.metal.launch import Launch, Packing, Packings, Template, independent
from compiler import ir
from compiler.dialects.metal import MOVEMENT
from compiler.errors import UnsupportedError


def anchor_of(kernel: ir.Op) -> ir.Op | None:
    """The anchor in a kernel's region."""
    kind = f"metal.{kernel.attributes['kind']}"
    return next((op for op in kernel.regions[0].ops if op.name == kind), None)


def macs(kernel: ir.Op) -> int:
    """Multiplications with additions: those of a product or convolution, else one for each element of each operator."""
    total, end = 0, kernel.regions[0].terminator
    assert end is not None
    for op in kernel.regions[0].ops:
        if op.defn.terminator or op.defn.constant is not None:
            continue
        size = math.prod(static(op.results[0]))
        match op.name:
            case "metal.conv":
                pool = kernels_pool.behind(op, [v for v in end.operands if v is not None])
                if pool is not None:  # what lies in several windows is computed for each
                    size = math.prod(static(pool.result)) * math.prod(pool.attributes["kernel"])
                total += size * math.prod(static(op.operands[1])[1:])
            case "metal.conv_transpose":
                total += math.prod(static(op.operands[0])) * math.prod(static(op.operands[1])[1:])
            case "metal.matmul":
                total += size * static(op.operands[0])[-1]
            case "metal.attention":
                keys = static(op.operands[1])[-2]
                total += size * keys + math.prod(static(op.operands[0])) * keys
            case "metal.lstm" | "metal.gru" | "metal.rnn":
                total += static(op.operands[0])[0] * static(op.operands[0])[1] * math.prod(static(op.operands[1]))
            case _ if op.name not in MOVEMENT:
                total += size
    return total


def packings(kernel: ir.Op) -> Packings:
    """How a kernel wants its operands packed, by argument of its region."""
    anchor = anchor_of(kernel)
    wants = _PACKED.get(anchor.name) if anchor is not None else None
    if wants is None or anchor is None:
        return {}
    arguments = set(kernel.regions[0].arguments)
    return {v: p for v, p in wants(anchor).items() if v in arguments and v.use_count == 1}


def write(body: Body, kernel: ir.Op, outs: Sequence[Access]) -> Launch:
    """Writes what a thread of a kernel does, and says how many threads there are.

    Raises:
        UnsupportedError: no template knows the anchor.
    """
    end = kernel.regions[0].terminator
    assert end is not None
    roots = [v for v in end.operands if v is not None]
    anchor = anchor_of(kernel)
    if anchor is None:
        total = math.prod(static(roots[0]))
        body.finish(None, index.unravel(index.variable("i", total), static(roots[0])), "", roots, outs)
        return independent(total)
    template = TEMPLATES.get(anchor.name)
    if template is None:
        raise UnsupportedError(f"there is no Metal kernel for {anchor.name} yet", "--target cpu")
    return template(body, anchor, roots, outs)


_PACKED: dict[str, Callable[[ir.Op], dict[ir.Value, Packing]]] = {
    "metal.conv": kernels_window.pack_conv,
    "metal.matmul": kernels_product.pack_matmul,
}

#: What writes an element of an operator that a kernel computes where it is read, or behind its anchor.
ELEMENTS: dict[str, Element] = {"metal.pool": kernels_pool.element}

TEMPLATES: dict[str, Template] = {
    "metal.conv": kernels_window.conv,
    "metal.conv_transpose": kernels_window.conv_transpose,
    "metal.pool": kernels_pool.pool,
    "metal.resize": kernels_sample.resize,
    "metal.grid_sample": kernels_sample.grid_sample,
    "metal.picture": kernels_sample.picture,
    "metal.matmul": kernels_product.matmul,
    "metal.attention": kernels_product.attention,
    "metal.reduce": kernels_rows.reduce,
    "metal.arg_reduce": kernels_rows.arg_reduce,
    "metal.softmax": kernels_rows.softmax,
    "metal.normalize": kernels_rows.normalize,
    "metal.scan": kernels_rows.scan,
    "metal.top_k": kernels_select.top_k,
    "metal.scatter_elements": kernels_select.scatter_elements,
    "metal.scatter_nd": kernels_select.scatter_nd,
    "metal.nms": kernels_select.nms,
    "metal.lstm": kernels_recurrent.lstm,
    "metal.gru": kernels_recurrent.gru,
    "metal.rnn": kernels_recurrent.rnn,
}
