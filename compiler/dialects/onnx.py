"""The dialects ``onnx`` (ai.onnx), ``ml`` (ai.onnx.ml) and ``msft`` (com.microsoft).

Operators are defined by the schemas of the onnx package and of onnxruntime, made into definitions when first asked for.
The newest form of an operator has its plain name, ``onnx.Softmax``; an older one the version that introduced it,
``onnx.Softmax@11``. Importing this module registers the dialects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler import ir
from compiler.dialects import onnx_infer, onnx_schema


class OnnxDialect(ir.Dialect):
    """The operators of one ONNX domain."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lookup(self, op: str) -> ir.OpDef | None:
        name, at, version = op.partition("@")
        known = onnx_schema.versions(self.name).get(name)
        if known is None:
            return None
        if not at:
            return onnx_schema.definition(self.name, name, known[-1])
        # The newest form goes by its plain name only, so that a form has one spelling.
        if not version.isdecimal() or int(version) not in known[:-1]:
            return None
        return onnx_schema.definition(self.name, name, int(version))

    def op_names(self) -> Iterable[str]:
        return onnx_schema.versions(self.name)

    def infer(
        self,
        defn: ir.OpDef,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[ir.Block] = (),
        results: int | None = None,
    ) -> list[ir.Type]:
        return onnx_infer.infer(defn, operands, attributes, regions, results)

    def constant(self, value: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
        return "onnx.Constant", {"value": value}


for _name in onnx_schema.DOMAINS:
    ir.register_dialect(OnnxDialect(_name))
