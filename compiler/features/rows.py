"""Whether rows of a batch mix: every value of several rows together, beside what the rows give one by one.

No table says which operators keep rows apart: onnxruntime computes both, and the first value that differs names the
operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from compiler.dialects.onnx_contents import computes_shapes
from compiler.errors import UnsupportedError
from compiler.ir import Module, Op, TensorType, Value

Array = np.ndarray[Any, Any]

#: How many rows are tried.
COUNT = 3
#: Values differ by mixing if their relative L2 error exceeds this; other kernels for other sizes cost about 1e-6.
MIXED = 1e-3
#: About how many bytes of values are looked at in one go.
_BYTES = 1 << 28


def check(module: Module, inputs: set[str], symbol: str) -> dict[str, int | None]:
    """Tries rows together and one by one, on made-up inputs.

    Args:
        module: onnx operators whose opened inputs are ``inputs``, rows first.
        symbol: the size of the opened axis.

    Returns:
        The axis of rows of every output of the main function; None for one that is the same whatever the rows.

    Raises:
        UnsupportedError: a row's values depend on the other rows, or an operator does not take several; names the first
            operator where that shows.
    """
    from compiler.execution import samples
    from compiler.shapes import sizes_to_try

    main = module.main
    sizes = {**sizes_to_try(module, 0), symbol: COUNT}
    together = samples.generate(main, 1, lambda _: sizes)[0]
    # Made-up pictures of one set look alike; rows must not.
    rng = np.random.default_rng(samples.SEED)
    for name in inputs:
        if together[name].dtype.kind == "f":
            factors = 1.0 + 0.5 * rng.standard_normal((COUNT, *([1] * (together[name].ndim - 1))))
            together[name] = (together[name] * factors).astype(together[name].dtype)
    each = [{n: a[i : i + 1] if n in inputs else a for n, a in together.items()} for i in range(COUNT)]
    axes: dict[Value, int | None] = {}
    for values in _portions(main.block.ops, main.outputs):
        joint, *single = _run(module, [together, *each], values)
        for i, value in enumerate(values):
            axes[value] = _axis(joint[i], [s[i] for s in single])
            if axes[value] == -1:
                raise UnsupportedError(
                    f"{_spelled(value.op)} mixes the rows of a batch: what it gives for one depends on the others",
                    "without --batch, one row at a time",
                )
    return {n: axes.get(v, 0) for n, v in zip(main.output_names, main.outputs, strict=True)}


def _spelled(op: Op | None) -> str:
    if op is None:
        return "an operator"
    return f"{op.name} at node '{op.loc.nodes[0]}'" if op.loc.nodes else op.name


def _portions(ops: Iterator[Op], outputs: Sequence[Value]) -> Iterator[list[Value]]:
    values: list[Value] = []
    size = 0
    for op in ops:
        if op.defn.constant is not None or op.defn.terminator:
            continue
        if is_shape(op) and not any(r in outputs for r in op.results):
            continue
        for result in op.results:
            if isinstance(result.type, TensorType) and result.use_count:
                values.append(result)
                dims = result.type.shape or ()
                size += 4 * COUNT * int(np.prod([d if isinstance(d, int) else 1 for d in dims], dtype=np.int64))
        if size > _BYTES:
            yield values
            values, size = [], 0
    if values:
        yield values


def is_shape(op: Op) -> bool:
    """Whether an operator computes sizes, which may differ with the number of rows."""
    return computes_shapes(op) and all(
        isinstance(r.type, TensorType) and r.type.dtype.is_integer and (r.type.rank or 0) <= 1 for r in op.results
    )


def _run(module: Module, sets: Sequence[dict[str, Array]], values: Sequence[Value]) -> list[list[Array]]:
    from compiler.execution import evaluate

    try:
        session = evaluate.Session(module, values)
        return [session.run(one)[len(module.main.output_names) :] for one in sets]
    except evaluate.EvaluationError as e:
        raise UnsupportedError(
            f"{_spelled(e.op)} does not take several rows", "a model exported with an open batch"
        ) from None


def _axis(joint: Array, single: Sequence[Array]) -> int | None:
    """The axis of rows; None if there are none and the values are the same, -1 if they differ otherwise."""
    from compiler.proof import compare

    shape = single[0].shape
    if any(s.shape != shape for s in single) or joint.ndim != len(shape):
        return -1
    candidates = [a for a in range(len(shape)) if joint.shape[a] == COUNT * shape[a] and shape[a]]
    for axis in candidates:
        if compare(joint, np.concatenate(list(single), axis)).badness <= _allowed(joint):
            return axis
    if not candidates and all(s.shape == joint.shape and compare(joint, s).badness <= _allowed(joint) for s in single):
        return None
    return -1


def _allowed(array: Array) -> float:
    return MIXED if array.dtype.kind == "f" else 0.02
