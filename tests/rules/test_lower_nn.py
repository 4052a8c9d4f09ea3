"""Layers of networks: lowered for every release, given their meaning back, and run beside the original."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import UnsupportedError
from compiler.ir import InferenceError
from tests.rules.harness import C, build, check, rand, refuses


def weights(*shape: int, seed: int = 1) -> C:
    return C(rand(*shape, seed=seed))


# ---- convolution


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
def test_conv_pads_every_way(rank, auto_pad):
    attributes = {"auto_pad": auto_pad, "strides": (2,) * rank}
    if auto_pad == "NOTSET":
        attributes["pads"] = tuple(range(2 * rank))
    x = rand(2, 3, *(8, 9, 7)[:rank])
    check("Conv", [x, weights(4, 3, *(4, 3, 2)[:rank]), weights(4)], attributes, rtol=1e-4, atol=1e-5)


def test_conv_of_groups_dilated_without_bias():
    x, w = rand(1, 4, 9, 9), weights(8, 2, 3, 3)
    check("Conv", [x, w], {"group": 2, "dilations": (2, 1), "pads": (2, 1, 2, 1)}, rtol=1e-4, atol=1e-5)
    check("Conv", [rand(1, 4, 9, 9), weights(4, 1, 3, 3)], {"group": 4, "pads": (1, 1, 1, 1)}, rtol=1e-4, atol=1e-5)


def test_conv_with_computed_weights_and_bias():
    x, w = rand(1, 3, 6, 6), rand(2, 3, 3, 3, seed=2)
    check("Conv", [x, w, weights(2)], {"pads": (1, 1, 1, 1)}, rtol=1e-4, atol=1e-5)
    check("Conv", [x, w, rand(2, seed=3)], rtol=1e-4, atol=1e-5)
    check("Conv", [x, weights(2, 3, 3, 3), rand(2, seed=3)], rtol=1e-4, atol=1e-5)
    refuses("Conv", [x, w], {"dilations": (2, 2)})


def test_conv_of_open_sizes():
    x = rand(1, 3, 8, 10)
    for auto_pad in ("SAME_UPPER", "SAME_LOWER", "NOTSET"):
        check("Conv", [x, weights(4, 3, 3, 3)], {"auto_pad": auto_pad}, shapes={0: (1, 3, "h", "w")}, rtol=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": (2, 3), "pads": (1, 0, 2, 1)},
        {"strides": (2, 2), "output_padding": (1, 1)},
        {"strides": (2, 2), "output_padding": (1, 1), "pads": (1, 1, 1, 1)},
        {"strides": (3, 3), "output_padding": (2, 1), "pads": (0, 0, 1, 0)},
        {"strides": (2, 2), "output_shape": (10, 12)},
        {"strides": (3, 2), "output_shape": (12, 8)},
        {"strides": (3, 2), "output_shape": (12, 8), "auto_pad": "SAME_UPPER"},
        {"strides": (2, 2), "auto_pad": "SAME_UPPER"},
        {"strides": (2, 2), "auto_pad": "SAME_LOWER"},
        {"strides": (2, 2), "auto_pad": "VALID"},
        {"dilations": (2, 2)},
        {"dilations": (2, 1), "strides": (1, 2), "pads": (1, 1, 1, 1)},
    ],
)
def test_conv_transpose(attributes):
    x = rand(1, 4, 4, 5)
    check("ConvTranspose", [x, weights(4, 3, 3, 3), weights(3)], attributes, rtol=1e-4, atol=1e-5)
    check("ConvTranspose", [x, weights(4, 3, 3, 3)], {**attributes, "group": 2}, rtol=1e-4, atol=1e-5)


def test_conv_transpose_of_other_ranks():
    check("ConvTranspose", [rand(2, 3, 7), weights(3, 2, 4)], {"strides": (2,), "pads": (1, 1)}, rtol=1e-4, atol=1e-5)
    check("ConvTranspose", [rand(1, 2, 3, 4, 3), weights(2, 2, 2, 3, 2), weights(2)], rtol=1e-4, atol=1e-5)


# ---- pooling

WINDOWS = [
    {"kernel_shape": (3, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 0, 1, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "ceil_mode": 1},
    {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1},
    {"kernel_shape": (2, 2), "strides": (3, 3), "ceil_mode": 1},
    {"kernel_shape": (3, 4), "strides": (2, 3), "auto_pad": "SAME_UPPER"},
    {"kernel_shape": (2, 4), "strides": (2, 2), "auto_pad": "SAME_LOWER"},
    {"kernel_shape": (3, 2), "strides": (2, 2), "auto_pad": "VALID"},
    {"kernel_shape": (2, 2), "dilations": (2, 3)},
    {"kernel_shape": (3, 2), "dilations": (2, 2), "strides": (2, 1), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "dilations": (2, 2), "strides": (2, 2), "ceil_mode": 1},
]


@pytest.mark.parametrize("attributes", WINDOWS)
def test_pools(attributes):
    x = rand(2, 3, 8, 10)
    check("MaxPool", [x], attributes)
    check("AveragePool", [x], attributes)
    check("AveragePool", [x], {**attributes, "count_include_pad": 1})
    for p in (1, 2, 3):
        check("LpPool", [x], {**attributes, "p": p}, rtol=1e-4)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_of_other_ranks(op):
    check(op, [rand(2, 3, 9)], {"kernel_shape": (3,), "strides": (2,), "ceil_mode": 1})
    check(op, [rand(1, 2, 5, 6, 7)], {"kernel_shape": (2, 3, 2), "strides": (2, 2, 1), "pads": (0, 1, 0, 1, 1, 1)})


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 6), (1, 2, 3, 4, 5)])
def test_global_pools(shape):
    x = rand(*shape)
    check("GlobalAveragePool", [x])
    check("GlobalMaxPool", [x])
    for p in (1, 2, 3):
        check("GlobalLpPool", [x], {"p": p}, rtol=1e-4)


# ---- normalization


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 2, 3)])
def test_batch_normalization(shape):
    x, variance = rand(*shape), np.abs(rand(3, seed=5)) + 0.1
    check("BatchNormalization", [x, weights(3), weights(3, seed=2), weights(3, seed=3), C(variance)], {"epsilon": 1e-3})
    computed = [rand(3, seed=1), rand(3, seed=2), rand(3, seed=3), variance]
    check("BatchNormalization", [x, *computed], {"epsilon": 1e-3}, rtol=1e-4, atol=1e-5)


def test_batch_normalization_beyond_five_axes_is_refused():
    operands = [rand(1, 3, 2, 1, 2, 2), *(weights(3, seed=i) for i in (1, 2, 3)), C(np.ones(3, np.float32))]
    with pytest.raises(UnsupportedError, match=r"rank 6 .*; Core ML's have at most 5"):
        check("BatchNormalization", operands)


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 3, 4, 5), (1, 3, 2, 4, 3)])
def test_instance_and_group_normalization(shape):
    x = rand(*shape)
    check("InstanceNormalization", [x, weights(3), weights(3, seed=2)], {"epsilon": 1e-3}, rtol=1e-4, atol=1e-5)
    check("InstanceNormalization", [x, rand(3), rand(3, seed=2)], {"epsilon": 1e-3}, rtol=1e-4, atol=1e-5)
    wide = rand(shape[0], 6, *shape[2:])
    check("GroupNormalization", [wide, weights(6), weights(6, seed=2)], {"num_groups": 3}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -2, -1])
def test_layer_normalization(axis):
    x = rand(2, 3, 4)
    scale = (2, 3, 4)[axis:]
    check("LayerNormalization", [x, weights(*scale), weights(*scale, seed=2)], {"axis": axis}, rtol=1e-4, atol=1e-5)
    check("LayerNormalization", [x, weights(*scale)], {"axis": axis, "epsilon": 1e-3}, rtol=1e-4, atol=1e-5)
    check("LayerNormalization", [x, rand(*scale), rand(*scale, seed=2)], {"axis": axis}, rtol=1e-4, atol=1e-5)
    check("RMSNormalization", [x, weights(*scale)], {"axis": axis}, rtol=1e-4, atol=1e-5)


def test_layer_normalization_of_an_open_batch():
    check("LayerNormalization", [rand(2, 3, 4), weights(4), weights(4)], shapes={0: ("n", 3, 4)}, rtol=1e-4, atol=1e-5)


def test_other_normalizations():
    x = rand(2, 5, 4, 3)
    x[0, :, 1, 1] = 0
    for p in (1, 2):
        for axis in (1, -1):
            check("LpNormalization", [x], {"p": p, "axis": axis})
    for size in (1, 3):
        check("LRN", [x], {"size": size, "alpha": 0.1, "beta": 0.6, "bias": 1.5})
    padded = np.pad(x**2, ((0, 0), (1, 2), (0, 0), (0, 0)))  # what onnxruntime does not do: four channels, one before
    total = sum(padded[:, i : i + 5] for i in range(4))
    want = x / (1.5 + 0.1 / 4 * total) ** 0.6
    check("LRN", [x], {"size": 4, "alpha": 0.1, "beta": 0.6, "bias": 1.5}, expected=[want], rtol=1e-4)
    check("MeanVarianceNormalization", [x], rtol=1e-4, atol=1e-5)
    check("MeanVarianceNormalization", [x], {"axes": (0, 1)}, rtol=1e-4, atol=1e-5)


# ---- activations


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 1.5}),
        ("Selu", {}),
        ("Celu", {"alpha": 0.7}),
        ("Celu", {}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("HardSwish", {}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("Mish", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("ThresholdedRelu", {"alpha": 1.0}),
        ("ThresholdedRelu", {"alpha": 0.0}),
        ("ThresholdedRelu", {"alpha": -0.5}),
        ("Swish", {}),
        ("Swish", {"alpha": 1.7}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("Shrink", {"lambd": 0.7, "bias": 0.2}),
        ("Softmax", {"axis": 1}),
        ("Softmax", {}),
        ("LogSoftmax", {"axis": 0}),
        ("Hardmax", {"axis": 1}),
    ],
)
def test_activations(op, attributes):
    x = 3 * rand(3, 4, 5)
    x[0, 0, :3] = 0, 1.0, -0.5
    check(op, [x], attributes, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1, 1), (4, 3, 5), (1, 1, 1)])
def test_prelu_broadcasts_its_slope(shape):
    check("PRelu", [rand(2, 4, 3, 5), C(rand(*shape, seed=4))])
    check("PRelu", [rand(2, 4, 3, 5), rand(*shape, seed=4)])


def test_prelu_does_not_broadcast_its_input():
    with pytest.raises(InferenceError, match="it has to be one that broadcasts to tensor<5xf32>"):
        build("PRelu", [rand(5), rand(3, 4, 5)])
    with pytest.raises(InferenceError, match="it has to be one that broadcasts to tensor<1x5xf32>"):
        build("PRelu", [rand(1, 5), C(rand(3, 5))])


def test_relu6_and_silu():
    lowered = check("Clip", [5 * rand(2, 9), C(np.float32(0)), C(np.float32(6))])
    assert next(op.name for op in lowered.walk() if op.defn.constant is None) == "mil.relu6"


# ---- places and channels


def test_channels_become_places_and_back():
    for mode in ("DCR", "CRD"):
        check("DepthToSpace", [rand(2, 8, 3, 2)], {"blocksize": 2, "mode": mode})
    check("SpaceToDepth", [rand(2, 3, 4, 6)], {"blocksize": 2})
    check("SpaceToDepth", [rand(2, 3, 4, 6)], {"blocksize": 2, "mode": "CRD"})


# ---- resizing

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")


def resize(x, scales=None, sizes=None, roi=None, **attributes):
    operands = [x, None if roi is None else C(np.asarray(roi, np.float32))]
    operands.append(None if scales is None else C(np.asarray(scales, np.float32)))
    operands.append(None if sizes is None else C(np.asarray(sizes, np.int64)))
    return check("Resize", operands, attributes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 0.6, 0.5), (1, 1, 1.7, 2.3)])
def test_resize_in_every_mode(coordinates, scales):
    x = rand(1, 2, 5, 6)
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        resize(x, scales, coordinate_transformation_mode=coordinates, nearest_mode=nearest)
    resize(x, scales, mode="linear", coordinate_transformation_mode=coordinates)
    for outside in (0, 1):
        resize(x, scales, mode="cubic", coordinate_transformation_mode=coordinates, exclude_outside=outside)


@pytest.mark.parametrize("sizes", [(1, 2, 10, 12), (1, 2, 3, 9), (1, 2, 1, 1), (1, 2, 7, 6)])
def test_resize_to_sizes(sizes):
    x = rand(1, 2, 5, 6)
    for coordinates in COORDINATES:
        resize(x, sizes=sizes, mode="linear", coordinate_transformation_mode=coordinates)
        resize(x, sizes=sizes, mode="nearest", coordinate_transformation_mode=coordinates)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_keeps_the_aspect_ratio(policy):
    for mode in ("nearest", "linear"):
        resize(rand(1, 2, 5, 6), sizes=(7, 11), axes=(2, 3), mode=mode, keep_aspect_ratio_policy=policy)


@pytest.mark.parametrize("scales", [(1, 1, 0.6, 0.4), (1, 1, 0.5, 0.5), (1, 1, 2, 1.5)])
def test_resize_without_aliases(scales):
    for mode in ("linear", "cubic"):
        for coordinates in ("half_pixel", "align_corners"):
            resize(rand(1, 2, 9, 10), scales, mode=mode, antialias=1, coordinate_transformation_mode=coordinates)


def test_resize_of_other_ranks_and_axes():
    for mode in ("nearest", "linear"):
        resize(rand(2, 3, 8), (1, 1, 2), mode=mode)
        resize(rand(1, 2, 3, 4, 5), (1, 1, 2, 1.5, 2), mode=mode)
        resize(rand(4, 5), (2, 2), mode=mode)


def test_resize_of_a_region():
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    for roi in ([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.7], [0, 0, -0.2, 0.3, 1, 1, 1.2, 1.4]):
        for mode in ("nearest", "linear"):
            resize(rand(1, 2, 6, 7), sizes=(1, 2, 4, 5), roi=roi, mode=mode, **crop)


def test_resize_takes_the_operator_that_core_ml_has():
    def name(lowered):
        return [op.name for op in lowered.walk() if op.defn.constant is None and op.name != "ir.return"]

    x = rand(1, 2, 4, 6)
    assert name(resize(x, (1, 1, 2, 2), coordinate_transformation_mode="asymmetric", nearest_mode="floor")) == [
        "mil.upsample_nearest_neighbor"
    ]
    assert name(resize(x, (1, 1, 2, 2), mode="linear")) == ["mil.upsample_bilinear"]
    assert name(resize(x, sizes=(1, 2, 5, 3), mode="linear")) == ["mil.resize_bilinear"]
    assert name(resize(x, (1, 1, 0.5, 1), coordinate_transformation_mode="asymmetric", nearest_mode="floor")) == [
        "mil.slice_by_index"
    ]


# ---- what composition makes possible


def test_conv_in_groups_by_computed_weights():
    x = rand(1, 4, 6, 7)
    check("Conv", [x, rand(6, 2, 3, 3, seed=2), rand(6)], {"group": 2, "pads": (1, 0, 1, 2)}, rtol=1e-4, atol=1e-5)
    depthwise = {"group": 8, "dilations": (2, 1), "strides": (1, 2), "pads": (1, 1, 1, 1)}
    check("Conv", [rand(1, 8, 6, 7), rand(8, 1, 3, 3, seed=2)], depthwise, rtol=1e-4, atol=1e-5)


def test_conv_transpose_by_computed_weights_needs_ios17():
    given = [rand(1, 4, 4, 5), rand(4, 3, 3, 3, seed=2), rand(3)]
    check("ConvTranspose", given, {"strides": (2, 2)}, os=("ios17", "ios18"), rtol=1e-4, atol=1e-5)
    refuses("ConvTranspose", given, {"strides": (2, 2)}, os="ios16")


def test_layer_normalization_with_its_statistics():
    given = [rand(2, 3, 4), weights(3, 4), weights(3, 4, seed=2)]
    check("LayerNormalization", given, {"axis": 1}, results=3, rtol=1e-4, atol=1e-5)


def test_batch_normalization_in_training():
    x, scale, bias, mean, variance = (
        rand(4, 3, 5),
        rand(3, seed=1),
        rand(3, seed=2),
        rand(3, seed=3),
        rand(3, seed=4) ** 2,
    )
    m, v = x.mean((0, 2)), x.var((0, 2))
    y = (x - m[:, None]) / np.sqrt(v + 1e-5)[:, None] * scale[:, None] + bias[:, None]
    want = [y, mean * 0.8 + m * 0.2, variance * 0.8 + v * 0.2]
    attributes = {"training_mode": 1, "momentum": 0.8}
    check("BatchNormalization", [x, scale, bias, mean, variance], attributes, 3, expected=want, rtol=1e-4, atol=1e-5)


def test_dropout_that_drops_nothing():
    x = rand(3, 4)
    check("Dropout", [x], results=2)
    check("Dropout", [x, C(np.float32(0.5)), C(np.array(False))], results=2)
    check("Dropout", [x, C(np.float32(0.0)), C(np.array(True))], results=2, expected=[x, np.ones((3, 4), bool)])
    refuses("Dropout", [x, C(np.float32(0.5)), C(np.array(True))])


# ---- sampling and attention


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(padding, align):
    x, grid = rand(2, 3, 5, 6), 1.3 * rand(2, 4, 3, 2, seed=2)
    for mode in ("linear", "nearest"):
        attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
        check("GridSample", [x, grid], attributes, rtol=1e-4, atol=1e-5)


def test_attention_is_one_operator_from_ios18_on():
    q, k, v = rand(1, 2, 5, 4), rand(1, 2, 7, 4, seed=2), rand(1, 2, 7, 3, seed=3)
    mask = rand(5, 7, seed=4)
    for given in ([q, k, v], [q, k, v, mask]):
        for attributes in ({}, {"scale": 0.3}):
            names = [op.name for op in check("Attention", given, attributes, os="ios18", rtol=1e-4, atol=1e-5).walk()]
            assert "mil.scaled_dot_product_attention" in names
    older = check("Attention", [q, k, v], os="ios17", rtol=1e-4, atol=1e-5)
    assert "mil.softmax" in [op.name for op in older.walk()]
