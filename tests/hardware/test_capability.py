"""What the tables say of single operators."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.mil  # noqa: F401  (registers the dialect)
from compiler import hardware, ir


def op(text: str) -> ir.Op:
    """The last operator of a function whose body is ``text``; names a to c are inputs of the types given before it."""
    header, _, body = text.partition("|")
    module = ir.parse_module(
        f"module @m {{ func @main({header}) -> (%o: {body.rpartition(': ')[2]}) {{\n{body}\nreturn %r\n}} }}"
    )
    return [o for o in module.main.walk() if o.name != "ir.return"][-1]


def why(text: str, chip: str = "A17", ios: int = 17) -> str | None:
    found = hardware.refusal(op(text), hardware.chip(chip), ios)
    return None if found is None else found.rule


CONV = (
    "%x: tensor<1x8x16x16xf16>, %w: tensor<8x8x{k}xf16>|"
    '%r = mil.conv(%x, %w) {{pad_type = "same"}} : tensor<1x8x16x16xf16>'
)

CONV_1D = (
    '%x: tensor<1x8x64xf16>, %w: tensor<8x8x16xf16>|%r = mil.conv(%x, %w) {pad_type = "same"} : tensor<1x8x64xf16>'
)

CASES = [
    ("%x: tensor<1x8xf16>| %r = mil.relu(%x) : tensor<1x8xf16>", "M1", None),
    ("%x: tensor<1x8xf32>| %r = mil.relu(%x) : tensor<1x8xf32>", "M1", "full_precision"),
    ('%x: tensor<1x8xf32>| %r = mil.cast(%x) {dtype = "fp16"} : tensor<1x8xf16>', "M1", "full_precision"),
    ("%x: tensor<1x8xi32>| %r = mil.abs(%x) : tensor<1x8xi32>", "M1", "wide_integers"),
    ("%x: tensor<1x1x1x1x1x8xf16>| %r = mil.relu(%x) : tensor<1x1x1x1x1x8xf16>", "M1", "rank"),
    ("%x: tensor<n x 8xf16>| %r = mil.relu(%x) : tensor<n x 8xf16>", "M1", "static_shape"),
    ("%x: tensor<0x8xf16>| %r = mil.relu(%x) : tensor<0x8xf16>", "M1", "empty"),
    ("%x: tensor<1x16385xf16>| %r = mil.relu(%x) : tensor<1x16385xf16>", "M1", "extent"),
    ("%x: tensor<1x16385xf16>| %r = mil.relu(%x) : tensor<1x16385xf16>", "M4", None),
    ("%x: tensor<1x16385x1x1xf16>| %r = mil.relu(%x) : tensor<1x16385x1x1xf16>", "M1", None),
    ("%x: tensor<4x8xf16>| %r = mil.sin(%x) : tensor<4x8xf16>", "M2", "operator"),
    ("%x: tensor<4x8xf16>| %r = mil.sin(%x) : tensor<4x8xf16>", "M3", None),
    ("%x: tensor<4x8xf16>| %r = mil.cumsum(%x) : tensor<4x8xf16>", "M5", "operator"),
    ("%x: tensor<4x8xf16>| %r = mil.softmax(%x) : tensor<4x8xf16>", "A12", "operator"),
    (CONV.format(k="3x3"), "M1", None),
    (CONV.format(k="13x13"), "M1", None),
    (CONV.format(k="13x14"), "M1", "kernel_width"),
    (CONV.format(k="14x13"), "M1", None),
    (CONV.format(k="15x15"), "M4", None),
    (CONV_1D, "M4", "kernel_width"),
]


@pytest.mark.parametrize(("text", "chip", "rule"), CASES)
def test_single_operators(text: str, chip: str, rule: str | None) -> None:
    assert why(text, chip) == rule


def test_a_refusal_says_what_and_what_to_do() -> None:
    found = hardware.refusal(op("%x: tensor<1x8xf32>| %r = mil.relu(%x) : tensor<1x8xf32>"), hardware.chip("M1"), 17)
    assert found is not None
    assert found.reason == "fp32 values: the ANE computes in half precision"
    assert "fp16" in found.remedy
    assert "H" in found.source


def test_constants_are_no_values_that_flow() -> None:
    """A shape in int32 that is known at compile time does not keep an operator off."""
    f = ir.Function("main", {"x": ir.TensorType(ir.dtype("f16"), (2, 3))}, ["o"])
    b = ir.Builder(f.block)
    reps = b.constant(np.array([2, 1], np.int32), "mil")
    tile = b.op("mil.tile", [f.inputs[0], reps], {}, [ir.TensorType(ir.dtype("f16"), (4, 3))])
    assert hardware.refusal(tile, hardware.chip("M1"), 17) is None


def test_a_single_column_is_hinted_at() -> None:
    thin = op("%x: tensor<1x512x64x1xf16>| %r = mil.relu(%x) : tensor<1x512x64x1xf16>")
    found = list(hardware.hints(thin, hardware.chip("M1"), 17))
    assert [h.rule for h in found] == ["last_axis"]
    assert "32 times" in found[0].reason
    wide = op("%x: tensor<1x512x1x64xf16>| %r = mil.relu(%x) : tensor<1x512x1x64xf16>")
    assert not list(hardware.hints(wide, hardware.chip("M1"), 17))
