"""Modules of onnx.* operators, run by onnxruntime: the numeric truth of this project."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler import ir
from compiler.dialects import onnx_proto
from compiler.errors import PlanishError, UserError
from compiler.execution.mixed_signs import unify_signs
from compiler.export import Export, to_onnx

__all__ = ["EvaluationError", "Session", "run", "to_onnx"]

Array = np.ndarray[Any, Any]

_NAMES = re.compile(r"[Nn]ode[:( ]+(?:[Nn]ame:\s*)?'?([^'()]+?)'?(?:[)\s]|$)|Name:'([^']+)'")


class EvaluationError(PlanishError):
    """onnxruntime cannot load or run a module.

    Attributes:
        op: the operator that it stumbled over, if it said so.
    """

    def __init__(self, message: str, op: ir.Op | None = None) -> None:
        super().__init__(message)
        self.op = op


class Session:
    """A function, loaded into onnxruntime once and run as often as wanted."""

    def __init__(
        self,
        source: ir.Module | ir.Function,
        extra: Sequence[ir.Value] = (),
        *,
        optimize: bool = False,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            source: a function, or a module with its main function; it may be changed afterwards.
            extra: values of the function's own block to give out after its outputs.
            optimize: let onnxruntime fuse operators; without, every operator is computed as it stands.
            threads: how many threads an operator may use; onnxruntime's choice when None.

        Raises:
            UnsupportedError: the function holds operators that are not ONNX's.
            EvaluationError: onnxruntime refuses the model; ``op`` is the operator to blame, if it named one.
        """
        import onnxruntime as ort

        function = source.main if isinstance(source, ir.Module) else source
        # onnxruntime copies initializers once more than inputs; fusions need to know them as constants.
        export = Export(function, extra, detach=True, borrow=not optimize)
        unify_signs(export.model.graph, export.ops)
        self._ops = export.ops
        self._types: dict[str, ir.Type] = {a.name: a.type for a in function.inputs}
        self._outputs = export.output_names
        leaving = [v.type for v in (*function.outputs, *extra)]
        self._exotic = any(map(is_exotic, [*self._types.values(), *leaving]))
        options = ort.SessionOptions()
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        options.log_severity_level = 4
        # Threads that wait busily for the next operator take half of a processor that has few cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        self._weights = {n: to_ort(a) for n, a in export.large.items()}
        self._borrowed = {n: to_ort(a) for n, a in export.huge.items()}
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        try:
            self._session = ort.InferenceSession(
                export.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # onnxruntime has a class for each status, with no common base
            raise self._error(e, "load") from None

    @property
    def output_names(self) -> list[str]:
        """The names of what :meth:`run` gives, in order: the function's outputs, then the extra values."""
        return list(self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Runs the function.

        Args:
            inputs: an array for every input, of its element type; tensors only, or lists of arrays for sequences.

        Returns:
            The outputs in order, then the extra values.

        Raises:
            UserError: an input is missing, unknown, or of another element type.
            EvaluationError: onnxruntime fails; ``op`` is the operator to blame, if it named one.
        """
        for name in inputs:
            if name not in self._types:
                raise UserError(f"there is no input '{name}'{ir.suggest(name, self._types)}")
        feeds: dict[str, Any] = {}
        for name, type_ in self._types.items():
            if name not in inputs:
                raise UserError(f"the input '{name}' is missing")
            feeds[name] = _checked(name, inputs[name], type_)
        try:
            if not self._exotic:
                return list(self._session.run(self._outputs, feeds | self._borrowed))
            values = {n: to_ort(a) for n, a in feeds.items()} | self._borrowed
            return [from_ort(v) for v in self._session.run_with_ort_values(self._outputs, values)]
        except Exception as e:  # see above
            raise self._error(e, "run") from None

    def _error(self, error: Exception, verb: str) -> EvaluationError:
        text = str(error).strip()
        op = None
        for match in _NAMES.finditer(text):
            op = self._ops.get(next(g for g in match.groups() if g is not None).strip())
            if op is not None:
                break
        what = "the model"
        if op is not None:
            what = f"{op.name} of node '{op.loc.nodes[0]}'" if op.loc.nodes else op.name
        return EvaluationError(f"onnxruntime cannot {verb} {what}: {reason_of(error)}", op)


def run(
    source: ir.Module | ir.Function,
    inputs: Mapping[str, Array],
    *,
    outputs: Sequence[ir.Value] | None = None,
    optimize: bool = False,
) -> dict[Any, Array]:
    """Runs a function once.

    Args:
        inputs: an array for every input by name.
        outputs: values to compute instead of the function's outputs.

    Returns:
        The outputs by name, or the values asked for by value.

    Raises:
        UserError, UnsupportedError, EvaluationError: see :class:`Session`.
    """
    function = source.main if isinstance(source, ir.Module) else source
    session = Session(function, outputs or (), optimize=optimize)
    results = session.run(inputs)
    own = len(function.output_names)
    return dict(zip(function.output_names, results[:own])) if outputs is None else dict(zip(outputs, results[own:]))


def reason_of(error: Exception) -> str:
    """The first line of what onnxruntime says, without its number."""
    text = str(error).strip()
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.splitlines()[0] if text else "")


def is_exotic(type_: ir.Type) -> bool:
    """Whether NumPy itself lacks the element type, so that onnxruntime takes and gives it as raw memory only."""
    return isinstance(type_, ir.TensorType) and type_.dtype.numpy.isbuiltin != 1


def to_ort(array: Array) -> Any:
    """An OrtValue that borrows the array's memory, or a copy where onnxruntime could not read it in place."""
    import onnxruntime as ort

    if not array.flags.aligned or not array.flags.c_contiguous:
        array = np.require(array, requirements=["A", "C"])
    if array.dtype.isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, onnx_proto.ENUM[ir.from_numpy(array.dtype)])


def from_ort(value: Any) -> Array:
    dtype = onnx_proto.element_type(value.element_type())
    if dtype.numpy.isbuiltin == 1:
        array: Array = value.numpy()
        return array
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return onnx_proto.array_from_bytes(data, dtype, tuple(value.shape()))


def _checked(name: str, given: Any, type_: ir.Type) -> Any:
    if not isinstance(type_, ir.TensorType):
        return given
    array = np.asarray(given)
    if type_.dtype.name == "string":
        return array.astype(object)
    if array.dtype != type_.dtype.numpy:
        raise UserError(f"the input '{name}' is {type_}, and the array given is of {array.dtype}")
    return array
