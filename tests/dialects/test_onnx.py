"""The onnx dialects: definitions, forms, inference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import defs

import compiler.dialects.onnx  # noqa: F401 (registers the dialects)
from compiler import ir
from compiler.dialects import onnx_infer, onnx_schema
from compiler.dialects.onnx_contents import contents
from compiler.dialects.onnx_proto import ProtoError, type_from_proto, type_to_proto
from compiler.dialects.onnx_versions import ladder

X = ir.TensorType(ir.F32, ("n", 3, 4))


@pytest.fixture
def b():
    function = ir.Function("main", {"x": X, "v": ir.TensorType(ir.I64, (2,))}, ["y"])
    return ir.Builder(function.block)


def inputs(b):
    return b.block.arguments


# ---- definitions


@pytest.mark.parametrize("dialect", ["onnx", "ml", "msft"])
def test_every_version_of_every_operator_is_defined(dialect):
    for name, versions in onnx_schema.versions(dialect).items():
        for since in versions:
            defn = onnx_schema.definition(dialect, name, since)
            newest = since == versions[-1]
            assert defn.name == f"{dialect}.{name}" + ("" if newest else f"@{since}")
            assert ir.lookup(defn.name).since == since


def test_a_definition_says_what_the_schema_says():
    conv = ir.lookup("onnx.Conv")
    assert [(o.name, o.arity) for o in conv.operands] == [("X", "required"), ("W", "required"), ("B", "optional")]
    assert conv.operands[0].dtypes >= {ir.F16, ir.F32, ir.F64}
    assert conv.defaults() == {"auto_pad": "NOTSET", "group": 1}
    norm = ir.lookup("onnx.LayerNormalization").attributes
    assert norm["epsilon"].default == 1e-5  # the decimal, not the double nearest to the single
    assert norm["stash_type"].default is ir.F32
    assert ir.lookup("onnx.Cast").attributes["to"].kind == "type"
    assert ir.lookup("onnx.QuantizeLinear").attributes["output_dtype"].default is None
    assert ir.lookup("onnx.If").regions == ("then_branch", "else_branch")
    assert ir.lookup("onnx.Constant").constant == "value"
    assert set(ir.lookup("onnx.Constant").attributes) == {"value"}
    assert ir.lookup("msft.FusedMatMul").attributes["alpha"].default == 1.0
    assert ir.lookup("onnx.Add").commutative
    assert not ir.lookup("onnx.Sub").commutative


def test_what_draws_random_numbers_is_not_pure():
    impure = {n for n in onnx_schema.versions("onnx") if not ir.lookup(f"onnx.{n}").pure}
    random = {s.name for s in defs.get_all_schemas() if s.domain == "" and "andom" in s.name}
    assert impure == random | {"Bernoulli", "Dropout", "Multinomial"}


@pytest.mark.parametrize("name", ["onnx.Konv", "onnx.Softmax@12", "onnx.Softmax@13", "onnx.Softmax@x", "onnx.Softmax@"])
def test_unknown_forms_are_unknown(name):
    with pytest.raises(ir.UnknownOperatorError):
        ir.lookup(name)


# ---- forms


def newest(name, version, attributes=None, dtypes=(ir.F32,), results=1, upgraded=frozenset()):
    found = ladder("onnx", name, version, upgraded)
    given = {**found.forms[0].defaults(), **(attributes or {})}
    return found.newest(dtypes, given, results, [d is not None for d in dtypes]).name


def test_an_operator_takes_the_newest_form_that_it_fits():
    assert newest("Relu", 7) == "onnx.Relu"
    assert newest("Softmax", 7) == "onnx.Softmax@11"
    assert newest("ReduceMean", 7, {"axes": (1,)}) == "onnx.ReduceMean@13"
    assert newest("ReduceMean", 7) == "onnx.ReduceMean"
    assert newest("GroupNormalization", 18) == "onnx.GroupNormalization@18"
    assert newest("RoiAlign", 11) == "onnx.RoiAlign@10"
    assert newest("ReduceLogSum", 18, dtypes=(ir.F32,)) == "onnx.ReduceLogSum"
    assert newest("Relu", 7, upgraded=frozenset({"Relu@6"})) == "onnx.Relu@6"


def test_what_was_taken_out_of_onnx_is_gone():
    assert newest("Upsample", 9) == "onnx.Upsample@9"
    assert ladder("onnx", "Upsample", 10) is None
    assert ladder("onnx", "Gelu", 19) is None


# ---- inference


def test_symbolic_and_unknown_dimensions_survive(b):
    x, _ = inputs(b)
    unknown = ir.TensorType(ir.F32, ("?", 3, 4))
    assert type_from_proto(type_to_proto(unknown)) is unknown
    assert type_from_proto(type_to_proto(X)) is X
    assert b.op("onnx.Relu", [x]).result.type is X
    loose = b.block.add_argument(unknown)
    assert b.op("onnx.Add", [loose, loose]).result.type is unknown
    assert b.op("onnx.Relu", [b.block.add_argument(ir.TensorType(ir.F32, None))]).result.shape is None


def test_constants_among_the_operands_are_read(b):
    x, _ = inputs(b)
    target = b.constant(np.array([-1, 6]), "onnx")
    assert b.op("onnx.Reshape", [x, target]).result.shape == ("?", 6)
    assert b.op("onnx.Reshape", [x, b.constant(np.array([0, -1]), "onnx")]).result.shape == ("n", 12)
    assert b.op("onnx.Reshape", [x, b.constant(np.array([-1, 12]), "onnx")]).result.shape == ("n", 12)
    assert b.op("onnx.Tile", [x, b.constant(np.array([1, 2, 3]), "onnx")]).result.shape == ("n", 6, 12)
    assert [r.shape for r in b.op("onnx.Split", [x], {"num_outputs": 2, "axis": 2}).results] == [("n", 3, 2)] * 2
    start, end, step = (b.constant(np.array(v), "onnx") for v in (0, 7, 2))
    assert b.op("onnx.Range", [start, end, step]).result.shape == (4,)
    assert b.op("onnx.Reshape", inputs(b)).result.shape == ("?", "?")


@pytest.mark.parametrize(
    ("source", "target", "shape"),
    [
        ((2, 3, 4), (6, -1), (6, 4)),
        (("n", 3, 4), ("n", -1), ("n", 12)),
        (("n", "m"), ("m", -1), ("m", "n")),
        (("n", "m"), (-1,), ("?",)),
        (("n", 4), (-1, 2), ("?", 2)),
        ((2, 3), ("?", 2), (3, 2)),
        (("?", 3), (0, 3), ("?", 3)),
        (None, (2, -1), (2, "?")),
        ((0, 3), (3, -1), (3, 0)),
    ],
)
def test_reshape_of_names(source, target, shape):
    assert onnx_infer.reshape("Reshape", source, target) == shape


@pytest.mark.parametrize(("source", "target"), [((2, 3), (4, -1)), ((2, 3), (5,)), ((2, 3), (-1, -1)), ((2,), (0, 0))])
def test_reshape_that_cannot_be(source, target):
    with pytest.raises(ir.InferenceError):
        onnx_infer.reshape("Reshape", source, target)


def test_operands_that_contradict_are_refused(b):
    x, _ = inputs(b)
    with pytest.raises(ir.InferenceError, match=r"onnx\.MatMul"):
        b.op("onnx.MatMul", [x, x])


def test_microsofts_operators_are_inferred_by_onnxruntime(b):
    x, _ = inputs(b)
    assert b.op("msft.Gelu", [x]).result.type is X
    w = b.constant(np.zeros((4, 7), np.float32), "onnx")
    assert b.op("msft.FusedMatMul", [x, w]).result.shape == ("n", 3, 7)
    assert b.op("msft.RemovePadding", [x, b.op("onnx.Cast", [inputs(b)[1]], {"to": ir.I32}).result], results=4).results


def test_maps_are_refused():
    proto = onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(1, [2]))
    with pytest.raises(ProtoError, match="is a map, which is not supported"):
        type_from_proto(proto)


# ---- shape arithmetic


def known(b, name, *operands, **attributes):
    arrays = [b.constant(o, "onnx") if isinstance(o, np.ndarray) else o for o in operands]
    return contents(b.op(f"onnx.{name}", arrays, attributes).results[0])


def test_contents_of_shapes(b):
    x, v = inputs(b)
    shape = b.op("onnx.Shape", [x]).result
    i = np.array
    assert contents(shape) == ("n", 3, 4)
    assert known(b, "Shape", x, start=-2) == (3, 4)
    assert known(b, "Gather", shape, i([2, -3])) == (4, "n")
    assert known(b, "Slice", shape, i([-1]), i([-100]), i([0]), i([-1])) == (4, 3, "n")
    assert known(b, "Slice", shape, i([1]), i([2**62])) == (3, 4)
    assert known(b, "Concat", shape, v, i([-1]), axis=0) == ("n", 3, 4, "?", "?", -1)
    assert known(b, "Mul", shape, i(1)) == ("n", 3, 4)
    assert known(b, "Mul", shape, i([1, 2, 3])) == ("n", 6, 12)
    assert known(b, "Div", shape, i([2])) == ("?", 1, 2)
    assert known(b, "Equal", shape, i([1, 3, 3])) == ("?", True, False)
    assert known(b, "ReduceProd", b.op("onnx.Shape", [x], {"start": 1}).result) == (12,)
    assert known(b, "Where", i([True, False, True]), shape, i([7, 8, 9])) == ("n", 8, 4)
    assert known(b, "Size", x) == ("?",)
    assert known(b, "ConstantOfShape", i([3]), value=i([5])) == (5, 5, 5)
    assert contents(v) is None


OPERATORS = ["Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Less", "GreaterOrEqual", "Equal"]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32])
def test_arithmetic_is_onnxruntimes(op, dtype):
    from compiler.execution import evaluate

    if op == "Mod" and dtype is np.float32:
        return
    a = np.array([7, -7, 7, -7, 0, 2**31 - 1 if dtype is not np.float32 else 0.1], dtype)
    c = np.array([2, 2, -2, -2, 3, 3], dtype)
    function = ir.Function("main", {}, ["y"])
    b = ir.Builder(function.block)
    result = b.op(f"onnx.{op}", [b.constant(a, "onnx"), b.constant(c, "onnx")]).result
    function.set_outputs([result])
    assert contents(result) == tuple(evaluate.run(function, {})["y"].tolist())


@pytest.mark.parametrize("to", ["i32", "i64", "u8", "f16", "f32", "bool"])
@pytest.mark.parametrize("values", [np.array([1.9, -1.9, 0.0, 250.5], np.float32), np.array([0, 300, 7, 2**40])])
def test_casts_are_onnxruntimes(to, values):
    from compiler.execution import evaluate

    if to == "u8" and values.dtype == np.float32:
        values = np.abs(values)  # negative floats to unsigned integers are not defined
    function = ir.Function("main", {}, ["y"])
    b = ir.Builder(function.block)
    result = b.op("onnx.Cast", [b.constant(values, "onnx")], {"to": ir.dtype(to)}).result
    function.set_outputs([result])
    assert contents(result) == tuple(evaluate.run(function, {})["y"].tolist())
