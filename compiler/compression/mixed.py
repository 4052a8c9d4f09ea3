"""Mixed precision: each weight compressed as far as the outputs can bear it, by what they do on data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import Function, Module, Op, TensorType, clone_module
from compiler.report import megabytes
from passes.compress import Linear, NotCompressibleError, Palette, Scheme, Weight, bits, encode, weights
from passes.compress.assign import Choice, within_error, within_size
from passes.compress.fit import fitted
from passes.compress.run import array
from passes.compress.select import is_elementwise

if TYPE_CHECKING:
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Inputs = list[Array]

#: As many samples measure how sensitive outputs are; more tell little more.
MOST_SAMPLES = 4
#: How often the limit on the predicted error is tightened until the measured one holds.
_ROUNDS = 6


_INTEGERS = Linear(rounding="balanced")


def candidates(ios: int) -> tuple[Scheme, ...]:
    """The schemes to choose from, strongest last."""
    if ios >= 18:
        return _INTEGERS, Palette(6), Palette(4, 16), Palette(3, 16), Palette(2, 16)
    return _INTEGERS, Palette(6), Palette(4), Palette(2)


@dataclass(frozen=True, slots=True)
class Option:
    """A weight under a scheme (None: as it is): its bits, the tensor that it then is, the squared error it makes."""

    scheme: Scheme | None
    bits: int
    dense: Array
    error: float


class Sensitivity:
    """How the outputs of a mil module that computes in f32 depend on its weights.

    Open sizes are those of the first sample, and samples of other sizes are left out.
    """

    def __init__(self, lowered: Module, data: Sequence[Inputs], library: Library) -> None:
        from compiler.execution import evaluate

        module = clone_module(lowered)
        main = module.main
        for argument, sample in zip(main.inputs, data[0], strict=True):
            assert isinstance(argument.type, TensorType)
            argument.type = argument.type.with_shape(sample.shape)
        own = {id(w.op.result.constant): w.name for w in weights(module)}
        alive = [w.op.result.constant for w in weights(module)]
        library.rewrite(module, "meaning")
        self._names = _weights_as_inputs(main, own)
        self._plain = {own[id(a)]: a for a in alive if a is not None and own[id(a)] in self._names}
        self._session = evaluate.Session(module)
        self._inputs = [a.name for a in main.inputs if a.name not in self._names.values()]
        shapes = [a.shape for a in data[0]]
        self._data = [sample for sample in data if [a.shape for a in sample] == shapes][:MOST_SAMPLES]
        self._exact = [self._run(sample, {}) for sample in self._data]

    def can_change(self, name: str) -> bool:
        """Whether the weight of that name still stands as it was once operators are given meaning."""
        return name in self._names

    def error(self, changed: Mapping[str, Array]) -> float:
        """The squared relative error of the worst output with some weights changed, by their name."""
        worst = 0.0
        runs = [self._run(sample, changed) for sample in self._data]
        for i in range(len(self._exact[0])):
            pairs = [(exact[i].astype(np.float64), run[i].astype(np.float64)) for exact, run in zip(self._exact, runs)]
            lost = sum(float(np.square(b - a).sum()) for a, b in pairs)
            size = sum(float(np.square(a).sum()) for a, _ in pairs)
            worst = max(worst, lost / size if size else float(lost > 0))
        return worst if math.isfinite(worst) else 1e6

    def _run(self, sample: Inputs, changed: Mapping[str, Array]) -> list[Array]:
        fed = dict(zip(self._inputs, sample, strict=True))
        for name, argument in self._names.items():
            fed[argument] = changed.get(name, self._plain[name])
        return self._session.run(fed)


def _weights_as_inputs(main: Function, own: Mapping[int, str]) -> dict[str, str]:
    """Makes weights inputs of a function of onnx operators. ``own``: their names by the identity of the array.

    Returns:
        The names of the inputs by those of the weights.
    """
    found: dict[str, list[Op]] = {}
    for op in main.block.ops:
        if op.name == "onnx.Constant" and id(op.attributes["value"]) in own:
            found.setdefault(own[id(op.attributes["value"])], []).append(op)
    names = {}
    for name, ops in found.items():
        argument = main.block.add_argument(ops[0].result.type, f"{name}:weight")
        names[name] = argument.name
        for op in ops:
            op.result.replace_all_uses_with(argument)
            op.erase()
    return names


def measure(
    lowered: Module, stored: Module, sensitivity: Sensitivity, ios: int, tell: Callable[[str], None] = lambda _: None
) -> dict[str, list[Option]]:
    """What each weight could become, and what that does to the outputs.

    Args:
        lowered: the module in f32.
        stored: the module as it is to be compressed, with weights of the same names in their final precision.
        tell: is told how far this is.
    """
    table = {}
    found = weights(stored)
    for number, weight in enumerate(found, 1):
        tell(f"how outputs depend on weight {number} of {len(found)}")
        if is_elementwise(weight.op) or not sensitivity.can_change(weight.name):
            continue
        held = array(weight)
        options = [Option(None, held.size * held.itemsize * 8, held, 0.0)]
        for scheme in candidates(ios):
            option = _option(weight, scheme, sensitivity)
            if option is not None and option.bits < options[-1].bits:
                options.append(option)
        table[weight.name] = options
    return table


def _option(weight: Weight, scheme: Scheme, sensitivity: Sensitivity) -> Option | None:
    if weight.axes is None:
        return None
    held = array(weight)
    scheme = fitted(scheme, held.shape, weight.axes)
    try:
        made = encode(held, scheme, weight.axes)
    except NotCompressibleError:
        return None
    dense = made.dense().astype(np.float32)
    return Option(scheme, bits(made), dense, sensitivity.error({weight.name: dense}))


def choose(
    table: Mapping[str, Sequence[Option]], sensitivity: Sensitivity, bits_left: int | None, max_error: float | None
) -> dict[str, Scheme]:
    """The scheme of each weight that is to be compressed: the least error with the bits left, or the fewest bits.

    Args:
        bits_left: for all weights of the table together.
        max_error: the relative L2 error of the worst output, which is measured with all weights changed.

    Raises:
        UserError: the limit cannot be met.
    """
    choices = [[Choice(o.bits, o.error) for o in options] for options in table.values()]

    def named(found: Sequence[int]) -> dict[str, Option]:
        return {name: options[i] for (name, options), i in zip(table.items(), found, strict=True)}

    if bits_left is not None:
        found = within_size(choices, bits_left)
        if found is None:
            least = megabytes(sum(min(c.bits for c in o) for o in choices) // 8)
            raise UserError(
                f"the strongest compression of each weight leaves {least} of weights, which is over the budget",
                "a larger --budget, or --prune",
            )
        chosen = named(found)
        if max_error is None or _measured(chosen, sensitivity) <= max_error**2:
            return _schemes(chosen)
        raise UserError(
            f"within the budget outputs are off by {math.sqrt(_measured(chosen, sensitivity)):.2g}",
            "a larger --budget or --max-error",
        )
    assert max_error is not None
    limit = max_error**2
    for _ in range(_ROUNDS):
        found = within_error(choices, limit)
        if found is None:
            break
        chosen = named(found)
        actual = _measured(chosen, sensitivity)
        if actual <= max_error**2:
            return _schemes(chosen)
        limit *= 0.8 * max_error**2 / actual
    return {}


def _measured(chosen: Mapping[str, Option], sensitivity: Sensitivity) -> float:
    return sensitivity.error({name: o.dense for name, o in chosen.items() if o.scheme is not None})


def _schemes(chosen: Mapping[str, Option]) -> dict[str, Scheme]:
    return {name: o.scheme for name, o in chosen.items() if o.scheme is not None}
