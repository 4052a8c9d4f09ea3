"""The same settings give the same bits as coremltools' encoders; its loader takes what we write and means the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest

from codegen import mil
from compiler import ir
from passes import compress
from passes.compress import Linear, Palette, Scheme, Sparse

# It divides by the scale 0 of a channel of zeros.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
PRECISIONS = {"fp16": np.float16, "fp32": np.float32}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """coremltools warns of every weight that it skips."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    yield
    logging.disable(before)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """``package(os, precision)``: an uncompressed package by coremltools, with weights of every kind of user."""
    made: dict[tuple[str, str], Path] = {}
    folder = tmp_path_factory.mktemp("packages")

    def get(os: str, precision: str) -> Path:
        if (os, precision) not in made:
            path = made[os, precision] = folder / f"{os}_{precision}.mlpackage"
            program(os, precision).save(str(path))
        return made[os, precision]

    return get


def program(os: str, precision: str) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    rng = np.random.default_rng(0)
    element = {"fp16": types.fp16, "fp32": types.fp32}[precision]

    def weight(*shape):
        spread = 0.02 + rng.random((shape[0],) + (1,) * (len(shape) - 1))
        made = rng.standard_normal(shape) * 0.1 * spread
        made[3] = 0.0  # a dead channel
        return made.astype(PRECISIONS[precision])

    target = getattr(ct.target, os.replace("ios", "iOS"))

    @mb.program(input_specs=[mb.TensorSpec((1, 32, 8, 8), dtype=element)], opset_version=target)
    def f(x):
        y = mb.conv(x=x, weight=weight(64, 32, 3, 3), pad_type="same", name="conv")
        y = mb.conv(x=y, weight=weight(64, 1, 7, 7), groups=64, pad_type="same", name="depthwise")
        y = mb.conv_transpose(x=y, weight=weight(64, 32, 3, 3), name="transposed")
        y = mb.reduce_mean(x=y, axes=[2, 3])
        y = mb.linear(x=y, weight=weight(128, 32), name="linear")
        y = mb.matmul(x=y, y=weight(128, 96), name="product")
        y = mb.matmul(x=y, y=weight(96, 96), transpose_y=True, name="turned")
        return mb.add(x=y, y=weight(30, 96), name="sum")

    return ct.convert(
        f,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT16 if precision == "fp16" else ct.precision.FLOAT32,
        skip_model_load=True,
    )


def theirs(path: Path, config: Any, function: str, *more: tuple[Any, str]) -> ir.Module:
    """What coremltools makes of a package; ``more`` are further, joint compressions."""
    import coremltools.optimize.coreml as cto

    model = ct.models.MLModel(str(path), skip_model_load=True)
    model = getattr(cto, function)(model, cto.OptimizationConfig(global_config=config))
    for joined, name in more:
        model = getattr(cto, name)(model, cto.OptimizationConfig(global_config=joined), joint_compression=True)
    out = path.with_name("theirs.mlpackage")
    model.save(str(out))
    return mil.read(out)


def ours(path: Path, scheme: Scheme, os: str) -> ir.Module:
    module = mil.read(path)
    compress.run(module, scheme, int(os[3:]), fit=False)
    ir.verify(module)
    out = path.with_name("ours.mlpackage")
    mil.write(module, out, os=os)
    return mil.read(out)


def compressed(module: ir.Module) -> list[tuple[str, list[Any]]]:
    """The compressed weights: operators with the types and contents of their operands."""
    ops = [op for op in module.walk() if op.name.startswith("mil.constexpr_")]
    return [(op.name, [None if v is None else (v.type, v.constant) for v in op.operands]) for op in ops]


def assert_same_bits(mine: ir.Module, other: ir.Module) -> None:
    a, b = compressed(mine), compressed(other)
    assert [name for name, _ in a] == [name for name, _ in b]
    assert a
    for (name, left), (_, right) in zip(a, b, strict=True):
        for x, y in zip(left, right, strict=True):
            assert (x is None) == (y is None), name
            if x is not None:
                assert x[0] is y[0], name
                np.testing.assert_array_equal(x[1], y[1], err_msg=name)


@pytest.mark.parametrize(("os", "precision"), [("ios17", "fp16"), ("ios18", "fp32")])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_linear(package, os, precision, dtype, symmetric, granularity):
    import coremltools.optimize.coreml as cto

    mode = "linear_symmetric" if symmetric else "linear"
    config = cto.OpLinearQuantizerConfig(mode=mode, dtype=dtype, granularity=f"per_{granularity}")
    path = package(os, precision)
    scheme = Linear(dtype, symmetric, granularity)
    assert_same_bits(ours(path, scheme, os), theirs(path, config, "linear_quantize_weights"))


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_linear_in_blocks(package, dtype, symmetric):
    import coremltools.optimize.coreml as cto

    mode = "linear_symmetric" if symmetric else "linear"
    config = cto.OpLinearQuantizerConfig(mode=mode, dtype=dtype, granularity="per_block", block_size=16)
    path = package("ios18", "fp16")
    assert_same_bits(
        ours(path, Linear(dtype, symmetric, "block", 16), "ios18"), theirs(path, config, "linear_quantize_weights")
    )


@pytest.mark.parametrize(
    ("os", "scheme", "settings"),
    [
        ("ios17", Palette(4, mode="uniform"), {"nbits": 4}),
        ("ios18", Palette(3, mode="uniform"), {"nbits": 3}),
        ("ios18", Palette(6, 16, mode="uniform"), {"nbits": 6, "granularity": "per_grouped_channel", "group_size": 16}),
    ],
)
def test_evenly_spaced_palettes(package, os, scheme, settings):
    import coremltools.optimize.coreml as cto

    config = cto.OpPalettizerConfig(mode="uniform", **settings)
    path = package(os, "fp16")
    assert_same_bits(ours(path, scheme, os), theirs(path, config, "palettize_weights"))


@pytest.mark.parametrize("bits", [2, 4])
def test_kmeans_palettes(package, bits):
    """From 10 000 halves on coremltools clusters exactly, as we always do; below, it uses scikit-learn, if that is
    there, and gets no smaller an error."""
    import coremltools.optimize.coreml as cto

    path = package("ios17", "fp16")
    mine = ours(path, Palette(bits), "ios17")
    other = theirs(path, cto.OpPalettizerConfig(mode="kmeans", nbits=bits), "palettize_weights")
    originals = [w.op.result.constant for w in compress.weights(mil.read(path))]
    exact = 0
    for whole, a, b in zip(originals, compressed(mine), compressed(other), strict=True):
        if whole.size >= 10_000:
            np.testing.assert_array_equal(a[1][0][1], b[1][0][1])
            np.testing.assert_array_equal(a[1][1][1], b[1][1][1])
            exact += 1
        else:
            lost = [
                np.linalg.norm(table[unpacked(indices, bits, whole.size)] - whole.reshape(-1).astype(np.float32))
                for (_, indices), (_, table) in (a[1], b[1])
            ]
            assert lost[0] <= lost[1] * 1.001  # tables are rounded to half
    assert exact == 3


def unpacked(indices: np.ndarray[Any, Any], bits: int, count: int) -> np.ndarray[Any, Any]:
    spread = np.unpackbits(indices, bitorder="little")[: count * bits].reshape(count, bits)
    return np.packbits(spread, axis=1, bitorder="little").reshape(-1)


@pytest.mark.parametrize(("os", "precision"), [("ios17", "fp16"), ("ios18", "fp32")])
@pytest.mark.parametrize(
    ("scheme", "settings"),
    [(Sparse(amount=0.6), {"target_sparsity": 0.6}), (Sparse(threshold=0.03), None)],
)
def test_sparse(package, os, precision, scheme, settings):
    import coremltools.optimize.coreml as cto

    if settings is None:
        config = cto.OpThresholdPrunerConfig(threshold=0.03, minimum_sparsity_percentile=0.01)
    else:
        config = cto.OpMagnitudePrunerConfig(**settings)
    path = package(os, precision)
    assert_same_bits(ours(path, scheme, os), theirs(path, config, "prune_weights"))


@pytest.mark.parametrize("axis", [0, 1])
def test_patterns(package, axis):
    """coremltools prunes by patterns what convolutions and linear layers use; we prune products of matrices too."""
    import coremltools.optimize.coreml as cto

    path = package("ios18", "fp16")
    config = cto.OpMagnitudePrunerConfig(n_m_ratio=(3, 4), dim=axis)
    other = compressed(theirs(path, config, "prune_weights"))
    mine = compressed(ours(path, Sparse(pattern=(3, 4), axis=axis), "ios18"))
    assert len(other) >= 2
    for _, (values, mask) in other:
        same = [m for m in mine if m[1][1][0] is mask[0] and np.array_equal(m[1][1][1], mask[1])]
        assert any(np.array_equal(m[1][0][1], values[1]) for m in same)


@pytest.mark.parametrize("values", [Linear(), Palette(4, mode="uniform")])
def test_joint_forms(package, values):
    import coremltools.optimize.coreml as cto

    if isinstance(values, Linear):
        joined = (cto.OpLinearQuantizerConfig(mode="linear_symmetric"), "linear_quantize_weights")
    else:
        joined = (cto.OpPalettizerConfig(mode="uniform", nbits=4), "palettize_weights")
    path = package("ios18", "fp16")
    other = theirs(path, cto.OpMagnitudePrunerConfig(target_sparsity=0.6), "prune_weights", joined)
    assert_same_bits(ours(path, Sparse(0.6, values=values), "ios18"), other)


@pytest.mark.parametrize(
    ("os", "scheme"),
    [
        ("ios16", Linear()),
        ("ios16", Palette(6)),
        ("ios16", Sparse(0.5)),
        ("ios18", Linear("uint4", False, "block", 16)),
        ("ios18", Palette(4, 16, channel_scale=True)),
        ("ios18", Palette(4, quantized=True)),
        ("ios18", Sparse(0.5, values=Palette(3))),
    ],
)
def test_its_loader_decompresses_to_what_the_encoder_says(package, os, scheme):
    import coremltools.optimize.coreml as cto

    path = package(os, "fp32")
    module = mil.read(path)
    records = {r.name: r for r in compress.run(module, scheme, int(os[3:])) if r.scheme is not None}
    assert len(records) >= 5
    out = path.with_name("loaded.mlpackage")
    mil.write(module, out, os=os)
    plain = cto.decompress_weights(ct.models.MLModel(str(out), skip_model_load=True))
    plain.save(str(out))
    dense = {op.result.name: op.result.constant for op in mil.read(out).walk() if op.name == "mil.const"}
    for name, record in records.items():
        np.testing.assert_array_equal(dense[name], record.dense)
