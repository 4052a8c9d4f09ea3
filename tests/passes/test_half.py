"""Half precision: what becomes f16, what stays f32 and why, and that emulation rounds where hardware would."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import compiler.dialects.mil  # noqa: F401 (registers mil.*)
from compiler import ir
from passes import emulate, half

CHAIN = """
module @m {
  func @main(%x: tensor<1x4xf32>) -> (%y: tensor<1x4xf32>) {
    %w = mil.const() {val = dense<WEIGHT>} : tensor<f32>
    %a = mil.add(%x, %w) : tensor<1x4xf32>
    %b = mil.relu(%a) : tensor<1x4xf32>
    %c = mil.exp(%b) : tensor<1x4xf32>
    return %c
  }
}
"""


def chain(weight: float = 1.0) -> ir.Module:
    return ir.parse_module(CHAIN.replace("WEIGHT", repr(weight)))


def op_named(module: ir.Module, name: str) -> ir.Op:
    return next(op for op in module.walk() if op.name == name)


def dtypes(module: ir.Module) -> list[str]:
    """``operator: element type`` of each first result, constants left out."""
    return [
        f"{op.name.removeprefix('mil.')}: {op.results[0].type.dtype}"  # type: ignore[attr-defined]
        for op in module.walk()
        if op.results and op.defn.constant is None
    ]


def test_interface_stays_f32_and_inside_is_f16() -> None:
    module = chain()
    assert half.run(module, "ios17") == {}
    ir.verify(module)
    assert dtypes(module) == ["cast: f16", "add: f16", "relu: f16", "exp: f16", "cast: f32"]
    assert module.main.inputs[0].type.dtype is ir.F32
    assert module.main.outputs[0].type.dtype is ir.F32
    assert op_named(module, "mil.const").attributes["val"].dtype == np.float16


def test_a_kept_operator_has_casts_around_it() -> None:
    module = chain()
    relu = op_named(module, "mil.relu")
    assert half.run(module, "ios17", {relu: "asked for"}) == {relu: "asked for"}
    ir.verify(module)
    assert dtypes(module) == ["cast: f16", "add: f16", "cast: f32", "relu: f32", "cast: f16", "exp: f16", "cast: f32"]


def test_neighbours_that_are_kept_share_f32_without_casts() -> None:
    module = chain()
    keep = {op_named(module, "mil.add"): "", op_named(module, "mil.relu"): ""}
    half.run(module, "ios17", keep)
    ir.verify(module)
    assert dtypes(module) == ["add: f32", "relu: f32", "cast: f16", "exp: f16", "cast: f32"]


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (1e-10, "constant 1e-10 vanishes in half precision"),
        (-1e9, "constant -1e+09 overflows in half precision"),
        (1e-7, "constant 1e-07 loses digits in half precision"),
    ],
)
def test_constants_that_do_not_survive_keep_their_operator(weight: float, reason: str) -> None:
    module = chain(weight)
    add = op_named(module, "mil.add")
    assert half.run(module, "ios17") == {add: reason}
    ir.verify(module)
    assert op_named(module, "mil.const").attributes["val"].dtype == np.float32


@pytest.mark.parametrize("weight", [0.0, 1e-4, 65504.0, float("inf"), float("-inf")])
def test_constants_that_survive(weight: float) -> None:
    assert half.constant_loss(np.full(3, weight, np.float32)) is None


def test_a_few_tiny_weights_among_large_ones_survive() -> None:
    weights = np.r_[np.linspace(0.1, 1.0, 50), 1e-12].astype(np.float32)
    assert half.constant_loss(weights) is None
    assert half.constant_loss(weights * 1e-9) is not None


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_columns_of_a_matrix_are_rounded_as_a_copy_of_them_is(scale: float) -> None:
    matrix = (scale * np.random.default_rng(1).standard_normal((1500, 1600))).astype(np.float32)
    columns = matrix[:, 100:1400]
    assert not columns.flags.c_contiguous
    rounded = np.empty(columns.shape, np.float16)
    loss = half.constant_loss(columns, into=rounded)
    assert loss == half.constant_loss(columns.copy())
    if loss is None:
        np.testing.assert_array_equal(rounded, columns.astype(np.float16))


def test_an_epsilon_that_vanishes_keeps_its_operator_but_a_default_does_not() -> None:
    type_ = ir.TensorType(ir.F32, (1, 4))

    def rsqrt(epsilon: float | None) -> tuple[ir.Module, ir.Op]:
        module = ir.Module()
        main = module.add(ir.Function("main", {"x": type_}, ["y"]))
        attributes = {} if epsilon is None else {"epsilon": epsilon}
        op = ir.Builder(main.block).op("mil.rsqrt", [main.inputs[0]], attributes, [type_])
        main.set_outputs([op.result])
        return module, op

    module, op = rsqrt(1e-10)
    assert half.run(module, "ios17") == {op: "epsilon 1e-10 vanishes in half precision"}
    for epsilon in (1e-3, None):
        module, op = rsqrt(epsilon)
        assert half.run(module, "ios17") == {}


@pytest.mark.parametrize(
    ("guarded", "operators"),
    [
        ("%b = mil.log(%a)", {"mil.maximum", "mil.log"}),
        ("%b = mil.rsqrt(%a)", {"mil.maximum", "mil.rsqrt"}),
        ("%b = mil.real_div(%x, %a)", {"mil.maximum", "mil.real_div"}),
        ("%b = mil.real_div(%a, %x)", {"mil.maximum"}),
        ("%b = mil.relu(%a)", {"mil.maximum"}),
    ],
)
def test_what_keeps_0_from_an_operator_reaches_it(guarded: str, operators: set[str]) -> None:
    """Of silence the logarithm would be -inf, and the sum of two such NaN."""
    text = f"""
module @m {{
  func @main(%x: tensor<1x4xf32>) -> (%y: tensor<1x4xf32>) {{
    %w = mil.const() {{val = dense<GUARD>}} : tensor<f32>
    %a = mil.maximum(%x, %w) : tensor<1x4xf32>
    {guarded} : tensor<1x4xf32>
    return %b
  }}
}}
"""
    module = ir.parse_module(text.replace("GUARD", "1e-12"))
    assert {op.name for op in half.run(module, "ios17")} == operators
    ir.verify(module)
    assert not half.run(ir.parse_module(text.replace("GUARD", "1e-3")), "ios17")


def test_the_epsilon_of_a_norm_becomes_the_smallest_half() -> None:
    module = ir.parse_module("""
module @m {
  func @main(%x: tensor<2x4xf32>) -> (%y: tensor<2x4xf32>) {
    %a = mil.layer_norm(%x) {axes = [1], epsilon = 1e-12} : tensor<2x4xf32>
    return %a
  }
}""")
    assert half.run(module, "ios17") == {}
    assert op_named(module, "mil.layer_norm").attributes["epsilon"] == 2.0**-24


def test_integers_pass_untouched() -> None:
    module = ir.parse_module("""
module @m {
  func @main(%x: tensor<4xi32>, %t: tensor<8x2xf32>) -> (%y: tensor<4x2xf32>, %n: tensor<4xi32>) {
    %one = mil.const() {val = dense<1>} : tensor<i32>
    %n = mil.add(%x, %one) : tensor<4xi32>
    %y = mil.gather(%t, %n) {axis = 0} : tensor<4x2xf32>
    return %y, %n
  }
}
""")
    half.run(module, "ios17")
    ir.verify(module)
    assert dtypes(module) == ["cast: f16", "add: i32", "gather: f16", "cast: f32"]
    assert [v.type.dtype.name for v in module.main.outputs] == ["f32", "i32"]  # type: ignore[attr-defined]


def test_a_release_that_knows_no_f16_keeps_the_operator() -> None:
    text = """
module @m {
  func @main(%x: tensor<3x1x4xf32>, %h: tensor<1x2xf32>, %c: tensor<1x2xf32>) -> (%y: tensor<1x1x2xf32>) {
    %wi = mil.const() {val = dense<0.5>} : tensor<8x4xf32>
    %wh = mil.const() {val = dense<0.5>} : tensor<8x2xf32>
    %y, %hh, %cc = mil.lstm(%x, %h, %c, %wi, %wh) : (tensor<1x1x2xf32>, tensor<1x2xf32>, tensor<1x2xf32>)
    return %y
  }
}
"""
    module = ir.parse_module(text)
    assert half.run(module, "ios16") == {op_named(module, "mil.lstm"): "ios16 computes it in f32 only"}
    module = ir.parse_module(text)
    assert half.run(module, "ios17") == {}


def test_branches_of_a_conditional_agree_with_its_result() -> None:
    module = _conditional()
    half.run(module, "ios17")
    ir.verify(module)
    cond = op_named(module, "mil.cond")
    assert cond.result.type.dtype is ir.F16  # type: ignore[attr-defined]
    for region in cond.regions:
        assert region.terminator is not None
        (value,) = region.terminator.operands
        assert value is not None
        assert value.type is cond.result.type


def test_what_is_inside_a_kept_operator_is_kept() -> None:
    module = _conditional()
    cond = op_named(module, "mil.cond")
    kept = half.run(module, "ios17", {cond: "asked for"})
    ir.verify(module)
    relu = cond.regions[0].ops
    assert [op.result.type.dtype for op in relu if op.name == "mil.relu"] == [ir.F32]  # type: ignore[attr-defined]
    assert set(kept.values()) == {"asked for"}


def _conditional() -> ir.Module:
    type_ = ir.TensorType(ir.F32, (4,))
    module = ir.Module()
    main = module.add(ir.Function("main", {"p": ir.TensorType(ir.BOOL, ()), "x": type_}, ["y"]))
    p, x = main.inputs
    true, false = ir.Block(), ir.Block()
    a = ir.Builder(true).op("mil.relu", [x], result_types=[type_]).result
    ir.Builder(true).ret([a])
    ir.Builder(false).ret([x])
    op = ir.Builder(main.block).op("mil.cond", [p], result_types=[type_], regions=[true, false])
    main.set_outputs([op.result])
    return module


def test_emulation_rounds_behind_every_f16_operator() -> None:
    module = chain()
    half.run(module, "ios17")
    emulate.run(module)
    ir.verify(module)
    assert dtypes(module) == [
        *("cast: f16", "cast: f32"),  # the input's own rounding
        *("add: f32", "cast: f16", "cast: f32"),
        *("relu: f32", "cast: f16", "cast: f32"),
        *("exp: f32", "cast: f16", "cast: f32"),
    ]


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_onnxruntime_keeps_pairs_of_casts_and_rounds_to_nearest_even(level: str) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    x = (rng.random(100_000) * 10.0 ** rng.integers(-9, 6, 100_000)).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(y, expected)
