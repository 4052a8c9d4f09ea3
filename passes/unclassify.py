"""Classifiers made visible: where a function gives a label and a dictionary, it gives the probabilities behind them.

ONNX has no dictionaries with strings for keys, and what ``mil.classify`` does is settled by its probabilities: the
label is that of the greatest, the dictionary holds each under its class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import Function, Value

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Classifier:
    """Outputs that a ``mil.classify`` gave.

    Attributes:
        label, table: which output was the label, and which the dictionary; None where the function does not give it.
        classes: the labels, in the order of the probabilities.
    """

    label: int | None
    table: int | None
    classes: tuple[str | int, ...]

    def restore(self, outputs: list[Array]) -> list[Array]:
        """The outputs with the label in its place; of the dictionary its values, in the order of the classes."""
        out = list(outputs)
        if self.label is not None:
            best = int(np.asarray(outputs[self.label]).reshape(-1).argmax())
            out[self.label] = np.array(self.classes[best])
        if self.table is not None:
            out[self.table] = np.asarray(outputs[self.table]).reshape(-1)
        return out


def run(function: Function) -> list[Classifier]:
    """Replaces what classifiers give, in place; the outputs in question are their probabilities afterwards."""
    values: list[Value] = list(function.outputs)
    found: list[Classifier] = []
    for op in [o for o in function.block.ops if o.name == "mil.classify"]:
        places = [next((i for i, v in enumerate(values) if v is r), None) for r in op.results]
        probabilities = op.operands[0]
        assert probabilities is not None
        for place in places:
            if place is not None:
                values[place] = probabilities
        found.append(Classifier(places[0], places[1], tuple(op.attributes["classes"])))
        function.set_outputs(values)
        op.erase()
    return found
