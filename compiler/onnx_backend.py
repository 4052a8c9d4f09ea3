"""The compiler as a standard ONNX backend (``onnx.backend.base``): what runs is the package, read back from disk."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from compiler.driver import Options, compile_model, load_library
from compiler.errors import UserError
from compiler.proof import MilSession, read_package
from compiler.target import Target


class PackageRep(BackendRep):
    """A package that was read back from disk, ready to run."""

    def __init__(self, model: onnx.ModelProto, package: MilSession) -> None:
        initialized = {t.name for t in model.graph.initializer}
        self._inputs = [i.name for i in model.graph.input if i.name not in initialized]
        self._outputs = list(model.graph.output)
        self._package = package

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Runs the package.

        Args:
            inputs: arrays in the order of the model's inputs, or by name; a single array for a single input.

        Returns:
            The outputs in order, addressable by name, with the element types that the model declares.

        Raises:
            UserError: an array is missing, or one too many is given.
        """
        if isinstance(inputs, Mapping):
            missing = [n for n in self._inputs if n not in inputs]
            if missing:
                raise UserError(f"there is no array for input '{missing[0]}'")
            arrays = [np.asarray(inputs[n]) for n in self._inputs]
        else:
            arrays = [np.asarray(a) for a in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
        if len(arrays) != len(self._inputs):
            raise UserError(f"the model has {len(self._inputs)} inputs, {len(arrays)} arrays are given")
        results = self._package.run(arrays)
        typed = [_as_declared(r, o) for r, o in zip(results, self._outputs, strict=True)]
        return namedtupledict("Outputs", [o.name for o in self._outputs])(*typed)


class PlanishBackend(Backend):
    """Compiles to a package at fp32, reads it back and runs that."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> PackageRep:
        """Compiles ``model``.

        Raises:
            PlanishError: it cannot be compiled; the message says why.
        """
        super().prepare(model, device, **kwargs)
        options = Options(Target.of(kwargs.get("target", "cpu"), kwargs.get("os", "ios18"), "fp32"), verify="off")
        with tempfile.TemporaryDirectory() as folder:
            path = compile_model(model, Path(folder) / "model.mlpackage", options).path
            package = MilSession(read_package(path), load_library(options))
        return PackageRep(model, package)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Compiles and runs ``model`` once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Compiles and runs a model of one node, whose inputs have the types of the arrays given."""
        names = [n for n in node.input if n]
        arrays = [np.asarray(a) for a in inputs]
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [
                onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for n, a in zip(names, arrays, strict=True)
            ],
            [onnx.ValueInfoProto(name=n) for n in node.output if n],
        )
        version = kwargs.pop("opset_version", None) or onnx.defs.onnx_opset_version()
        opset = onnx.helper.make_opsetid(node.domain, version)
        model = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=[opset]))
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only ``CPU``: packages are evaluated by onnxruntime here."""
        return device.partition(":")[0] == "CPU"


def _as_declared(array: np.ndarray[Any, Any], declared: onnx.ValueInfoProto) -> np.ndarray[Any, Any]:
    element = declared.type.tensor_type.elem_type
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(element), copy=False) if element else array


prepare = PlanishBackend.prepare
run_model = PlanishBackend.run_model
run_node = PlanishBackend.run_node
supports_device = PlanishBackend.supports_device
is_compatible = PlanishBackend.is_compatible
