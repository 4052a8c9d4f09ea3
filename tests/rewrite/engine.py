"""Rules as text and graphs in a few words, for tests of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler import ir
from compiler.rewrite import Library, Report
from compiler.rewrite.parse import parse

HEAD = "stage fuse\nuse onnx\n"


def library(rules: str, **options: Any) -> Library:
    """The rules of a text, which join stage ``fuse`` and speak of ``onnx``."""
    return Library([parse(HEAD + rules, "t.rules")], **options)


class Graph:
    """A module under construction: ``g = Graph(x="2x3xf32"); g.out(g("Relu", g.x))``."""

    def __init__(self, **inputs: str) -> None:
        types = {name: tensor(spelled) for name, spelled in inputs.items()}
        self.function = ir.Function("main", types)
        self.module = ir.Module("m")
        self.module.add(self.function)
        self.builder = ir.Builder(self.function.block)
        for argument in self.function.inputs:
            setattr(self, argument.name, argument)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __call__(self, name: str, *operands: Any, results: int = 1, regions: Any = (), **attributes: Any) -> Any:
        """Adds an operator; numbers, lists and arrays among the operands become constants."""
        values = [o if o is None or isinstance(o, ir.Value) else self.constant(o) for o in operands]
        name = name if "." in name else f"onnx.{name}"
        op = self.builder.op(name, values, attributes, results=results, regions=regions)
        return op.results[0] if results == 1 else op.results

    def constant(self, value: Any) -> ir.Value:
        array = np.asarray(value)
        if not isinstance(value, np.ndarray) and array.dtype == np.float64:
            array = array.astype(np.float32)
        return self.builder.constant(array, "onnx")

    def out(self, *values: ir.Value) -> ir.Module:
        """Ends the function and gives the module, verified."""
        self.function.set_outputs(values, [f"o{i}" for i in range(len(values))])
        ir.verify(self.module)
        return self.module


def tensor(spelled: str) -> ir.TensorType:
    """``"Nx3xf32"`` as a type."""
    *dims, dtype = spelled.split("x")
    return ir.TensorType(ir.dtype(dtype), tuple(int(d) if d.isdigit() else d for d in dims))


def rewritten(rules: str, module: ir.Module, **options: Any) -> Report:
    """Applies the rules, and holds the result to the verifier."""
    report = library(rules).rewrite(module, "fuse", **options)
    ir.verify(module)
    return report


def fires(rule: str, module: ir.Module, **options: Any) -> int:
    """How often the only rule of a text fires."""
    return sum(rewritten(rule, module, **options).fires.values())


def names(module: ir.Module) -> list[str]:
    """The operators of the main function in order, without constants and the return."""
    inner = (op for op in module.main.block.ops if op.defn.constant is None and not op.defn.terminator)
    return [op.name.removeprefix("onnx.") for op in inner]
