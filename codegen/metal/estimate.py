"""What a GPU needs at least for each kernel: a chip's roofline (Williams, Waterman and Patterson, "Roofline", 2009).

Rates are those of the table of chips. No kernel is faster than that; how much slower one is, nobody here has measured.
"""

from __future__ import annotations

from typing import Any

from codegen.metal.program import Program
from compiler.hardware.facts import Chip


def estimates(program: Program, on: Chip) -> list[dict[str, Any]]:
    """For each dispatch its operations and bytes, how many of those come to each of these, and its least time.

    Returns:
        Rows with ``kernel``, ``macs``, ``bytes``, ``intensity`` (operations for each byte, two for each multiplication
        with addition), ``microseconds``, and ``bound``, which is ``compute`` or ``memory``.
    """
    rows = []
    for d in program.dispatches:
        compute = 2 * d.macs / (on.gpu_tflops * 1e12)
        memory = d.bytes / (on.memory_gb_s * 1e9)
        rows.append(
            {
                "kernel": d.kernel,
                "macs": d.macs,
                "bytes": d.bytes,
                "intensity": round(2 * d.macs / max(d.bytes, 1), 2),
                "microseconds": round(1e6 * max(compute, memory), 3),
                "bound": "compute" if compute > memory else "memory",
            }
        )
    return rows
