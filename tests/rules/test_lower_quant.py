"""Quantized numbers: the operators on them, and every compressed form of weights."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import helper, numpy_helper

import compiler
from compiler import ir
from compiler.errors import UnsupportedError
from tests.rules.harness import RELEASES, C, build, check, lower, rand, run_mil

I8, U8 = np.int8, np.uint8


def ints(*shape, dtype=I8, seed=0):
    limits = np.iinfo(dtype)
    return np.random.default_rng([seed, *shape]).integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def scales(*shape, seed=0):
    return (np.random.default_rng([seed, 7, *shape]).random(shape) * 0.1 + 0.01).astype(np.float32)


# ---- operators


@pytest.mark.parametrize("dtype", [I8, U8, np.int16, np.uint16])
def test_quantize_and_dequantize(dtype):
    x = 5 * rand(2, 3, 4)
    for axis, size in ((1, ()), (1, (3,)), (-1, (4,)), (0, (1,))):
        s, z = scales(*size), ints(*size, dtype=dtype, seed=3)
        check("QuantizeLinear", [x, C(s), C(z)], {"axis": axis})
        check("DequantizeLinear", [ints(2, 3, 4, dtype=dtype), C(s), C(z)], {"axis": axis})
    check("QuantizeLinear", [x, scales(), ints(dtype=dtype)])
    check("DequantizeLinear", [ints(2, 3, 4, dtype=dtype), scales(3), ints(3, dtype=dtype)], {"axis": 1})


def test_weights_stay_compressed():
    def made(module):
        return next(op.name for op in module.walk() if op.defn.constant is None)

    for axis, size in ((0, ()), (0, (40,)), (1, (60,))):
        given = [C(ints(40, 60)), C(scales(*size)), C(ints(*size, seed=2))]
        assert made(check("DequantizeLinear", given, {"axis": axis}, os=RELEASES)) == "mil.constexpr_affine_dequantize"
    blocked = [C(ints(40, 60)), C(scales(40, 6)), C(ints(40, 6, seed=2))]
    assert made(check("DequantizeLinear", blocked, {"axis": 1, "block_size": 10})) == (
        "mil.constexpr_blockwise_shift_scale"
    )
    small = [C(ints(4, 6)), C(scales(6)), C(ints(6, seed=2))]
    assert made(check("DequantizeLinear", small, {"axis": 1})) == "ir.return"


def test_scales_of_blocks_may_be_computed():
    x, scale, zero = rand(40, 60), scales(40, 6), ints(40, 6, seed=2)
    check("QuantizeLinear", [x, scale, zero], {"axis": 1, "block_size": 10})
    check("DequantizeLinear", [ints(40, 60), scale, zero], {"axis": 1, "block_size": 10})
    check("DequantizeLinear", [ints(4, 6, 5, 3), scales(4, 2, 5, 3)], {"axis": 1, "block_size": 3})


@pytest.mark.parametrize("name", ["f8e4m3fn", "f8e5m2"])
def test_narrow_floats(name):
    to = ir.dtype(name)
    x = np.concatenate([rand(40), [0, 3, 1e6, -1e6]]).astype(np.float32)
    zero = np.zeros((), to.numpy)
    want = numpy_helper.saturate_cast(x / np.float32(0.03), to.numpy).astype(np.float32)
    check("QuantizeLinear", [x, C(np.float32(0.03)), C(zero)], expected=[want], rtol=0, atol=0)
    small = rand(40).astype(to.numpy)
    want = small.astype(np.float32) * np.float32(0.03)
    check("DequantizeLinear", [small, C(np.float32(0.03)), C(zero)], expected=[want], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [I8, U8])
def test_matmul_of_integers(dtype):
    # onnxruntime's product of u8 and i8 saturates 16 bits on some processors; NumPy's is exact.
    a, b, az, bz = ints(3, 500, dtype=dtype), ints(500, 4), ints(dtype=dtype), ints()
    wide = a.astype(np.int32), b.astype(np.int32)
    check("MatMulInteger", [a, C(b), C(az), C(bz)], expected=[(wide[0] - az) @ (wide[1] - bz)])
    check("MatMulInteger", [a, C(b)], expected=[wide[0] @ wide[1]])
    a, b = ints(2, 3, 50, dtype=dtype), ints(2, 50, 4, dtype=dtype)
    point = [C(scales(seed=2)), C(ints(dtype=dtype))]
    check("QLinearMatMul", [a, C(scales()), C(ints(dtype=dtype)), b, *point, C(np.float32(9.0)), C(ints(dtype=dtype))])


def test_conv_of_integers():
    x = ints(1, 3, 6, 6, dtype=U8)
    check("ConvInteger", [x, C(ints(4, 3, 3, 3, dtype=U8)), C(U8(3)), C(U8(130))], {"pads": (1, 1, 1, 1)})
    point, w = [C(scales()), C(U8(12))], ints(4, 3, 3, 3) // 2  # half the range, so that onnxruntime cannot saturate
    out = [C(np.float32(2.0)), C(U8(128))]
    bias = C(np.arange(4, dtype=np.int32) * 99)
    check("QLinearConv", [x, *point, C(w), C(scales(4)), C(np.zeros(4, I8)), *out, bias], {"pads": (1, 1, 1, 1)})
    check("QLinearConv", [x, *point, C(w), C(scales()), C(I8(0)), *out])


def test_dynamic_quantize():
    for x in (rand(3, 4), np.abs(rand(3, 4)), -np.abs(rand(5)), np.zeros(4, np.float32)):
        check("DynamicQuantizeLinear", [x], results=3)


# ---- compressed weights


def meaning(op, operands, attributes=None, results=1):
    module, arrays = build(f"mil.{op}", [C(a) if a is not None else None for a in operands], attributes, results)
    return run_mil(module, arrays)


def test_affine_dequantize():
    data, scale, zero = ints(3, 4), scales(4), ints(4, seed=5)
    got = meaning("constexpr_affine_dequantize", [data, zero, scale], {"axis": np.int32(1)})[0]
    np.testing.assert_allclose(got, (data.astype(np.float32) - zero) * scale, rtol=1e-6)
    got = meaning("constexpr_affine_dequantize", [data, np.float32(0.5), np.float32(2)], {"axis": np.int32(0)})[0]
    np.testing.assert_allclose(got, (data.astype(np.float32) - 0.5) * 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_packed_look_up_table(bits):
    """As coremltools decompresses it."""
    from coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops import constexpr_lut_to_dense
    from coremltools.optimize._utils import pack_elements_into_bits

    shape = np.array([5, 7], np.uint32)
    lut = rand(1 << bits)
    indices = np.random.default_rng(bits).integers(0, 1 << bits, 35).astype(U8)
    packed = pack_elements_into_bits(indices, bits).astype(U8)
    got = meaning("constexpr_lut_to_dense", [packed, lut], {"shape": shape})[0]
    np.testing.assert_array_equal(got, constexpr_lut_to_dense.decompress(lut, packed, shape))
    np.testing.assert_array_equal(got, lut[indices].reshape(5, 7))


@pytest.mark.parametrize(
    ("groups", "size", "axis"), [((1, 1), 1, None), ((2, 1), 1, None), ((3, 2), 2, 0), ((1, 2), 3, -1)]
)
def test_grouped_look_up_table(groups, size, axis):
    from coremltools.optimize._utils import lut_to_dense

    indices = np.random.default_rng(0).integers(0, 4, (6, 4)).astype(U8)
    lut = rand(*groups, 4, size)
    got = meaning("constexpr_lut_to_dense", [indices.astype(ml_dtypes.uint4), lut], {"vector_axis": axis})[0]
    np.testing.assert_array_equal(got, lut_to_dense(indices, lut, axis))


def test_sparse_weights():
    mask = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(U8)
    data = rand(int(mask.sum()))
    want = np.zeros((5, 7), np.float32)
    want[mask != 0] = data
    packed = np.packbits(mask.reshape(-1), bitorder="little")
    shape = np.array([5, 7], np.uint32)
    np.testing.assert_array_equal(meaning("constexpr_sparse_to_dense", [data, packed], {"shape": shape})[0], want)
    np.testing.assert_array_equal(meaning("constexpr_sparse_to_dense", [data, mask])[0], want)


def test_blockwise_shift_scale():
    from coremltools.converters.mil.mil.ops.defs.iOS18 import compression

    data, scale, offset = ints(4, 6), scales(4, 2), ints(4, 2, seed=1)
    decompress = compression.constexpr_blockwise_shift_scale.decompress
    got = meaning("constexpr_blockwise_shift_scale", [data, scale, offset])[0]
    np.testing.assert_allclose(got, decompress(data, scale, offset.astype(np.float32)), rtol=1e-6)
    nibbles = np.arange(24).reshape(4, 6) % 16 - 8
    got = meaning("constexpr_blockwise_shift_scale", [nibbles.astype(ml_dtypes.int4), scale])[0]
    np.testing.assert_allclose(got, decompress(nibbles, scale, None), rtol=1e-6)


def test_sparse_forms_of_both():
    from coremltools.converters.mil.mil.ops.defs.iOS18 import compression

    mask = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(U8)
    count = int(mask.sum())
    data, scale, offset = ints(count), scales(4, 2), ints(4, 2, seed=1)
    got = meaning("constexpr_sparse_blockwise_shift_scale", [mask, data, scale, offset], results=2)
    want = compression.constexpr_sparse_blockwise_shift_scale.decompress(mask, data, scale, offset.astype(np.float32))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    indices = np.random.default_rng(1).integers(0, 4, count).astype(U8)
    for lut, axis in ((rand(2, 1, 4, 1), None), (rand(1, 1, 4, 2), 1)):
        got = meaning("constexpr_lut_to_sparse", [mask, indices, lut], {"vector_axis": axis}, results=2)
        want = compression.constexpr_lut_to_sparse.decompress(mask, indices, lut, axis)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_cast_of_weights():
    half = rand(3, 4).astype(np.float16)
    np.testing.assert_array_equal(
        meaning("constexpr_cast", [half], {"output_dtype": "fp32"})[0], half.astype(np.float32)
    )


def test_quantize_pair_of_core_ml():
    x, s, z = 5 * rand(2, 3, 4), scales(3), ints(3, seed=1)
    got = meaning_of_pair(x, s, z, 1)
    want = (np.clip(np.round(x / s[:, None]) + z[:, None], -128, 127) - z[:, None]) * s[:, None]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def meaning_of_pair(x, s, z, axis):
    from compiler.ir import Builder, Function, Module, TensorType, from_numpy

    function = Function("main", {"x": TensorType(from_numpy(x.dtype), x.shape)}, ["y"])
    b = Builder(function.block)
    point = [b.constant(a, "onnx") for a in (s, z)]
    q = b.op("onnx.QuantizeLinear", [function.inputs[0], *point], {"axis": axis}).result
    function.set_outputs([b.op("onnx.DequantizeLinear", [q, *point], {"axis": axis}).result])
    module = Module("pair")
    module.add(function)
    lowered = lower(module, "ios17")
    assert {"mil.quantize", "mil.dequantize"} <= {op.name for op in lowered.walk()}
    return run_mil(lowered, {"x": x})[0]


# ---- onnxruntime's LSTM that rounds


def rounding_lstm(batch, direction, per_row=False, steps=5):
    """A model of one DynamicQuantizeLSTM. Weights stay under 64, so that onnxruntime's sums saturate nowhere."""
    inputs, n, d = 6, 4, 2 if direction == "bidirectional" else 1
    size = (d, 4 * n) if per_row else (d,)
    given = {
        "w": ints(d, inputs, 4 * n) // 2,
        "r": ints(d, n, 4 * n) // 2,
        "bias": rand(d, 8 * n),
        "sw": scales(*size),
        "zw": np.zeros(size, I8),
        "sr": scales(*size, seed=1),
        "zr": np.zeros(size, I8),
        "h": rand(d, batch, n, seed=2),
        "c": rand(d, batch, n, seed=3),
    }
    names = ["x", "w", "r", "bias", "", "h", "c", "", "sw", "zw", "sr", "zr"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, ["y", "hn", "cn"], domain="com.microsoft", hidden_size=n, direction=direction
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [steps, batch, inputs])],
        [helper.make_tensor_value_info(name, 1, None) for name in ("y", "hn", "cn")],
        [numpy_helper.from_array(a, name) for name, a in given.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_lstm_of_one_row_rounds_as_onnxruntime_does(direction, tmp_path):
    for per_row in (False, True):
        proto = rounding_lstm(1, direction, per_row)
        made = compiler.compile(proto, target="cpu", output=tmp_path / f"{per_row}.mlpackage")
        assert made.report.rules["lower_dynamic_quantize_lstm_of_one_row"] == 1
        assert all(e.rel_l2 < 2e-6 for e in made.report.verify.outputs.values())


def test_an_lstm_of_several_rows_is_not_compiled_to_f32(tmp_path):
    with pytest.raises(UnsupportedError, match="one row"):
        compiler.compile(rounding_lstm(2, "forward"), target="cpu", output=tmp_path / "m.mlpackage")
