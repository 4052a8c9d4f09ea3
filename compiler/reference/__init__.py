"""What MIL operators compute, in plain NumPy, from their documentation: what rules of stage ``meaning`` are held to.

coremltools computes the results of most operators itself where all inputs are known; that is the first truth (see
:mod:`compiler.rewrite.prove_oracle`). The operators here are those for which it does not, or where what it computes is
not what it documents. Each function says what it is written from. None shares code with a rule, the frontend or the
compiler, and none is used to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.reference import layers, moving, recurrent, sampling, selecting

Array = np.ndarray[Any, Any]

#: By the operator's name. Inputs come by MIL's names, absent ones as None; results are one array or a tuple.
OPERATORS: dict[str, Callable[..., Any]] = {
    name: fn for module in (layers, moving, recurrent, sampling, selecting) for name, fn in module.OPERATORS.items()
}

#: Where coremltools' own computation is not what its documentation says, and the documentation is followed. See the
#: functions for why.
PREFERRED = frozenset({"clamped_relu", "concat", "range_1d", "scatter_along_axis", "slice_by_size", "topk"})


def compute(name: str, inputs: dict[str, Any]) -> list[Array] | None:
    """The results of an operator, floats in the element type of the first float input; None if it is not here.

    Args:
        inputs: arrays and attributes by MIL's names.
    """
    fn = OPERATORS.get(name)
    if fn is None:
        return None
    arrays = [v for v in inputs.values() if isinstance(v, np.ndarray)]
    float_ = next((a.dtype for a in arrays if a.dtype.kind == "f"), np.dtype(np.float32))
    wide = {
        k: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v for k, v in inputs.items()
    }
    with np.errstate(all="ignore"):
        made = fn(**wide)
        results = [np.asarray(r) for r in (made if isinstance(made, tuple) else (made,))]
        return [r.astype(float_) if r.dtype.kind == "f" else r for r in results]
