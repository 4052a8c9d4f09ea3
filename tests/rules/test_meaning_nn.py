"""What mil's layers mean, held against the formulas of coremltools' documentation, and against packages that Apple's
converter made, with the source framework's outputs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from compiler.proof import MilSession, read_package
from tests.rules.harness import C, build, library, rand, run_mil


def meaning(op, operands, attributes=None, results=1):
    module, arrays = build(f"mil.{op}", operands, attributes, results)
    got = run_mil(module, arrays)
    return got[0] if results == 1 else got


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# ---- packages made by Apple's converter

PAIRS = [
    "basic_pitch",
    "bert",
    "bilstm_tagger",
    "conformer",
    "conv3d_dy",
    "convnext",
    "deeplab_aspp",
    "efficientnet",
    "einsum_attention",
    "espcn",
    "gpt2_dy",
    "gru_speech",
    "llama_block",
    "mobilenet_v3",
    "ranking",
    "resnet_basic",
    "stn_grid_sample",
    "style_transfer",
    "swin_dy",
    "t5_encoder",
    "tcn",
    "unet",
    "vit",
    "whisper_encoder",
    "yolov5_416",
]


@pytest.mark.parametrize("name", PAIRS)
def test_packages_of_apples_converter(pairs_dir, name):
    """Within 2 %, or twice what half precision itself costs."""
    folder = pairs_dir / name
    meta = json.loads((folder / "meta.json").read_text())
    arrays = np.load(folder / "io.npz")
    session = MilSession(read_package(folder / "apple.mlpackage"), library())
    got = session.run([arrays[n] for n in arrays.files if n.startswith("in")])
    want = [arrays[n] for n in arrays.files if n.startswith("out")]
    floors = meta.get("mil_interp_fp16_rounded_rel_err_per_output") or [0.0] * len(want)
    for a, b, floor in zip(got, want, floors, strict=True):
        assert a.size == b.size
        error = np.linalg.norm(a.astype(np.float64).reshape(-1) - b.reshape(-1)) / max(np.linalg.norm(b), 1e-30)
        assert error <= max(2e-2, 2 * floor)


# ---- activations

X = np.array([-30.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 30.0], np.float32)


def test_activations_by_their_formulas():
    a, b = C(np.float32(0.4)), C(np.float32(1.5))
    sigmoid = 1 / (1 + np.exp(-X))
    close(meaning("relu6", [X]), np.clip(X, 0, 6))
    close(meaning("silu", [X]), X * sigmoid)
    close(meaning("clamped_relu", [X, a, b]), np.minimum(1.5, np.where(X >= 0, X, 0.4 * X)))
    close(meaning("linear_activation", [X, a, b]), 0.4 * X + 1.5)
    close(meaning("scaled_tanh", [X, a, b]), 0.4 * np.tanh(1.5 * X))
    close(meaning("sigmoid_hard", [X, a, b]), np.clip(0.4 * X + 1.5, 0, 1))
    close(meaning("leaky_relu", [X, a]), np.where(X >= 0, X, 0.4 * X))
    close(meaning("elu", [X, a]), np.where(X > 0, X, 0.4 * (np.exp(np.minimum(X, 0)) - 1)))
    close(meaning("softsign", [X]), X / (1 + np.abs(X)))
    close(meaning("softplus", [X]), np.log1p(np.exp(-np.abs(X))) + np.maximum(X, 0))
    for threshold in (-0.5, 0.0, 0.5):  # what equals the threshold stays
        t = C(np.float32(threshold))
        close(meaning("thresholded_relu", [X, t]), np.where(threshold <= X, X, 0))
    erf = np.array([math.erf(v / math.sqrt(2)) for v in X])
    close(meaning("gelu", [X]), 0.5 * X * (1 + erf))
    inner = math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)
    close(meaning("gelu", [X], {"mode": "TANH_APPROXIMATION"}), 0.5 * X * (1 + np.tanh(inner)))
    close(meaning("gelu", [X], {"mode": "SIGMOID_APPROXIMATION"}), X / (1 + np.exp(-1.702 * X)))


def test_activations_with_parameters_for_each_channel():
    x, a, b = rand(2, 3, 4, 5), rand(3, seed=2), rand(3, seed=3)
    over = (slice(None), None, None)
    close(meaning("prelu", [x, C(a)]), np.maximum(x, 0) + np.minimum(x, 0) * a[over])
    close(meaning("softplus_parametric", [x, C(a), C(b)]), a[over] * np.log(1 + np.exp(x * b[over])))


# ---- normalization


@pytest.mark.parametrize("axes", [(3,), (1, 2, 3), (1,), (0, 2), (-1, -2), None])
def test_layer_norm_over_any_axes(axes):
    x = rand(2, 3, 4, 5)
    over = tuple(range(4)) if axes is None else tuple(sorted(a % 4 for a in axes))
    shape = [x.shape[i] for i in over]
    gamma, beta = rand(*shape, seed=2), rand(*shape, seed=3)
    spread = [d if i in over else 1 for i, d in enumerate(x.shape)]
    plain = (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + 1e-3)
    attributes = {"epsilon": 1e-3} | ({} if axes is None else {"axes": axes})
    close(meaning("layer_norm", [x], attributes), plain)
    want = plain * gamma.reshape(spread) + beta.reshape(spread)
    close(meaning("layer_norm", [x, C(gamma), C(beta)], attributes), want)


def test_norms_by_their_formulas():
    x, c = rand(2, 3, 4, 5), [rand(3, seed=i) for i in range(4)]
    variance = np.abs(c[1])
    over = (slice(None), None, None)
    plain = (x - c[0][over]) / np.sqrt(variance[over] + 1e-5)
    close(meaning("batch_norm", [x, C(c[0]), C(variance)]), plain)
    close(meaning("batch_norm", [x, C(c[0]), C(variance), C(c[2])]), plain * c[2][over])
    close(meaning("batch_norm", [x, C(c[0]), C(variance), None, C(c[3])]), plain + c[3][over])
    each = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
    close(meaning("instance_norm", [x]), each)
    close(meaning("instance_norm", [x, C(c[2]), C(c[3])]), each * c[2][over] + c[3][over])
    close(meaning("l2_norm", [x]), x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True) + 1e-6))


# ---- windows


@pytest.mark.parametrize(("kind", "head"), [("same", 0), ("same_lower", 1)])
def test_odd_padding_goes_behind_or_before(kind, head):
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 6)
    w = C(np.ones((1, 1, 3), np.float32))
    got = meaning("conv", [x, w], {"strides": (2,), "pad_type": kind, "dilations": (1,), "pad": (0, 0)})
    padded = np.pad(x[0, 0], (head, 1 - head))
    close(got[0, 0], [padded[i : i + 3].sum() for i in (0, 2, 4)])


def test_pools_that_round_up():
    """As PyTorch: a window that would begin in the padding behind is left out."""
    x = np.arange(1, 8, dtype=np.float32).reshape(1, 1, 7)
    common = {"kernel_sizes": (3,), "strides": (3,), "pad_type": "custom", "ceil_mode": True}
    close(meaning("max_pool", [x], {**common, "pad": (0, 0)})[0, 0], [3, 6, 7])
    close(meaning("max_pool", [x], {**common, "pad": (1, 1)})[0, 0], [2, 5, 7])
    average = {**common, "pad": (1, 1), "exclude_padding_from_average": True}
    close(meaning("avg_pool", [x], average)[0, 0], [1.5, 4, 6.5])
    close(meaning("l2_pool", [x], {**common, "pad": (0, 0), "ceil_mode": False})[0, 0], [14**0.5, 77**0.5])


def test_conv_transpose_to_a_given_shape():
    x, w = rand(1, 2, 4, 4), C(rand(2, 3, 3, 3, seed=2))
    common = {"strides": (2, 2), "dilations": (1, 1), "pad_type": "custom", "pad": (1, 1, 1, 1)}
    natural = meaning("conv_transpose", [x, w], common)
    assert natural.shape == (1, 3, 7, 7)
    larger = meaning("conv_transpose", [x, w], {**common, "output_shape": (1, 3, 8, 8)})
    close(larger[..., :7, :7], natural)
    assert meaning("conv_transpose", [x, w], {**common, "pad_type": "same"}).shape == (1, 3, 8, 8)


# ---- resizing: the grids that coremltools documents for two inputs

GRIDS = [
    ("UNALIGN_CORNERS", 5, [0.0, 0.1, 0.5, 0.9, 1.0]),
    ("STRICT_ALIGN_CORNERS", 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
    ("DEFAULT", 5, [0.0, 0.4, 0.8, 1.0, 1.0]),
    ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
    ("DEFAULT", 6, [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
    ("ALIGN_CORNERS", 1, [0.5]),
    ("STRICT_ALIGN_CORNERS", 1, [0.0]),
]


@pytest.mark.parametrize(("mode", "size", "grid"), GRIDS)
def test_sampling_modes(mode, size, grid):
    x = np.array([[[0.0, 1.0]]], np.float32)
    attributes = {"target_size_height": 1, "target_size_width": size, "sampling_mode": mode}
    close(meaning("resize_bilinear", [x], attributes)[0, 0], grid)
    shape = C(np.array([1, size], np.int32))
    attributes = {"resized_dims": 2, "interpolation_mode": "LINEAR", "sampling_mode": mode}
    close(meaning("resize", [x, shape], attributes)[0, 0], grid)


def test_upsampling():
    x = np.array([[[0.0, 1.0]]], np.float32)
    factors = {"scale_factor_height": 1, "scale_factor_width": 3}
    close(meaning("upsample_bilinear", [x], {**factors, "align_corners": True})[0, 0], [0, 0.2, 0.4, 0.6, 0.8, 1])
    close(meaning("upsample_bilinear", [x], {**factors, "align_corners": False})[0, 0], [0, 0, 1 / 3, 2 / 3, 1, 1])
    close(meaning("upsample_nearest_neighbor", [x], factors)[0, 0], [0, 0, 0, 1, 1, 1])


# ---- sampling


def test_affine_without_a_change_is_the_image():
    x = rand(2, 3, 4, 5)
    identity = C(np.array([[1, 0, 0, 0, 1, 0]], np.float32))
    for align in (True, False):
        attributes = {
            "output_height": 4, "output_width": 5, "sampling_mode": "bilinear", "padding_mode": "constant",
            "coordinates_mode": "normalized_minus_one_to_one", "align_corners": align,
        }  # fmt: skip
        close(meaning("affine", [x, identity, C(np.float32(0))], attributes), x)


@pytest.mark.parametrize("padding", ["constant", "border", "reflection", "symmetric"])
@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("coordinates", ["unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one"])
def test_resample_at_pixels_and_beyond(padding, align, coordinates):
    """At pixel −2 … 6 of four, in the documentation's own example of padding."""
    x = np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(1, 1, 1, 4)
    at = np.arange(-2, 7, dtype=np.float64)
    if coordinates != "unnormalized":
        at = at / 3 if align else (at + 0.5) / 4
        if coordinates == "normalized_minus_one_to_one":
            at = 2 * at - 1
    middle = {"unnormalized": 0.0, "normalized_zero_to_one": 0.5, "normalized_minus_one_to_one": 0.0}[coordinates]
    grid = np.stack([at, np.full_like(at, middle)], -1).astype(np.float32).reshape(1, 1, -1, 2)
    attributes = {
        "sampling_mode": "bilinear", "padding_mode": padding, "coordinates_mode": coordinates, "align_corners": align
    }  # fmt: skip
    want = {
        "constant": [9, 9, 1, 2, 3, 4, 9, 9, 9],
        "border": [1, 1, 1, 2, 3, 4, 4, 4, 4],
        "reflection": [3, 2, 1, 2, 3, 4, 3, 2, 1],
        "symmetric": [2, 1, 1, 2, 3, 4, 4, 3, 2],
    }[padding]
    np.testing.assert_allclose(
        meaning("resample", [x, grid, C(np.float32(9))], attributes).reshape(-1), want, rtol=1e-4, atol=1e-4
    )


# ---- attention and rearrangement


def test_scaled_dot_product_attention():
    q, k, v = rand(2, 3, 5, 4), rand(2, 3, 7, 4, seed=2), rand(2, 3, 7, 6, seed=3)
    seen = rand(5, 7, seed=4) > -1
    for mask in (None, rand(5, 7, seed=5), seen):
        scores = q @ k.swapaxes(-1, -2) / 2
        if mask is not None:
            scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        want = weights / weights.sum(-1, keepdims=True) @ v
        close(meaning("scaled_dot_product_attention", [q, k, v] + ([] if mask is None else [mask])), want)


def test_pixel_shuffles_undo_each_other():
    x = rand(2, 3, 4, 6)
    folded = meaning("pixel_unshuffle", [x], {"downscale_factor": 2})
    assert folded.shape == (2, 12, 2, 3)
    close(meaning("pixel_shuffle", [folded], {"upscale_factor": 2}), x)
    close(folded[:, 1], x[:, 0, 0::2, 1::2])
    deep = meaning("space_to_depth", [x], {"block_size": 2})
    close(meaning("depth_to_space", [deep], {"block_size": 2}), x)
    close(deep[:, 3], x[:, 0, 0::2, 1::2])


# ---- recurrent layers


def test_a_reversed_layer_gives_its_sequence_as_computed():
    x, h, w, r = rand(4, 2, 3), np.zeros((2, 5), np.float32), rand(5, 3, seed=1), rand(5, 5, seed=2)
    given = [x, C(h), C(w), C(r)]
    backwards, last = meaning("rnn", given, {"direction": "reverse", "output_sequence": True}, results=2)
    forwards, same = meaning("rnn", [x[::-1].copy(), *given[1:]], {"output_sequence": True}, results=2)
    close(backwards, forwards)
    close(last, same)
    close(backwards[-1], last)


def test_gru_resets_before_the_product():
    x, h = rand(3, 2, 4), rand(2, 5, seed=9)
    w, r, bias = rand(15, 4, seed=1), rand(15, 5, seed=2), rand(15, seed=3)
    (wr, wo, wz), (rr, ro, rz), (br, bo, bz) = (np.split(a, 3) for a in (w, r, bias))
    state = h
    for t in range(3):
        z = 1 / (1 + np.exp(-(x[t] @ wz.T + state @ rz.T + bz)))
        reset = 1 / (1 + np.exp(-(x[t] @ wr.T + state @ rr.T + br)))
        o = np.tanh(x[t] @ wo.T + (reset * state) @ ro.T + bo)
        state = (1 - z) * o + z * state
    sequence, last = meaning("gru", [x, C(h), C(w), C(r), C(bias)], {"output_sequence": True}, results=2)
    close(last, state)
    close(sequence[-1], state)
