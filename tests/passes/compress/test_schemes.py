"""Names of schemes, and the errors for those that are none."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import UserError
from passes.compress import Axes, Linear, Palette, Sparse, encode, parse
from passes.compress.fit import fitted


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("int8", Linear(rounding="balanced")),
        ("int8-nearest", Linear()),
        ("uint8-affine-tensor", Linear("uint8", False, "tensor", rounding="balanced")),
        ("int4", Linear("int4", True, "block", 32, "balanced")),
        ("int4-channel-nearest", Linear("int4", True, "channel")),
        ("uint4-affine-block16", Linear("uint4", False, "block", 16, "balanced")),
        ("palette6", Palette(6)),
        ("palette4-group16-scaled", Palette(4, 16, True)),
        ("palette2-unique", Palette(2, mode="unique")),
        ("sparse50", Sparse(0.5)),
        ("sparse2of4+int8", Sparse(pattern=(2, 4), values=Linear())),
    ],
)
def test_names(text, scheme):
    assert parse(text, 18) == scheme


@pytest.mark.parametrize(
    ("text", "ios", "message"),
    [
        ("int9", 18, "no way to compress weights is called 'int9'; did you mean 'int8'?"),
        ("palette5", 18, "a palette of 5 bits is none that Core ML has"),
        ("int4", 17, "int4 in blocks of 32 weights need iOS 18 or later"),
        ("palette3", 17, "3-bit palette weights need iOS 18 or later"),
        ("palette4-group8", 16, "4-bit palette for 8 channels weights need iOS 18 or later"),
        ("sparse0", 18, "'sparse0' leaves nothing to do or nothing at all"),
        ("sparse4of4", 18, "'sparse4of4' is no part of 4"),
        ("sparse50+int8", 17, "50 % sparse, int8 weights need iOS 18 or later"),
        ("int8-block1", 18, "'int8-block1' has blocks of 1"),
    ],
)
def test_errors(text, ios, message):
    with pytest.raises(UserError) as e:
        parse(text, ios)
    assert e.value.message == message
    assert e.value.remedy


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("palette4-group16", (60, 240), "4-bit palette for 20 channels"),
        ("palette4-group16", (48, 8), "4-bit palette for 16 channels"),
        ("palette4-group16", (53, 64), "4-bit palette"),
        ("int4-block32", (64, 120), "int4 in blocks of 40"),
        ("int4-block32", (240, 1, 5, 5), "int4"),
        ("sparse50+int4-block32", (64, 48), "50 % sparse, int4"),
    ],
)
def test_groups_and_blocks_that_fill_a_weight(name, shape, expected):
    axes = Axes(0, 1)
    made = fitted(parse(name, 18), shape, axes)
    assert str(made) == expected
    encode(np.random.default_rng(0).standard_normal(shape).astype(np.float16), made, axes)
    assert "channels" not in str(fitted(parse(name, 18), shape, None))
