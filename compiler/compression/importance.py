"""How much each class of channels of a module matters, by what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.errors import UnsupportedError
from compiler.execution import evaluate
from compiler.ir import Module, Value
from passes.prune import analyse, mixing_inputs
from passes.prune.importance import Importance, Scores, activation, first_order, magnitude, takers

Array = np.ndarray[Any, Any]

#: Samples that slopes are taken on, at the most.
SLOPES = 32


def scores(by: Importance, module: Module, data: Sequence[Sequence[Array]]) -> Scores:
    """A number for each class of channels of the main function, as :func:`passes.prune.analyse` numbers them.

    Args:
        by: ``taylor`` needs JAX.
        data: samples, each the inputs in the order of the function's; not needed for ``magnitude``.

    Raises:
        UnsupportedError: ``taylor``, and the module holds an operator that is not differentiated.
    """
    classes = analyse(module.main)
    if by == "magnitude":
        return magnitude(classes)
    if by == "activation":
        return activation(classes, _energies(module, mixing_inputs(classes), data))
    from compiler.distil.slopes import slopes

    cuts = takers(classes)
    names = [a.name for a in module.main.inputs]
    samples = [dict(zip(names, s, strict=True)) for s in data[:SLOPES]]
    try:
        return first_order(classes, cuts, slopes(module.main, cuts, samples))
    except UnsupportedError as e:
        raise UnsupportedError(e.message, "--importance activation") from e


def _energies(
    module: Module, wanted: Sequence[tuple[Value, int]], data: Sequence[Sequence[Array]]
) -> dict[Value, Array]:
    """E[x²] of each channel of values, which lie along the axis given."""
    session = evaluate.Session(module, [v for v, _ in wanted])
    own = len(module.main.output_names)
    inputs = [a.name for a in module.main.inputs]
    sums: dict[Value, Array] = {}
    for sample in data:
        values = session.run(dict(zip(inputs, sample, strict=True)))[own:]
        for (value, axis), array in zip(wanted, values, strict=True):
            across = tuple(i for i in range(array.ndim) if i != axis)
            sums[value] = sums.get(value, 0.0) + np.square(array.astype(np.float64)).mean(axis=across)
    return sums
