"""The pass: every weight of a mil module in the form that it is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import Module
from passes.compress import emit
from passes.compress.balance import balance
from passes.compress.encode import Axes, Encoded, NotCompressibleError, bits, encode, error
from passes.compress.fit import fitted
from passes.compress.linear import Quantized
from passes.compress.schemes import Linear, Scheme
from passes.compress.select import THRESHOLD, Weight, is_elementwise, weights
from passes.compress.windows import layer_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one weight.

    Attributes:
        name: of the constant.
        scheme: what it was given; None where it stays as it is.
        reason: why it stays as it is.
        before, after: bytes.
        error: ‖ŵ − w‖ / ‖w‖.
        dense: ŵ, the tensor that its compressed form stands for, computed by the encoder; None where it stays.
    """

    name: str
    scheme: Scheme | None
    reason: str
    before: int
    after: int
    error: float
    dense: Array | None = None


#: Encodes a weight; see :func:`passes.compress.encode.encode`. What calibration improves upon comes in by it.
Encoder = Callable[[Weight, Scheme, Axes], Encoded]


def run(
    module: Module,
    schemes: Scheme | Mapping[str, Scheme],
    ios: int,
    *,
    threshold: int = THRESHOLD,
    encoder: Encoder | None = None,
    fit: bool = True,
) -> list[Record]:
    """Compresses the weights of ``module`` in place.

    Args:
        schemes: one for all, or by the name of a weight; those not named stay as they are.
        ios: the release that must take them.
        threshold: weights of no more elements stay as they are.
        fit: give weights that groups or blocks do not fill larger ones that do, and leave alone what is used element by
            element. Otherwise the former stay as they are and the latter do not, as with coremltools.

    Returns:
        What became of each weight: first those used element by element, then the others, in order.

    Raises:
        UnsupportedError: the release has no form for a scheme.
    """
    chosen: list[tuple[Weight, Scheme]] = []
    left = []
    for weight in weights(module, threshold):
        scheme = schemes.get(weight.name) if isinstance(schemes, Mapping) else schemes
        if fit and scheme is not None and is_elementwise(weight.op):
            left.append(_left(weight, "it is used element by element"))
        elif scheme is not None:
            axes = weight.axes
            chosen.append((weight, fitted(scheme, array(weight).shape, axes) if fit or axes is None else scheme))
    # NumPy and the library of palettes let go of the interpreter while they compute; more threads than processors would
    # but stand in each other's way.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(lambda one: _made(one[0], one[1], encoder or plain), chosen))
    return left + [_placed(*one, found, ios) for one, found in zip(chosen, made, strict=True)]


def plain(weight: Weight, scheme: Scheme, axes: Axes) -> Encoded:
    """The encoder that looks at the weight alone, and at what kind of layer takes it."""
    made = encode(array(weight), scheme, axes)
    if isinstance(scheme, Linear) and scheme.rounding == "balanced" and isinstance(made, Quantized):
        layer = layer_of(weight)
        return made if layer is None else balance(layer, array(weight), made, scheme)
    return made


def array(weight: Weight) -> Array:
    """The tensor itself."""
    held = weight.op.result.constant
    assert held is not None
    return held


@dataclass(frozen=True, slots=True)
class _Made:
    """What a weight becomes, and what follows from that."""

    encoded: Encoded
    size: int
    dense: Array
    error: float


def _made(weight: Weight, scheme: Scheme, encoder: Encoder) -> _Made | str:
    """What the weight becomes, or why it stays."""
    try:
        encoded = encoder(weight, scheme, weight.axes or Axes(0, 1))
    except NotCompressibleError as e:
        return str(e)
    size, before = (bits(encoded) + 7) // 8, array(weight)
    if size >= before.nbytes:
        return f"{scheme} takes no less room"
    dense = encoded.dense()
    return _Made(encoded, size, dense, error(before, dense))


def _left(weight: Weight, reason: str) -> Record:
    size = array(weight).nbytes
    return Record(weight.name, None, reason, size, size, 0.0)


def _placed(weight: Weight, scheme: Scheme, made: _Made | str, ios: int) -> Record:
    if isinstance(made, str):
        return _left(weight, made)
    name, before = weight.name, array(weight).nbytes
    emit.replace(weight.op, made.encoded, ios)
    return Record(name, scheme, "", before, made.size, made.error, made.dense)
