"""How functions of one element and numbers are spelled in MSL."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from codegen.metal.access import register_type
from compiler import ir

#: How functions of one element are spelled in MSL. tanh is precise: the fast one gives NaN for large numbers.
SPELLED = {
    "neg": "-{0}", "abs": "abs({0})", "sign": "sign({0})", "floor": "floor({0})", "ceil": "ceil({0})",
    "rint": "rint({0})", "exp": "exp({0})", "log": "log({0})", "sqrt": "sqrt({0})", "rsqrt": "rsqrt({0})",
    "reciprocal": "1.0f / {0}", "erf": "erf_of({0})", "sin": "sin({0})", "cos": "cos({0})", "tan": "tan({0})",
    "asin": "asin({0})", "acos": "acos({0})", "atan": "atan({0})", "sinh": "sinh({0})", "cosh": "cosh({0})",
    "tanh": "precise::tanh({0})", "asinh": "asinh({0})", "acosh": "acosh({0})", "atanh": "atanh({0})",
    "not": "!{0}", "copy": "{0}", "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "pow": "pow({0}, {1})", "max": "max({0}, {1})", "min": "min({0}, {1})", "less": "{0} < {1}",
    "less_equal": "{0} <= {1}", "equal": "{0} == {1}", "is_nan": "isnan({0})", "is_inf": "isinf({0})",
    "select": "{0} ? {1} : {2}", "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}",
}  # fmt: skip

_INTEGERS = {"remainder": "{0} % {1}", "floor_mod": "(({0} % {1}) + {1}) % {1}"}
_FLOATS = {"remainder": "fmod({0}, {1})", "floor_mod": "{0} - floor({0} / {1}) * {1}"}


#: Integers that are narrower than what they are computed in: what does not fit loses its upper bits, as in onnxruntime.
_NARROW = {
    "i8": ("char", -(2**7), 2**7 - 1), "u8": ("uchar", 0, 2**8 - 1),
    "i16": ("short", -(2**15), 2**15 - 1), "u16": ("ushort", 0, 2**16 - 1),
    "i4": ("", -8, 7), "u4": ("", 0, 15), "bool": ("", 0, 1),
}  # fmt: skip
_LEAVES_RANGE = frozenset({"neg", "abs", "add", "sub", "mul", "div", "cast"})


def spelled(op: ir.Op, operands: Sequence[str]) -> str:
    """A function of one element, of expressions."""
    short = op.name.removeprefix("metal.")
    kind = register_type(op.result.type)
    if short == "cast":
        source = op.operands[0]
        assert source is not None
        text = operands[0] if register_type(source.type) == kind else f"{kind}({operands[0]})"
        return text if _holds(op.result.type, source.type) else narrowed(op.result.type, text)
    table = _FLOATS if kind == "float" else _INTEGERS
    form = table[short] if short in table else SPELLED[short]
    text = form.format(*(f"({o})" if o.startswith("-") else o for o in operands))
    return narrowed(op.result.type, text) if short in _LEAVES_RANGE else text


def narrowed(type_: ir.Type, text: str) -> str:
    """What was computed, as integers of its type hold it."""
    assert isinstance(type_, ir.TensorType)
    stored = _NARROW.get(type_.dtype.name, ("",))[0]
    return f"int({stored}({text}))" if stored else text


def _holds(to: ir.Type, source: ir.Type) -> bool:
    """Whether an integer type has all numbers of another one."""
    assert isinstance(to, ir.TensorType)
    assert isinstance(source, ir.TensorType)
    wide, own = _NARROW.get(to.dtype.name), _NARROW.get(source.dtype.name)
    return wide is None or (own is not None and wide[1] <= own[1] and own[2] <= wide[2])


def zero(width: int) -> str:
    """Nothing, as a float or as so many."""
    return f"float{width}(0.0f)" if width > 1 else "0.0f"


def literal(value: object) -> str:
    """A number in MSL."""
    v = np.asarray(value).reshape(())[()]
    if isinstance(v, (bool, np.bool_)):
        return str(bool(v)).lower()
    if np.asarray(v).dtype.kind in "iu":
        whole = int(np.clip(int(v), -(2**31), 2**31 - 1))
        # There is no literal for the least int: a minus is an operator, and 2147483648 is none.
        return "(-2147483647 - 1)" if whole == -(2**31) else str(whole)
    f = float(v)
    if math.isinf(f):
        return "-INFINITY" if f < 0 else "INFINITY"
    if math.isnan(f):
        return "NAN"
    text = repr(float(np.format_float_positional(np.float32(f)))) if abs(f) < 1e7 else repr(f)
    return f"{text}f"
