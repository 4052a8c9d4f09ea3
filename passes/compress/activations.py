"""Quantized activations: what layers take is rounded to eight bits, by ranges that calibration has found.

Core ML's form is a ``quantize`` and a ``dequantize`` before a layer; a chip that computes in integers runs the layer on
the integers themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compiler.errors import UserError
from compiler.ir import F16, F32, I8, Module, Op, TensorType, Value, lookup, suggest

Array = np.ndarray[Any, Any]
Range = tuple[float, float]

#: Layers whose input is quantized: those that a chip computes as products of integers.
LAYERS = frozenset({"mil.conv", "mil.conv_transpose", "mil.linear", "mil.matmul"})

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse")
_BINS = 2048
#: What the percentile method leaves outside, in all.
_OUTSIDE = 1e-3


def layers(module: Module) -> list[Op]:
    """Layers of the main function whose input is a float tensor that is computed and whose weight is constant."""
    return [op for op in module.main.block.ops if op.name in LAYERS and _is_quantizable(op)]


def is_depthwise(op: Op) -> bool:
    """Whether a layer computes each of several channels by itself: little work, bound by memory, which eight bits speed
    up little, and hurt most, for all channels share one range."""
    weight = op.operands[1]
    return op.attributes.get("groups", 1) > 1 and weight is not None and (weight.shape or (0, 0))[1] == 1


def _is_quantizable(op: Op) -> bool:
    x, weight = op.operands[0], op.operands[1]
    if x is None or weight is None or x.constant is not None or not isinstance(x.type, TensorType):
        return False
    maker = weight.op
    fixed = weight.constant is not None or (maker is not None and maker.name.startswith("mil.constexpr_"))
    return fixed and x.type.dtype in (F16, F32) and not (x.op is not None and x.op.name == "mil.dequantize")


class Histogram:
    """What values a tensor takes: counts in bins that widen as greater values come."""

    def __init__(self) -> None:
        self.low = self.high = 0.0  # the range of values, with 0, which must be exact
        self._reach = 0.0
        self._counts = np.zeros(_BINS, np.int64)  # from −reach to reach

    def add(self, values: Array) -> None:
        """Takes in the finite ones of ``values``."""
        flat = values.reshape(-1)
        flat = flat[np.isfinite(flat)].astype(np.float64)
        if not flat.size:
            return
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        need = max(-self.low, self.high)
        if self._reach == 0.0:
            self._reach = need or 1.0
        while need > self._reach:
            # Twice as wide: pairs of bins become one.
            middle = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([np.zeros(_BINS // 4, np.int64), middle, np.zeros(_BINS // 4, np.int64)])
            self._reach *= 2
        self._counts += np.histogram(flat, _BINS, (-self._reach, self._reach))[0]

    def range(self, method: Method) -> Range:
        """The range to quantize: all of it, all but the outermost 0.1 %, or that of the least square error."""
        if method == "minmax" or not self._counts.any():
            return self.low, self.high
        centres = (np.arange(_BINS) + 0.5) * (2 * self._reach / _BINS) - self._reach
        share = np.cumsum(self._counts) / self._counts.sum()
        if method == "percentile":
            half = self._reach / _BINS
            first, last = np.searchsorted(share, [_OUTSIDE / 2, 1 - _OUTSIDE / 2])
            low, high = float(centres[first]) - half, float(centres[min(int(last), _BINS - 1)]) + half
            return max(self.low, min(0.0, low)), min(self.high, max(0.0, high))
        best, least = (self.low, self.high), np.inf
        for part in np.linspace(0.3, 1.0, 71):
            low, high = self.low * part, self.high * part
            scale = max((high - low) / 255, np.finfo(np.float64).tiny)
            back = np.clip(np.round(centres / scale), np.round(low / scale), np.round(high / scale)) * scale
            lost = float(np.dot(self._counts, np.square(back - centres)))
            if lost < least:
                best, least = (low, high), lost
        return best


def parameters(range_: Range, dtype: Any) -> tuple[Array, Array]:
    """Scale and zero point (i8) that map a range, widened to hold 0, to −128 … 127."""
    low, high = min(range_[0], 0.0), max(range_[1], 0.0)
    scale = dtype((high - low) / 255)
    if not np.isfinite(scale) or scale <= 0:
        scale = dtype(1.0)
    zero = np.clip(np.round(-128 - low / float(scale)), -128, 127)
    return np.asarray(scale), np.asarray(zero, np.int8)


def insert(module: Module, ranges: Mapping[str, Range]) -> int:
    """Puts ``quantize`` and ``dequantize`` before layers, by the layer's name; one pair for layers that share input and
    range.

    Returns:
        How many layers take quantized inputs.

    Raises:
        UserError: there is no range for a layer, or no layer for a range.
    """
    targets = layers(module)
    names = {op.results[0].name for op in targets}
    for name in ranges:
        if name not in names:
            raise UserError(f"the ranges name a layer '{name}', which there is not{suggest(name, names)}")
    made: dict[tuple[Value, bytes, bytes], Value] = {}
    count = 0
    for op in targets:
        found = ranges.get(op.results[0].name)
        if found is None:
            continue
        x = op.operands[0]
        assert x is not None
        assert isinstance(x.type, TensorType)
        scale, zero = parameters(found, x.type.dtype.numpy.type)
        key = (x, scale.tobytes(), zero.tobytes())
        if key not in made:
            made[key] = _pair(op, x, scale, zero)
        op.set_operand(0, made[key])
        count += 1
    return count


def _pair(op: Op, x: Value, scale: Array, zero: Array) -> Value:
    block = op.block
    assert block is not None
    assert isinstance(x.type, TensorType)

    def add(name: str, operands: list[Value | None], type_: TensorType, attributes: dict[str, Any]) -> Value:
        defn = lookup(name)
        new = Op(defn, operands, [type_], {**defn.defaults(), **attributes}, loc=op.loc)
        block.insert_before(op, new)
        return new.result

    z = add("mil.const", [], TensorType(I8, ()), {"val": zero})
    s = add("mil.const", [], TensorType(x.type.dtype, ()), {"val": scale})
    q = add("mil.quantize", [x, z, s], x.type.with_dtype(I8), {"output_dtype": "int8"})
    q.name = f"{x.name}_quantized"
    back = add("mil.dequantize", [q, z, s], x.type, {})
    back.name = f"{x.name}_dequantized"
    return back


def write_ranges(path: str | Path, ranges: Mapping[str, Range]) -> None:
    """Writes ranges as JSON, a line for each layer, to be looked at and edited.

    Raises:
        UserError: the file cannot be written.
    """
    lines = ",\n".join(f"  {json.dumps(name)}: [{low:.7g}, {high:.7g}]" for name, (low, high) in ranges.items())
    try:
        Path(path).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write the ranges {path}: {e.strerror}", "another file, with --ranges") from e


def read_ranges(path: str | Path) -> dict[str, Range]:
    """Ranges from JSON: ``{"LAYER": [least, greatest], …}``. A layer that is taken out is not quantized.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"cannot read the ranges {path}: {e}", "a file that --ranges has written") from e
    out = {}
    for name, pair in held.items() if isinstance(held, dict) else [("", None)]:
        match pair:
            case [int() | float() as low, int() | float() as high] if -np.inf < low <= high < np.inf:
                out[name] = (float(low), float(high))
            case _:
                raise UserError(
                    f"the ranges {path} hold {json.dumps(pair)} for '{name}'", 'two numbers, as {"layer": [-1.5, 2.0]}'
                )
    return out
