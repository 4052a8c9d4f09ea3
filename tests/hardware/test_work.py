"""Operations and bytes, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from compiler import hardware, ir
from compiler.hardware.cost import is_free_after
from tests.hardware.test_capability import op

HALF = ir.dtype("f16")


X = "%x: tensor<1x8x10x10xf16>"

CASES = [
    # 16 outputs x 8 inputs x 3 x 3, at 10 x 10 places
    (
        f"{X}, %w: tensor<16x8x3x3xf16>|",
        '%r = mil.conv(%x, %w) {pad_type = "same"} : tensor<1x16x10x10xf16>',
        (115_200, 2 * (800 + 1152 + 1600)),
    ),
    (
        f"{X}, %w: tensor<8x1x3x3xf16>|",
        '%r = mil.conv(%x, %w) {pad_type = "same", groups = 8} : tensor<1x8x10x10xf16>',
        (7_200, 2 * (800 + 72 + 800)),
    ),
    # each of 5 x 5 x 4 inputs is spread over 6 x 2 x 2 products
    (
        "%x: tensor<1x4x5x5xf16>, %w: tensor<4x6x2x2xf16>|",
        "%r = mil.conv_transpose(%x, %w) {strides = [2, 2]} : tensor<1x6x10x10xf16>",
        (2_400, 2 * (100 + 96 + 600)),
    ),
    (
        "%x: tensor<2x3x4xf16>, %y: tensor<2x4x5xf16>|",
        "%r = mil.matmul(%x, %y) : tensor<2x3x5xf16>",
        (120, 2 * (24 + 40 + 30)),
    ),
    (
        "%x: tensor<2x4x3xf16>, %y: tensor<2x5x4xf16>|",
        "%r = mil.matmul(%x, %y) {transpose_x = true, transpose_y = true} : tensor<2x3x5xf16>",
        (120, 2 * (24 + 40 + 30)),
    ),
    (
        "%x: tensor<1x4x3x5xf16>, %y: tensor<1x6x3x4xf16>|",
        '%r = mil.einsum(%x, %y) {equation = "bchq,bkhc->bkhq"} : tensor<1x6x3x5xf16>',
        (360, 2 * (60 + 72 + 90)),
    ),
    ("%x: tensor<2x8xf16>|", "%r = mil.relu(%x) : tensor<2x8xf16>", (0, 64)),
    ("%x: tensor<2x8xf16>|", "%r = mil.add(%x, %x) : tensor<2x8xf16>", (0, 96)),
]


@pytest.mark.parametrize(("inputs", "body", "expected"), CASES)
def test_counts(inputs: str, body: str, expected: tuple[int, int]) -> None:
    work = hardware.work(op(inputs + body))
    assert (work.macs, work.moved) == expected


def test_weights_are_counted_as_stored() -> None:
    f = ir.Function("main", {"x": ir.TensorType(HALF, (1, 64))}, ["o"])
    b = ir.Builder(f.block)
    plain = b.constant(np.zeros((32, 64), np.float16), "mil")
    linear = b.op("mil.linear", [f.inputs[0], plain], {}, [ir.TensorType(HALF, (1, 32))])
    assert hardware.work(linear).weights == 32 * 64 * 2
    data = b.constant(np.zeros((32, 64), np.int8), "mil")
    scale = b.constant(np.ones((32, 1), np.float16), "mil")
    packed = b.op("mil.constexpr_blockwise_shift_scale", [data, scale], {}, [ir.TensorType(HALF, (32, 64))]).result
    smaller = b.op("mil.linear", [f.inputs[0], packed], {}, [ir.TensorType(HALF, (1, 32))])
    assert hardware.work(smaller).weights == 32 * 64 + 32 * 2
    assert hardware.work(smaller).macs == hardware.work(linear).macs == 32 * 64


def test_arithmetic_with_a_constant_moves_one_tensor() -> None:
    scaled = op("%x: tensor<2x8xf16>, %s: tensor<f16>| %r = mil.mul(%x, %s) : tensor<2x8xf16>")
    both = op("%x: tensor<2x8xf16>, %y: tensor<2x8xf16>| %r = mil.mul(%x, %y) : tensor<2x8xf16>")
    assert hardware.work(scaled).kind == "copy"
    assert hardware.work(both).kind == "binary"


def test_more_work_never_costs_less_and_chips_scale() -> None:
    small = op("%x: tensor<64x64xf16>, %y: tensor<64x64xf16>| %r = mil.matmul(%x, %y) : tensor<64x64xf16>")
    large = op("%x: tensor<64x256xf16>, %y: tensor<256x64xf16>| %r = mil.matmul(%x, %y) : tensor<64x64xf16>")
    m1, m3 = hardware.chip("M1"), hardware.chip("M3")
    for unit in hardware.UNITS:
        assert hardware.cost(small, unit, m1).ms < hardware.cost(large, unit, m1).ms
        assert hardware.cost(large, unit, m3).ms < hardware.cost(large, unit, m1).ms
        # the same work takes the same energy on both
        assert hardware.cost(large, unit, m3).mj == pytest.approx(hardware.cost(large, unit, m1).mj)


def test_memory_on_the_ane_is_padded_to_64_bytes() -> None:
    column = op("%x: tensor<1x8x4x1xf16>| %r = mil.relu(%x) : tensor<1x8x4x1xf16>")
    chip = hardware.chip("M1")
    assert hardware.cost(column, "cpu", chip).memory == 2 * 32 * 2
    assert hardware.cost(column, "ane", chip).memory == 2 * 32 * 64


LOOP = """
module @m {
  func @main(%x: tensor<4x4xf16>) -> (%o: tensor<4x4xf16>) {
    %zero = mil.const() {val = dense<0>} : tensor<i32>
    %i, %y = mil.while_loop(%zero, %x) cond { ^(%a: tensor<i32>, %b: tensor<4x4xf16>)
      %n = mil.const() {val = dense<7>} : tensor<i32>
      %c = mil.less(%a, %n) : tensor<bool>
      return %c
    } body { ^(%d: tensor<i32>, %e: tensor<4x4xf16>)
      %one = mil.const() {val = dense<1>} : tensor<i32>
      %f = mil.add(%d, %one) : tensor<i32>
      %g = mil.matmul(%e, %e) : tensor<4x4xf16>
      return %f, %g
    } : (tensor<i32>, tensor<4x4xf16>)
    return %y
  }
}
"""


def test_a_loop_is_counted_as_often_as_it_runs() -> None:
    loop = next(o for o in ir.parse_module(LOOP).main.block.ops if o.regions)
    assert hardware.work(loop).macs == 7 * 4**3
    one = next(o for o in loop.walk() if o.name == "mil.matmul")
    chip = hardware.chip("M1")
    assert hardware.cost(loop, "cpu", chip).ms >= 7 * hardware.cost(one, "cpu", chip).ms


def test_eight_bit_products_take_half_the_time_and_steps_to_eight_bits_none() -> None:
    text = """
    module @m {
      func @main(%q: tensor<1x64x56x56xi8>) -> (%o: tensor<1x64x56x56xi8>) {
        %s = mil.const() {val = dense<0.5>} : tensor<f16>
        %x = mil.dequantize(%q, %s, _) : tensor<1x64x56x56xf16>
        %d = mil.const() {val = dense<1>} : tensor<64x64x3x3xi8>
        %w = mil.constexpr_affine_dequantize(%d, %z, %s) {axis = dense<0>: tensor<i32>} : tensor<64x64x3x3xf16>
        %y = mil.conv(%x, %w) {pad_type = "same"} : tensor<1x64x56x56xf16>
        %r = mil.quantize(%y, %s, _) {output_dtype = "int8"} : tensor<1x64x56x56xi8>
        return %r
      }
    }
    """.replace("%z, ", "%d0, ").replace(
        "        %w", "        %d0 = mil.const() {val = dense<0>} : tensor<i8>\n        %w"
    )
    ops = {o.name: o for o in ir.parse_module(text).main.walk()}
    conv = hardware.work(ops["mil.conv"])
    assert conv.eight_bit
    assert conv.moved == 2 * 64 * 56 * 56
    inputs = "%x: tensor<1x64x56x56xf16>, %w: tensor<64x64x3x3xf16>|"
    plain = hardware.work(op(inputs + '%r = mil.conv(%x, %w) {pad_type = "same"} : tensor<1x64x56x56xf16>'))
    chip = hardware.chip("A17")
    assert hardware.milliseconds(conv, "ane", chip) == pytest.approx(hardware.milliseconds(plain, "ane", chip) / 2)
    assert is_free_after(ops["mil.quantize"], "cpu")
    assert is_free_after(ops["mil.dequantize"], "cpu")


FREE = [
    ("%y = mil.conv(%x, %w) : T\n%r = mil.relu(%y) : T", {"ane", "cpu"}),
    ("%y = mil.add(%x, %x) : T\n%r = mil.relu(%y) : T", {"ane"}),
    ("%y = mil.conv(%x, %w) : T\n%r = mil.mul(%y, %c) : T", {"ane"}),
    ("%y = mil.conv(%x, %w) : T\n%r = mil.mul(%y, %y) : T", set()),
    ("%y = mil.softmax(%x) : T\n%r = mil.relu(%y) : T", set()),
    ("%y = mil.add(%x, %x) : T\n%r = mil.mul(%y, %c) : T", set()),
]


@pytest.mark.parametrize(("body", "units"), FREE)
def test_what_a_layer_of_the_neural_engine_ends_in_is_free(body: str, units: set[str]) -> None:
    """An activation behind a product or behind arithmetic on two tensors; a scale for each channel behind a product."""
    weight = "%w = mil.const() {val = dense<0.5>} : tensor<8x8x1x1xf16>\n"
    scale = "%c = mil.const() {val = dense<0.5>} : tensor<1x8x1x1xf16>\n"
    last = op(f"%x: tensor<1x8x10x10xf16>|{weight}{scale}{body}".replace(": T", ": tensor<1x8x10x10xf16>"))
    assert {unit for unit in ("ane", "cpu") if is_free_after(last, unit)} == units
