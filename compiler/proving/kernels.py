"""Metal kernels as the machine that proofs of rules of stage ``metal`` run on: on this CPU, as the proof of a package.

Many small graphs go into one program: compiling takes a second for one as for many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.errors import PlanishError
from compiler.ir import Function, InferenceError, Module, TensorType, Value, clone_module, clone_ops

Array = np.ndarray[Any, Any]

#: How many graphs one program holds: what is wrong in one of them is searched by halves.
MOST = 50

#: Seconds that a program may run.
_SECONDS = 60


class KernelMachine:
    """Runs modules of metal.* operators as kernels."""

    def accepts(self, module: Module) -> str | None:
        """Why there can be no kernels for a module; None if there can be."""
        from codegen.metal import emit

        try:
            emit.emit(_fused(module))
        except (PlanishError, InferenceError) as e:
            return str(e).splitlines()[0]
        return None

    def run(self, jobs: Sequence[tuple[Module, Mapping[str, Array]]]) -> list[list[Array] | str]:
        """The outputs of each module on its inputs; what went wrong, where kernels break a rule of Metal's."""
        return [r for at in range(0, len(jobs), MOST) for r in self._together(jobs[at : at + MOST])]

    def _together(self, jobs: Sequence[tuple[Module, Mapping[str, Array]]]) -> list[list[Array] | str]:
        from codegen.metal import emit, executor
        from codegen.metal.library import DispatchError

        module, feeds, names = _joined(jobs)
        try:
            session = executor.Session(emit.emit(_fused(module)))
            made = session.run_orders(feeds, (0, 1), _SECONDS)
        except (DispatchError, PlanishError) as e:
            if len(jobs) == 1:
                return [str(e).splitlines()[0]]
            half = len(jobs) // 2
            return [*self._together(jobs[:half]), *self._together(jobs[half:])]
        out: list[list[Array] | str] = []
        for own in names:
            first, second = ([m[n] for n in own] for m in made)
            same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second, strict=True))
            out.append(first if same else "the result depends on the order in which threads run")
        return out


def _fused(module: Module) -> Module:
    from passes import cse, dce, fuse_regions

    made = clone_module(module)
    dce.run(made)
    cse.run(made)
    fuse_regions.run(made)
    return made


def _joined(
    jobs: Sequence[tuple[Module, Mapping[str, Array]]],
) -> tuple[Module, dict[str, Array], list[list[str]]]:
    """One module of all, what its inputs hold, and what the outputs of each are called."""
    inputs: dict[str, TensorType] = {}
    feeds: dict[str, Array] = {}
    for i, (module, given) in enumerate(jobs):
        for a in module.main.inputs:
            assert isinstance(a.type, TensorType)
            inputs[f"in{i}_{a.name}"] = a.type
            feeds[f"in{i}_{a.name}"] = given[a.name]
    function = Function("main", inputs)
    by_name = {a.name: a for a in function.inputs}
    outputs: list[Value] = []
    names: list[list[str]] = []
    for i, (module, _) in enumerate(jobs):
        values: dict[Value, Value] = {a: by_name[f"in{i}_{a.name}"] for a in module.main.inputs}
        clone_ops((op for op in module.main.block.ops if not op.defn.terminator), function.block, values)
        outputs += [values[v] for v in module.main.outputs]
        names.append([f"out{i}_{k}" for k in range(len(module.main.outputs))])
    function.set_outputs(outputs, [n for own in names for n in own])
    made = Module("instances")
    made.add(function)
    return made, feeds, names
