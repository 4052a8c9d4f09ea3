"""The textual form: what is printed reads back, and reads well."""

from __future__ import annotations

import io
import math
import textwrap
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler import ir
from tests.ir import toy

SETTINGS = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@given(toy.modules())
@SETTINGS
def test_random_modules_round_trip(module: ir.Module) -> None:
    ir.verify(module)
    text = ir.print_module(module, inline=None)
    back = ir.parse_module(text)
    ir.verify(back)
    assert toy.isomorphic(module, back)
    assert ir.print_module(back, inline=None) == text


@given(toy.modules())
@SETTINGS
def test_random_modules_round_trip_through_blobs_and_beside_locations(module: ir.Module) -> None:
    blobs: dict[str, np.ndarray] = {}
    text = ir.print_module(module, blobs=blobs, inline=1, locations=True)
    back = ir.parse_module(text, blobs=blobs)
    assert toy.isomorphic(module, back)
    assert ir.print_module(back, inline=1) == ir.print_module(module, inline=1)


@given(toy.types)
@SETTINGS
def test_types_round_trip(type_: ir.Type) -> None:
    assert ir.parse_type(str(type_)) is type_


@given(st.text(max_size=8), toy.floats)
@SETTINGS
def test_attributes_round_trip(text: str, number: float) -> None:
    module = ir.Module("m", {"a": (text, number), text: True})
    back = ir.parse_module(ir.print_module(module))
    assert all(ir.same_attribute(back.attributes[k], v) for k, v in module.attributes.items())


def parse(body: str, inputs: str = "%x: tensor<3xf32>", outputs: str = "", **options) -> ir.Function:
    text = f"module @m {{\nfunc @main({inputs}) -> ({outputs}) {{\n{textwrap.dedent(body)}\n}}\n}}"
    return ir.parse_module(text, **options).main


def body(function: ir.Function, **options) -> list[str]:
    return [line.strip() for line in ir.print_function(function, **options).splitlines()[1:-1]]


def test_hints_become_unique_names_and_numbers() -> None:
    f = ir.Function("main", {"x": ir.TensorType(ir.F32, (3,))}, ["x"])
    b = ir.Builder(f.block)
    v = f.inputs[0]
    for hint in ["x", "x", "", "x_1", "12", "a/b:0", "_", ""]:
        v = b.op("toy.relu", [v]).result
        v.name = hint
    f.set_outputs([v])
    defined = [line.split(" = ")[0] for line in body(f)[:-1]]
    assert defined == ["%x_1", "%x_2", "%0", "%x_1_1", '%"12"', '%"a/b:0"', '%"_"', "%1"]
    assert body(f)[-1] == "return %1"


def test_defaults_are_left_out_and_filled_in() -> None:
    f = parse("%y = toy.scaled(%x) {alpha = 0.5, axes = [1], to = f16} : tensor<3xf32>\nreturn")
    op = f.block.first
    assert op.attributes == {"alpha": 0.5, "axes": (1,), "mode": "fast", "to": ir.F16}
    assert body(f)[0] == "%y = toy.scaled(%x) {axes = [1], to = f16} : tensor<3xf32>"


def test_a_float_attribute_may_be_written_as_an_integer() -> None:
    assert parse("%y = toy.scaled(%x) {alpha = 2} : tensor<3xf32>\nreturn").block.first.attributes["alpha"] == 2.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (0.1, "0.1"),
        (float(np.float32(0.1)), "0.1f"),
        (float(np.float32(1e-5)), "1e-05f"),
        (-0.0, "-0.0"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (1e300, "1e+300"),
    ],
)
def test_floats_are_short_and_exact(value: float, text: str) -> None:
    assert f"{{a = {text}}}" in ir.print_module(ir.Module("m", {"a": value}))
    assert ir.same_attribute(ir.parse_attributes(f"{{a = {text}}}")["a"], value)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.float32([1, 2.5]), "dense<[1.0, 2.5]>"),
        (np.full((4, 5), 0.1, np.float32), "dense<0.1>"),
        (np.arange(4, dtype=np.int8).reshape(2, 2), "dense<[[0, 1], [2, 3]]>"),
        (np.array(7), "dense<7>"),
        (np.zeros((2, 0), np.int32), "dense<[]>"),
        (np.array([True, False]), "dense<[true, false]>"),
        (np.array(["a", 'b"'], object), 'dense<["a", "b\\""]>'),
        (np.array([0.1, 3], ir.BF16.numpy), "dense<[0.1001, 3.0]>"),
        (np.array([0x7FC00001, 1], np.uint32).view(np.float32), "dense<0x0100c07f01000000>"),
        (np.array([1 + 2j], np.complex64), "dense<0x0000803f00000040>"),
        (np.float32([0.0, -0.0]), "dense<[0.0, -0.0]>"),
        (np.array("\0", object), 'dense<"\\u0000">'),
        (np.array(["a\0", "\0"], object), 'dense<["a\\u0000", "\\u0000"]>'),
        (np.array(["sha256:0123456789abcdef"], object), 'dense<["sha256:0123456789abcdef"]>'),
    ],
)
def test_constants(array: np.ndarray, text: str) -> None:
    f = ir.Function("main")
    ir.Builder(f.block).constant(array, "toy")
    f.set_outputs([])
    type_ = f.block.first.result.type
    assert body(f)[0] == f"_ = toy.const() {{value = {text}}} : {type_}"
    back = parse(body(f)[0] + "\nreturn").block.first
    assert ir.same_array(back.attributes["value"], array)


def test_large_constants_go_to_a_table_that_npz_can_hold() -> None:
    weights = np.arange(100, dtype=np.float32).astype(ir.BF16.numpy)
    module = ir.Module("m")
    f = module.add(ir.Function("main"))
    f.set_outputs([ir.Builder(f.block).constant(weights, "toy")], ["w"])
    blobs: dict[str, np.ndarray] = {}
    text = ir.print_module(module, blobs=blobs)
    assert [v is weights for v in blobs.values()] == [True]
    assert text == ir.print_module(module)
    file = io.BytesIO()
    np.savez(file, **blobs)
    file.seek(0)
    back = ir.parse_module(text, blobs=np.load(file))
    assert ir.same_array(back.main.block.first.attributes["value"], weights)
    with pytest.raises(ir.ParseError, match=f"{next(iter(blobs))}' was left out of this text"):
        ir.parse_module(text)


def test_blobs_are_the_given_arrays() -> None:
    weights = np.arange(100)
    blobs = {"sha256:0123456789abcdef": weights}
    f = parse('%w = toy.const() {value = dense<"sha256:0123456789abcdef">} : tensor<100xi64>\nreturn', blobs=blobs)
    assert f.block.first.attributes["value"] is weights
    with pytest.raises(ir.ParseError, match="which is another type"):
        parse('%w = toy.const() {value = dense<"sha256:0123456789abcdef">} : tensor<100xi32>\nreturn', blobs=blobs)


def test_locations_stand_behind_operators_as_comments() -> None:
    f = parse("%y = toy.relu(%x) : tensor<3xf32>\nreturn")
    f.block.first.loc = ir.Location(("enc/relu", "b"), ("fuse", "lower"))
    assert body(f, locations=True)[0].endswith(": tensor<3xf32>  // enc/relu, b < lower < fuse")


def test_regions_read_well() -> None:
    text = """\
    module @m {
      func @main(%x: tensor<3xf32>) -> (%y: tensor<3xf32>) {
        %0 = toy.loop(%x) body { ^(%i: tensor<i64>, %carried: tensor<3xf32>)
          %1 = toy.add(%carried, %x) : tensor<3xf32>
          %2 = toy.if(%i) then_branch {
            return %1
          } else_branch {
            return %x
          } : tensor<3xf32>
          return %2
        } : tensor<3xf32>
        return %0
      }
    }
    """
    module = ir.parse_module(textwrap.dedent(text))
    ir.verify(module)
    assert ir.print_module(module) == textwrap.dedent(text)


def test_sibling_regions_may_use_a_name_twice() -> None:
    f = parse(
        """
        toy.if(%x) then_branch {
          %a = toy.relu(%x) : tensor<3xf32>
          return
        } else_branch {
          %a = toy.relu(%x) : tensor<3xf32>
          return
        }
        return
        """
    )
    assert len(list(f.walk())) == 6


ERRORS = {
    "unknown operator": ("%y = toy.rleu(%x) : tensor<3xf32>", 3, 6, "did you mean 'relu'"),
    "unknown dialect": ("%y = tyo.relu(%x) : tensor<3xf32>", 3, 6, "no dialect is called 'tyo'; did you mean 'toy'"),
    "unknown attribute": ("%y = toy.scaled(%x) {alhpa = 1} : tensor<3xf32>", 3, 22, "did you mean 'alpha'"),
    "attribute twice": ("%y = toy.scaled(%x) {alpha = 1, alpha = 2} : tensor<3xf32>", 3, 33, "given twice"),
    "undefined": ("%y = toy.relu(%xx) : tensor<3xf32>", 3, 15, "%xx is not defined; did you mean '%x'"),
    "defined later": ("%y = toy.relu(%z) : tensor<3xf32>\n%z = toy.relu(%x) : tensor<3xf32>", 3, 15, "but in line 4"),
    "defined twice": ("%x = toy.relu(%x) : tensor<3xf32>", 3, 1, "defined twice"),
    "result types": ("%y = toy.relu(%x)", 3, 6, "1 results, but 0 result types"),
    "element type": ("%y = toy.relu(%x) : tensor<3xf31>", 3, 30, "no element type is called 'f31'"),
    "dim name": ("%y = toy.relu(%x) : tensor<2xNx3xf32>", 3, 30, "'N x …'"),
    "word": ("%y = toy.scaled(%x) {mode = fast} : tensor<3xf32>", 3, 29, "strings stand in quotes"),
    "shape": ("%y = toy.const() {value = dense<[1, 2]>} : tensor<3xf32>", 3, 27, "shape 2 stand in"),
    "ragged": ("%y = toy.const() {value = dense<[[1], [1, 2]]>} : tensor<3xf32>", 3, 27, "of one length"),
    "too big": ("%y = toy.const() {value = dense<128>} : tensor<3xi8>", 3, 27, "128 does not fit in i8"),
    "kind": ("%y = toy.const() {value = dense<1.5>} : tensor<3xi8>", 3, 27, "1.5 is not of type i8"),
    "bytes": ("%y = toy.const() {value = dense<0x00>} : tensor<3xi32>", 3, 27, "1 bytes do not fill"),
    "open shape": ("%y = toy.const() {value = dense<1>} : tensor<?xi32>", 3, 27, "known shape"),
    "region": ("toy.loop(%x) boddy { return }", 3, 14, "region 1 is called 'body'"),
    "extra region": ("toy.loop(%x) body { return } body { return }", 3, 30, "it has 1 regions"),
    "grammar": ("%y toy.relu(%x) : tensor<3xf32>", 3, 4, "expected ',' or '=', found 'toy.relu'"),
    "character": ("%y = toy.relu($x) : tensor<3xf32>", 3, 15, "found '$'"),
    "bad string": ('%y = toy.scaled(%x) {mode = "\\q"} : tensor<3xf32>', 3, 30, "Invalid \\escape in a string"),
}


@pytest.mark.parametrize(("text", "line", "column", "sentence"), ERRORS.values(), ids=ERRORS)
def test_errors_point_at_the_place(text: str, line: int, column: int, sentence: str) -> None:
    with pytest.raises(ir.ParseError) as caught:
        parse(text, file="m.ir")
    e = caught.value
    assert sentence in e.sentence
    assert (e.line, e.column) == (line, column)
    head, shown, caret = str(e).splitlines()
    assert head == f"m.ir:{line}:{column}: {e.sentence}"
    assert shown.index(" | ") + 3 + column - 1 == caret.index("^")


def test_a_text_that_ends_too_soon() -> None:
    with pytest.raises(ir.ParseError, match=r"^<text>:1:26: expected .*found the end of the text"):
        ir.parse_module("module @m {  // and then?\n\n")


def test_outputs_must_be_what_is_returned() -> None:
    with pytest.raises(ir.ParseError, match="declared as tensor<4xf32>, but tensor<3xf32> is returned"):
        parse("return %x", outputs="%y: tensor<4xf32>")
    with pytest.raises(ir.ParseError, match="has 1 outputs, but returns 0 values"):
        parse("return", outputs="%y: tensor<4xf32>")


def test_a_module_in_the_making_prints() -> None:
    f = ir.Function("main", {"x": ir.TensorType(ir.F32, (3,))}, ["y"])
    op = ir.Op("toy.relu", [f.inputs[0]], [f.inputs[0].type])
    assert ir.print_op(op) == "_ = toy.relu(%x) : tensor<3xf32>"
    assert ir.print_function(f) == "func @main(%x: tensor<3xf32>) -> (%y) {\n}\n"


def test_what_is_no_attribute_does_not_print() -> None:
    op = ir.Op("toy.every", (), [ir.TensorType(ir.F32, ())], {"any": object()}, loc=ir.Location(("n1",)))
    with pytest.raises(TypeError, match=r"'any' of toy.every at n1 is of type object"):
        ir.print_op(op)


def test_ten_thousand_operators_print_fast() -> None:
    module = ir.Module("m")
    f = module.add(ir.Function("main", {"x": ir.TensorType(ir.F32, (1, 4, 8))}, ["y"]))
    b = ir.Builder(f.block)
    x = f.inputs[0]
    for i in range(5000):
        w = b.constant(np.float32(i), "toy")
        w = b.op("toy.scaled", [x], {"alpha": 0.25, "axes": (i,)}).result
        x.name = f"layer.{i}/x"
        x = w
    f.set_outputs([x])
    start = time.process_time()
    ir.print_module(module)
    assert time.process_time() - start < 0.6  # 0.1 s on an idle machine; the rest is for busy ones
