"""Element-wise functions whose values depend on where in the tensor an element stands.

Vector code takes a packet of elements at a time, and what is left at the end by other code, which may round otherwise.
No table says which functions do: each that a model has is tried, on the machine at hand, one element at a time and many
together. Where the rows of a batch are whole packets, an element stands in the same place of one whatever its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from compiler.ir import Function, Module, Op, TensorType, Value, clone_ops

Array = np.ndarray[Any, Any]

#: No packet of floats has more elements, on any processor.
PACKET = 16
#: How many elements a function is tried on, one by one and together; no multiple of a packet.
TRIED = 1021
#: A function whose values differ by more does not work element by element: rounding is far smaller.
_ROUNDING = 1e-3


def depends_on_place(two: Module, three: Callable[[], Module]) -> str | None:
    """The operator whose values depend on where in the tensor an element stands, if one does.

    Args:
        two: onnx operators that compute two rows, all shapes known.
        three: gives the same for three; asked only if there is such a function, to tell whose rows are whole packets.
    """
    guilty = [(i, op) for i, op in enumerate(two.walk()) if _suspect(op) and _varies(op)]
    if not guilty:
        return None
    others = list(three().walk())
    for i, op in guilty:
        if i >= len(others) or others[i].name != op.name or op.block is not two.main.block:
            return op.name
        if not _whole_packets(op.results[0].type, others[i].results[0].type):
            return op.name
    return None


def _suspect(op: Op) -> bool:
    """Whether an operator may be an element-wise function of floats: a result of the shape of what goes in."""
    if op.defn.constant is not None or op.regions or len(op.results) != 1:
        return False
    given = [v for v in op.operands if v is not None]
    result = op.results[0].type
    return (
        isinstance(result, TensorType)
        and result.dtype.is_float
        and bool(given)
        and all(isinstance(v.type, TensorType) and v.type.dtype is result.dtype for v in given)
        and any(isinstance(v.type, TensorType) and v.type.shape == result.shape for v in given)
    )


def _whole_packets(two: Any, three: Any) -> bool:
    """Whether the rows stand in front, each a multiple of a packet."""
    a, b = two.static_shape, three.static_shape
    return bool(len(a) == len(b) > 0 and 3 * a[0] == 2 * b[0] and a[1:] == b[1:] and int(np.prod(a)) // 2 % PACKET == 0)


#: What trials found, by operator and attributes.
_found: dict[str, bool] = {}


def _varies(op: Op) -> bool:
    key = f"{op.name} {sorted(op.attributes.items(), key=lambda kv: kv[0])} {[_scalar(v) for v in op.operands]}"
    if key not in _found:
        _found[key] = any(_trial(op, made) for made in _domains(len(op.operands)))
    return _found[key]


def _domains(operands: int) -> Iterator[list[Array]]:
    rng = np.random.default_rng(0)
    yield [rng.random((TRIED, 1)) * 0.98 + 0.01 for _ in range(operands)]
    yield [rng.standard_normal((TRIED, 1)) * 3 for _ in range(operands)]
    yield [1 + 9 * rng.random((TRIED, 1)) for _ in range(operands)]


def _scalar(value: Any) -> float | None:
    constant = value.constant if value is not None else None
    return float(constant.reshape(-1)[0]) if constant is not None and constant.size == 1 else None


def _trial(op: Op, made: Sequence[Array]) -> bool:
    """Whether an element-wise function gives an element other bits alone than among many."""
    from compiler.errors import PlanishError
    from compiler.execution import evaluate

    given = list(dict.fromkeys(v for v in op.operands if v is not None and _scalar(v) is None))
    names = [f"x{i}" for i in range(len(given))]
    result = op.results[0].type
    assert isinstance(result, TensorType)
    fed = {n: made[i].astype(result.dtype.numpy) for i, n in enumerate(names)}
    sessions = []
    for size in (TRIED, 1):
        type_ = result.with_shape((size, 1))
        function = Function("trial", [(n, type_) for n in names], ["y"])
        values: dict[Value, Value] = dict(zip(given, function.inputs))
        scalars = [v.op for v in op.operands if v is not None and v not in values and v.op is not None]
        (*_, copy) = clone_ops([*dict.fromkeys(scalars), op], function.block, values)
        copy.results[0].type = type_
        function.block.append(Op("ir.return", copy.results))
        try:
            sessions.append(evaluate.Session(function, threads=1))
        except PlanishError:
            return False  # an axis that is not there: no element-wise function
    try:
        (together,) = sessions[0].run(fed)
        alone = np.concatenate([sessions[1].run({n: a[i : i + 1] for n, a in fed.items()})[0] for i in range(TRIED)])
    except PlanishError:
        return False
    if together.shape != alone.shape or np.array_equal(together, alone, equal_nan=True):
        return False
    finite = np.isfinite(together) & np.isfinite(alone)
    off = np.abs(together[finite] - alone[finite])
    return bool(np.all(off <= _ROUNDING * np.maximum(1, np.abs(alone[finite]))))
