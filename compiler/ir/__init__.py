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
from typing import TYPE_CHECKING as _TYPE_CHECKING

from compiler.ir.builder import Builder
from compiler.ir.clone import clone_block, clone_function, clone_module, clone_ops
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
from compiler.ir.printer import print_function, print_module, print_op
from compiler.ir.spelling import same_array, same_attribute
from compiler.ir.types import (
    UNKNOWN,
    Dim,
    OptionalType,
    SequenceType,
    StateType,
    TensorType,
    Type,
    dim_meet,
    element_dtype,
    shape_meet,
    type_meet,
)
from compiler.ir.verifier import VerifyError, checking, verify, verify_ops

if _TYPE_CHECKING:
    from compiler.ir.parser import ParseError, parse_attributes, parse_module, parse_type

_PARSING = ("ParseError", "parse_attributes", "parse_module", "parse_type")


def __getattr__(name: str) -> object:
    # Only tools and tests read text; a compilation must not pay for lark.
    if name in _PARSING:
        from compiler.ir import parser

        return getattr(parser, name)
    raise AttributeError(f"module {__name__} has no attribute '{name}'")
