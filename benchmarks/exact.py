"""What there is to say for a result that departs from the output stored with a test.

Rounding: the suite's tolerance of 1e-3 is about one unit in the last place of a half, and its 1e-7, where sums cancel,
is less than a float's rounding of what was added up. So the model is computed in double precision by ONNX's reference
implementation: the stored output itself may be what is off.

Dispute: onnxruntime may read the standard as this compiler does. It does so where corners are aligned and a scale times
a size is no whole number: Resize says that ``length_resized`` is "the length of the resized tensor", and the stored
outputs take the fraction for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

Array = np.ndarray[Any, Any]

_FLOATS = tuple(np.dtype(d) for d in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16))
_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def only_rounded(model: onnx.ModelProto, inputs: Sequence[Any], got: Sequence[Any], stored: Sequence[Any]) -> bool:
    """Whether every result is as near to the exact one as the stored output is, or within one unit in the last place of
    the greatest element; nearness is the greatest difference.

    False as well where the model cannot be computed in double precision, or has outputs that are no floats.
    """
    if not all(isinstance(a, np.ndarray) for a in (*inputs, *got, *stored)):
        return False
    exact = _computed(model, inputs)
    if exact is None or len(exact) != len(stored):
        return False
    for mine, theirs, true in zip(got, stored, exact):
        if np.array_equal(mine, theirs) and mine.dtype == theirs.dtype:
            continue
        if mine.dtype != theirs.dtype or mine.dtype not in _FLOATS or not mine.shape == theirs.shape == np.shape(true):
            return False
        a, b = (np.max(np.abs(x.astype(np.float64) - true), initial=0) for x in (mine, theirs))
        unit = float(ml_dtypes.finfo(mine.dtype).eps) * np.max(np.abs(true), initial=0)
        if not a <= max(b, unit):
            return False
    return True


def as_onnxruntime(model: onnx.ModelProto, inputs: Sequence[Any]) -> list[Any] | None:
    """What onnxruntime gives; None where it does not run the model."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs))))
    except Exception:  # onnxruntime has no common base for its errors
        return None


def _computed(model: onnx.ModelProto, inputs: Sequence[Array]) -> list[Any] | None:
    from onnx.reference import ReferenceEvaluator

    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for graph in _graphs(wide.graph):
        _widen(graph)
    names = [i.name for i in wide.graph.input]
    feeds = {n: a.astype(np.float64) if a.dtype.kind not in "iub" else a for n, a in zip(names, inputs)}
    try:
        return list(ReferenceEvaluator(wide).run(None, feeds))
    except Exception:  # the reference implementation has no double form of some operators
        return None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _widen(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type in _NARROW:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i in _NARROW:
                attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
