"""The proof of a model that rounds activations to integers, from one rounding to the next.

A value next to a tie falls either way by the order in which a sum was added up, and the outputs of a model with many
roundings move by as much as those few steps carry. So what such a package and its model have in common is the
stretches between roundings: each is fed the original's own integers, and must give integers that are the original's,
but for ties, and float outputs that agree as those of any other model do. An error anywhere is an error of its stretch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.execution.running import give_meaning, read_package
from compiler.ir import BlockArgument, Module, TensorType, Value
from compiler.proof import AGREEMENT, LIMITS, Reference, compare

if TYPE_CHECKING:
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

#: Of how many bits integers are at most that activations are rounded to.
_BITS = 16


@dataclass(slots=True)
class Stretches:
    """What came of the stretches of a model, over all sets of inputs.

    Attributes:
        roundings: how many values are integers that were rounded to.
        integers: how many elements they have, all sets together.
        differ: how many of those are not the original's.
        steps: how far the furthest of them is off.
        error: the greatest relative L2 error of a float output; share of elements that differ, of another.
    """

    roundings: int = 0
    integers: int = 0
    differ: int = 0
    steps: int = 0
    error: float = 0.0

    @property
    def hold(self) -> bool:
        few = self.differ <= (1 - AGREEMENT["fp32"]) * self.integers
        return self.roundings > 0 and self.steps <= 1 and few and self.error <= LIMITS["fp32"]

    def __str__(self) -> str:
        by = f", by {self.steps} step{'s' if self.steps != 1 else ''}" if self.differ else ""
        return (
            f"from each of {self.roundings} roundings to the next {self.differ} of {self.integers} integers differ{by},"
            f" and outputs by {self.error:.1e}"
        )


def stretches(
    package: str | Path, library: Library, reference: Reference, tries: Sequence[Mapping[str, Array]]
) -> Stretches:
    """Runs a package in f32 from rounding to rounding, each on what the original rounds to.

    Args:
        tries: sets of inputs, by name, for package and original alike.

    Returns:
        What was found; no roundings where no value of the package is called as an integer of the original is, or where
        the package's shapes are open.
    """
    found = Stretches()
    for inputs in tries:
        module = read_package(package)
        main = module.main
        if any(isinstance(a.type, TensorType) and not a.type.is_static for a in main.inputs):
            return Stretches()
        wanted = dict(zip(main.output_names, main.outputs, strict=True))
        named = _integers(module)
        theirs = reference.values(inputs, [*named, *wanted])
        cut = {n: (v, theirs[n]) for n, v in named.items() if n in theirs and _rounded(theirs[n], v)}
        results = _run(module, library, inputs, cut)
        found.roundings = len(cut)
        for (_, expected), ours in zip(cut.values(), results[len(wanted) :], strict=True):
            off = np.abs(ours.astype(np.int64) - expected.astype(np.int64))
            found.integers += off.size
            found.differ += int(np.count_nonzero(off))
            found.steps = max(found.steps, int(off.max(initial=0)))
        for name, ours in zip(wanted, results):
            found.error = max(found.error, compare(ours, theirs[name]).badness)
    return found


def _integers(module: Module) -> dict[str, Value]:
    """The named integers that operators of the main block give, and do not leave it."""
    leaving = set(module.main.outputs)
    return {
        r.name: r
        for op in module.main.block.ops
        if op.defn.constant is None
        for r in op.results
        if r.name and isinstance(r.type, TensorType) and r.type.dtype.is_integer and r not in leaving
    }


def _rounded(theirs: Array, ours: Value) -> bool:
    shape = ours.type.static_shape if isinstance(ours.type, TensorType) and ours.type.is_static else None
    return theirs.dtype.kind in "iu" and 8 * theirs.dtype.itemsize <= _BITS and theirs.shape == shape


def _run(
    module: Module, library: Library, inputs: Mapping[str, Array], cut: Mapping[str, tuple[Value, Array]]
) -> list[Array]:
    """The outputs, then what is made of each value of ``cut``, for whose users the array beside it stands."""
    from compiler.execution import evaluate

    main = module.main
    given: dict[str, Array] = {}
    for a in main.inputs:
        given[a.name] = _as(inputs[a.name], a)
    outputs, names = list(main.outputs), list(main.output_names)
    for name, (value, array) in cut.items():
        argument = main.block.add_argument(value.type, f"{name}.given")
        value.replace_all_uses_with(argument)
        given[argument.name] = _as(array, argument)
    main.set_outputs([*outputs, *(v for v, _ in cut.values())], [*names, *(f"{n}.made" for n in cut)])
    give_meaning(module, library)
    return list(evaluate.Session(module).run(given))


def _as(array: Array, argument: BlockArgument) -> Array:
    assert isinstance(argument.type, TensorType)
    return np.asarray(array).astype(argument.type.dtype.numpy, copy=False)
