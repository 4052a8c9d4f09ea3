"""Operators of mil by what they do to places."""

from __future__ import annotations

#: Operators that treat each element by itself, whatever its place.
ELEMENTWISE = frozenset(
    f"mil.{name}"
    for name in [
        "abs",
        "acos",
        "add",
        "asin",
        "atan",
        "atanh",
        "cast",
        "ceil",
        "clip",
        "cos",
        "cosh",
        "elu",
        "equal",
        "erf",
        "exp",
        "exp2",
        "floor",
        "floor_div",
        "gelu",
        "greater",
        "greater_equal",
        "inverse",
        "leaky_relu",
        "less",
        "less_equal",
        "linear_activation",
        "log",
        "logical_and",
        "logical_not",
        "logical_or",
        "logical_xor",
        "maximum",
        "minimum",
        "mod",
        "mul",
        "not_equal",
        "pow",
        "real_div",
        "relu",
        "relu6",
        "round",
        "rsqrt",
        "scaled_tanh",
        "select",
        "sigmoid",
        "sigmoid_hard",
        "sign",
        "silu",
        "sin",
        "sinh",
        "softplus",
        "softsign",
        "sqrt",
        "square",
        "sub",
        "tan",
        "tanh",
        "threshold",
        "thresholded_relu",
    ]
)

REDUCTIONS = frozenset(
    f"mil.reduce_{name}"
    for name in ["l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square"]
)

#: Operators that only show a tensor in another shape or order.
VIEWS = frozenset({"mil.transpose", "mil.reshape", "mil.expand_dims", "mil.squeeze"})

#: Operators that only change shape or order, whoever wrote them.
LAYOUT = VIEWS | {"mil.flatten2d", "mil.reshape_like"}
