"""How exact the original model itself is: what a proof at fp32 can ask of a package is not more.

Two right evaluations in f32 may give other digits. A model that computes in half precision, as its file says, has
outputs rounded to 11 bits. One that rounds activations to integers sees a value next to a tie fall either way by the
order in which a sum was added up, and differ by a whole step from there on. And a sigmoid near 0 is a difference of
numbers near 1, whose last digit is all there is. How far that carries is measured, with onnxruntime alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.ir import F16, Module, TensorType
from compiler.proof import Reference, compare

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]

#: The highest limit of a proof at fp32, however much a model moves by itself; and the one for a model that computes in
#: half, whose outputs are rounded by up to 2^-11 = 4.9e-4 in the last operator alone.
HIGHEST = 1e-3

#: How far inputs move, relative to themselves: a few units in the last place of f32, as sums of some hundred products
#: in another order do.
NUDGE = 1e-6

_SEED = 7
_NUDGES = 3
_LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")


def computes_in_half(module: Module) -> bool:
    """Whether an operator of a module of onnx operators computes in f16, other than to convert."""
    for op in module.walk():
        if op.defn.constant is None and op.name != "onnx.Cast":
            for result in op.results:
                if isinstance(result.type, TensorType) and result.type.dtype is F16:
                    return True
    return False


def own_noise(
    source: str | Path | onnx.ModelProto | Reference,
    tries: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
) -> float:
    """How far the model's float outputs move, as relative L2, where only noise of f32 comes in: other kernels of
    onnxruntime (without optimization, with all of it), and inputs moved by :data:`NUDGE`."""
    worst = 0.0
    plain = source if isinstance(source, Reference) else Reference(source)
    rng = np.random.default_rng(_SEED)
    for level in (*_LEVELS, None):
        reference = plain if level is None else plain.at(level)
        for inputs, outputs in zip(tries, expected, strict=True):
            for _ in range(_NUDGES if level is None else 1):
                fed = inputs if level is not None else {n: _nudged(a, rng) for n, a in inputs.items()}
                for ours, theirs in zip(reference.run(fed), outputs, strict=True):
                    if theirs.dtype.kind == "f" and ours.shape == theirs.shape:
                        error = compare(ours, theirs).rel_l2
                        worst = max(worst, error) if np.isfinite(error) else worst
    return worst


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    return np.asarray(array * (1.0 + NUDGE * rng.standard_normal(array.shape))).astype(array.dtype)
