"""LSTM, GRU and RNN, one step after the other.

Source: the documentation in coremltools (converters/mil/mil/ops/defs/iOS15/recurrent.py), and its tests that Apple runs
on Core ML (converters/mil/mil/ops/tests/iOS14/test_recurrent.py) for what that leaves open: the reset gate of ``gru``
comes before the product, ``clip`` limits the cell, a ``reverse`` layer gives its sequence in the order it was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: np.asarray(1.0 / (1.0 + np.exp(-x))),
    "tanh": lambda x: np.asarray(np.tanh(x)),
    "scaled_tanh": lambda x: np.asarray(np.tanh(x)),
    "relu": lambda x: np.asarray(np.maximum(x, 0.0)),
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0.0, 1.0),
    "sigmoid_hard": lambda x: np.clip(0.2 * x + 0.5, 0.0, 1.0),
}


def _zeros(v: Array | None, size: int) -> Array:
    return np.zeros(size) if v is None else v


def _lstm(
    x: Array, h: Array, c: Array, w: Array, r: Array, bias: Array | None, peephole: Array | None, clip: Any, acts: Any
) -> tuple[Array, Array, Array]:
    recurrent, cell, out = acts
    n = h.shape[1]
    b = _zeros(bias, 4 * n)
    pi, pf, po = np.split(_zeros(peephole, 3 * n), 3)
    seen = []
    for step in x:
        i, f, o, z = np.split(step @ w.T + h @ r.T + b, 4, axis=1)
        i, f, z = recurrent(i + pi * c), recurrent(f + pf * c), cell(z)
        c = f * c + i * z
        if clip is not None:
            c = np.clip(c, -clip, clip)
        h = recurrent(o + po * c) * out(c)
        seen.append(h)
    return np.stack(seen), h, c


def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    clip: Array | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
) -> tuple[Array, ...]:
    acts = [_ACTIVATIONS[a] for a in (recurrent_activation, cell_activation, activation)]
    if direction == "bidirectional":
        assert weight_ih_back is not None
        assert weight_hh_back is not None
        n = initial_h.shape[1] // 2
        ahead = _lstm(x, initial_h[:, :n], initial_c[:, :n], weight_ih, weight_hh, bias, peephole, clip, acts)
        back = _lstm(
            x[::-1], initial_h[:, n:], initial_c[:, n:], weight_ih_back, weight_hh_back, bias_back, peephole_back, clip,
            acts,
        )  # fmt: skip
        # Both sequences in the order of the input.
        both = (ahead[0], back[0][::-1]), (ahead[1], back[1]), (ahead[2], back[2])
        sequence, h, c = (np.concatenate(p, axis=-1) for p in both)
    else:
        along = x if direction == "forward" else x[::-1]
        sequence, h, c = _lstm(along, initial_h, initial_c, weight_ih, weight_hh, bias, peephole, clip, acts)
    return sequence if output_sequence else h[None], h, c


def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    **_: Any,
) -> tuple[Array, ...]:
    recurrent, act = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[activation]
    h, n = initial_h, initial_h.shape[1]
    w_r, w_o, w_z = np.split(weight_ih, 3)
    r_r, r_o, r_z = np.split(weight_hh, 3)
    b_r, b_o, b_z = np.split(_zeros(bias, 3 * n), 3)
    seen = []
    for step in x if direction == "forward" else x[::-1]:
        r = recurrent(step @ w_r.T + h @ r_r.T + b_r)
        z = recurrent(step @ w_z.T + h @ r_z.T + b_z)
        o = act(step @ w_o.T + (r * h) @ r_o.T + b_o)
        h = (1 - z) * o + z * h
        seen.append(h)
    return np.stack(seen) if output_sequence else h[None], h


def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Array, ...]:
    act = _ACTIVATIONS[activation]
    h = initial_h
    seen = []
    for step in x if direction == "forward" else x[::-1]:
        h = act(step @ weight_ih.T + h @ weight_hh.T + _zeros(bias, h.shape[1]))
        seen.append(h)
    return np.stack(seen) if output_sequence else h[None], h


OPERATORS = {"lstm": lstm, "gru": gru, "rnn": rnn}
