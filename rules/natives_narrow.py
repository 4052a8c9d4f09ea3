"""Builders that bring numbers to element types of 8 and 4 bits, which Core ML does not have: what is exact there is
computed in wider ones."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from compiler.ir import BOOL, F16, F32, DType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from rules.natives import dtype_of
from rules.natives_arithmetic import wrap


def cast_to_small_float(b: RuleBuilder, m: Bindings) -> Value:
    x: Value = m.x
    if dtype_of(x) is not F32:  # what stands for a narrow float is f32
        x = b.op("mil.cast", [x], {"dtype": "fp32"})
    return rounded(b, x, dtype_of(m.y), bool(m.s) or dtype_of(m.y).bits < 8)


def rounded(b: RuleBuilder, x: Value, to: DType, saturate: bool) -> Value:
    """The f32 ``x`` rounded to the numbers of ``to``, half to even: to whole multiples of what the last digit is
    worth, which depends on the greatest power of two that is not above |x|.

    Args:
        saturate: what is too large becomes the largest number, else infinite or, where there is no infinity, no number.
    """
    limits = ml_dtypes.finfo(to.numpy)
    most, least = float(limits.max), float(limits.smallest_normal)
    if saturate:
        x = b.op("mil.select", [b.op("mil.greater", [x, most]), most, x])
        x = b.op("mil.select", [b.op("mil.less", [x, -most]), -most, x])
    size = b.op("mil.abs", [x])
    power: Value | float = least
    octaves = int(math.log2(most / least)) + (not saturate)
    for k in reversed(range(octaves.bit_length())):  # the exponent, from its highest bit on
        step = 2.0 ** (1 << k)
        above = power * step if isinstance(power, float) else b.op("mil.mul", [power, step])
        power = b.op("mil.select", [b.op("mil.greater_equal", [size, above]), above, power])
    digits = 2.0**limits.nmant
    whole = b.op("mil.round", [b.op("mil.mul", [b.op("mil.real_div", [x, power]), digits])])
    result: Value = b.op("mil.mul", [b.op("mil.mul", [whole, 1 / digits]), power])
    if saturate:
        return result
    over = b.op("mil.greater", [b.op("mil.abs", [result]), most])
    beyond = b.op("mil.mul", [result, np.inf]) if to.name == "f8e5m2" else np.nan
    unlimited: Value = b.op("mil.select", [over, beyond, result])
    return unlimited


def cast_to_packed(b: RuleBuilder, m: Bindings) -> Value:
    """Floats are rounded, halves away from zero, as onnxruntime rounds them; then all but the lowest bits is cut."""
    x: Value = m.x
    if dtype_of(x).is_float:
        if dtype_of(x) not in (F16, F32):
            x = b.op("mil.cast", [x], {"dtype": "fp32"})
        size = b.op("mil.abs", [x])
        floor = b.op("mil.floor", [size])
        up = b.op("mil.greater_equal", [b.op("mil.sub", [size, floor]), 0.5])
        away = b.op("mil.select", [up, b.op("mil.add", [floor, 1.0]), floor])
        x = b.op("mil.mul", [b.op("mil.sign", [x]), away])
    whole: Value = b.op("mil.cast", [x], {"dtype": "int32"})
    return whole if dtype_of(m.x) is BOOL else wrap(b, whole, dtype_of(m.y))
