"""Tensors that are filled row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import TensorType, Value

Array = np.ndarray[Any, Any]


def rows_marked(x: Value, axis: int) -> Array:
    """The index along ``axis`` of each element of a tensor of the rank of ``x``, 1 long along the other axes (i64)."""
    assert isinstance(x.type, TensorType)
    assert x.type.shape is not None
    size = x.type.static_shape[axis]
    form = [1] * len(x.type.shape)
    form[axis] = size
    return np.arange(size, dtype=np.int64).reshape(form)
