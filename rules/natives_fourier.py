"""Fourier transforms of a known length: products with constant matrices of cosines and sines.

X[k] = Σ x[j] · exp(∓2πi·jk / N); a complex number is a pair (re, im) along the last axis, as in ONNX.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, constant_ints, dtype_of, shape_of

Array = np.ndarray[Any, Any]


def dft(b: RuleBuilder, m: Bindings) -> Value:
    """All signals as rows of one matrix, times one constant matrix.

    Raises:
        Decline: the length is not known.
    """
    shape = shape_of(m.x)
    if 0 in shape:
        raise Decline("there is no signal")
    rank = len(shape)
    known_axis = constant_ints(m.axis) if m.axis is not None else (-2,)
    length = constant_ints(m.n) if m.n is not None else None
    if known_axis is None or (m.n is not None and length is None):
        raise Decline("the length of the transform is not known at compile time")
    axis = axis_of(known_axis[0], rank)
    parts, have = shape[-1], shape[axis]
    if m.inverse and m.onesided:
        count = length[0] if length is not None else 2 * (have - 1)
        if have != count // 2 + 1:
            raise Decline("there are more or fewer frequencies than the signal has, of which onnxruntime makes another")
        matrix, given = _real_matrix(have, count), 1
    else:
        n = length[0] if length is not None else have
        count = n // 2 + 1 if m.onesided else n
        matrix, given = _matrix(have, n, count, parts, bool(m.inverse)), 2
    others = [i for i in range(rank - 1) if i != axis]
    order = [*others, rank - 1, axis]
    rows = b.op("onnx.Reshape", [b.op("onnx.Transpose", [m.x], {"perm": tuple(order)}), _ints(-1, parts * have)])
    flat = b.op("onnx.MatMul", [rows, matrix.astype(dtype_of(m.x).numpy)])
    whole = b.op("onnx.Reshape", [flat, _ints(*(shape[i] for i in others), count, given)])
    # The axis of frequencies stands before the last one; it goes back to where the signal's was.
    back = [*range(len(others)), len(others) + 1]
    back.insert(axis, len(others))
    out: Value = b.op("onnx.Transpose", [whole], {"perm": tuple(back)})
    return out


def stft(b: RuleBuilder, m: Bindings) -> Value:
    """A convolution whose filters are the windowed waves, which moves on by the frames' step.

    Raises:
        Decline: window, step or length is not known, or the signal is complex.
    """
    batch, samples, *parts = shape_of(m.x)
    step = constant_ints(m.step)
    window = m.window.constant if m.window is not None else None
    length = constant_ints(m.length) if m.length is not None else None
    unknown = (m.window is not None and window is None) or (m.length is not None and length is None)
    if unknown or step is None or parts not in ([], [1]):
        raise Decline("window or step not known at compile time")
    n = length[0] if length is not None else window.size if window is not None else samples
    count = n // 2 + 1 if m.onesided else n
    waves = _matrix(n, n, count, 1, False)
    if window is not None:
        waves = waves * np.asarray(window, np.float64)[:, None]
    # (n, 2·count) → filters (2·count, 1, n)
    filters = np.ascontiguousarray(waves.T[:, None, :]).astype(dtype_of(m.x).numpy)
    signal = b.op("onnx.Reshape", [m.x, _ints(batch, 1, samples)])
    made = b.op("onnx.Conv", [signal, filters], {"strides": (step[0],), "kernel_shape": (n,)})
    frames = (samples - n) // step[0] + 1
    turned = b.op("onnx.Transpose", [made], {"perm": (0, 2, 1)})
    out: Value = b.op("onnx.Reshape", [turned, _ints(batch, frames, count, 2)])
    return out


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _matrix(have: int, n: int, count: int, parts: int, inverse: bool) -> Array:
    """The matrix (parts · have, 2 · count) that takes samples, real parts first, to pairs (re, im).

    Samples beyond ``n`` do not count; where there are fewer, zeros follow.
    """
    angles = 2 * np.pi * np.outer(np.arange(have), np.arange(count)) / n
    sign = 1.0 if inverse else -1.0
    cosines, sines = np.cos(angles), sign * np.sin(angles)
    rows = [np.stack([cosines, sines], axis=-1)]
    if parts == 2:
        rows.append(np.stack([-sines, cosines], axis=-1))
    for part in rows:
        part[n:] = 0.0
    matrix = np.concatenate(rows).reshape(parts * have, 2 * count)
    return matrix / n if inverse else matrix


def _real_matrix(have: int, n: int) -> Array:
    """The matrix (2 · have, n) that takes half a spectrum, real parts first, to the real signal of length ``n``.

    The half that is missing is the conjugate of the one that is there, so all counts twice but what is its own twin.
    """
    angles = 2 * np.pi * np.outer(np.arange(have), np.arange(n)) / n
    twice = np.full((have, 1), 2.0)
    twice[0] = 1.0
    if n % 2 == 0 and have > n // 2:
        twice[n // 2] = 1.0
    twice[n // 2 + 1 :] = 0.0
    return np.concatenate([twice * np.cos(angles), -twice * np.sin(angles)]) / n
