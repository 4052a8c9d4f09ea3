"""The IR: typed SSA in blocks and regions. It knows no operator; dialects bring them.

A graph in ten lines::

    from compiler import ir
    import compiler.dialects.onnx  # registers onnx.*

    f = ir.Function("main", {"x": ir.TensorType(ir.F32, (1, 3))}, ["y"])
    b = ir.Builder(f.block)
    y = b.op("onnx.Relu", [f.inputs[0]]).result
    f.set_outputs([y])
    for op in f.walk():
        print(op.name, [v.type for v in op.results])
"""

# ruff: noqa: F401 (this page is the façade: what it imports is what it offers)
from compiler.ir.builder import Builder
from compiler.ir.core import NOWHERE, Block, BlockArgument, Location, Op, OpResult, Value
from compiler.ir.dtypes import *  # noqa: F403
from compiler.ir.dtypes import DTYPES, DType, dtype, from_numpy
from compiler.ir.module import Function, Module
from compiler.ir.opdef import (
    AttributeSpec,
    Dialect,
    InferenceError,
    OpDef,
    OperandSpec,
    UnknownOperatorError,
    dialects,
    get_dialect,
    lookup,
    register_dialect,
    suggest,
)
from compiler.ir.types import (
    UNKNOWN,
    Dim,
    OptionalType,
    SequenceType,
    StateType,
    TensorType,
    Type,
    dim_meet,
    shape_meet,
    type_meet,
)
