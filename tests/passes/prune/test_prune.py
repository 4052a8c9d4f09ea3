"""Pruned graphs compute what the whole ones do where nothing takes the channels that went."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.onnx  # noqa: F401 (registers onnx.*)
from compiler import driver, ir
from compiler.execution import evaluate, samples
from compiler.options import Options
from compiler.target import Target
from passes import prune
from tests.compression.conftest import MODEL, SHAPE


def fused(path, shapes=None) -> ir.Module:
    return driver.at_stage(path, "fuse", Options(Target.of("cpu"), shapes or {}))


def assert_agrees(module: ir.Module, amount: float = 0.3) -> prune.Pruned:
    """Prunes; what is left agrees with the masked module, and differs from the whole one."""
    whole, masked = ir.clone_module(module), ir.clone_module(module)
    prune.masked(masked, amount)
    done = prune.run(module, amount)
    ir.verify(module)
    (x,) = samples.generate(whole.main, 1)
    results = [evaluate.run(m, x) for m in (module, masked, whole)]
    for name, got in results[0].items():
        scale = np.linalg.norm(results[2][name])
        assert np.linalg.norm(got - results[1][name]) <= 1e-4 * max(np.linalg.norm(results[1][name]), scale)
    assert done.macs[1] < done.macs[0]
    assert done.parameters[1] < done.parameters[0]
    return done


def test_a_real_network_with_squeeze_and_excitation():
    done = assert_agrees(fused(MODEL, {"x": SHAPE}))
    assert done.macs[1] < 0.65 * done.macs[0]
    assert 0.2 < done.channels / done.of < 0.4


@pytest.mark.parametrize("name", ["efficientnet", "tcn"])
def test_architectures(pairs_dir, name):
    assert_agrees(fused(pairs_dir / name / "model.onnx"))


def conv(b: ir.Builder, x: ir.Value, out: int, group: int = 1, kernel: int = 1) -> ir.Value:
    rng = np.random.default_rng([out, group, kernel])
    channels = x.shape[1]
    w = rng.standard_normal((out, channels // group, kernel, kernel)).astype(np.float32)
    operands = [x, b.constant(w, "onnx"), b.constant(rng.standard_normal(out).astype(np.float32), "onnx")]
    pads = [kernel // 2] * 4
    return b.op("onnx.Conv", operands, {"group": group, "pads": tuple(pads)}).result


def graph(body) -> ir.Module:
    module = ir.Module("m")
    main = module.add(ir.Function("main", {"x": ir.TensorType(ir.F32, (1, 8, 6, 6))}, ["y"]))
    b = ir.Builder(main.block)
    main.set_outputs([body(b, main.inputs[0])])
    return module


def ints(b: ir.Builder, *values: int) -> ir.Value:
    return b.constant(np.array(values, np.int64), "onnx")


def residual(b, x):
    y = conv(b, x, 20)
    z = conv(b, b.op("onnx.Relu", [y]).result, 20, kernel=3)
    return conv(b, b.op("onnx.Add", [y, z]).result, 4)


def concatenated(b, x):
    y = b.op("onnx.Concat", [conv(b, x, 12), x, conv(b, x, 10)], {"axis": 1}).result
    return conv(b, y, 3)


def depthwise(b, x):
    y = conv(b, conv(b, conv(b, x, 16), 16, group=16, kernel=3), 32, group=16)
    return conv(b, y, 5)


def grouped(b, x):
    return conv(b, conv(b, conv(b, x, 24), 36, group=3, kernel=3), 5)


def split(b, x):
    parts = b.op("onnx.Split", [conv(b, x, 20), ints(b, 12, 8)], {"axis": 1}, results=2).results
    return conv(b, b.op("onnx.Concat", [conv(b, parts[0], 6), parts[1]], {"axis": 1}).result, 3)


def flattened(b, x):
    y = b.op("onnx.Reshape", [conv(b, x, 12), ints(b, 1, 12 * 36)]).result
    rng = np.random.default_rng(5)
    return b.op("onnx.Gemm", [y, b.constant(rng.standard_normal((432, 7)).astype(np.float32), "onnx"), None]).result


def normalized(b, x):
    y = conv(b, x, 12)
    rng = np.random.default_rng(5)
    params = [b.constant(rng.random(12).astype(np.float32) + 0.5, "onnx") for _ in range(4)]
    y = b.op("onnx.BatchNormalization", [y, *params], results=1).results[0]
    slope = b.constant(rng.random((12, 1, 1)).astype(np.float32), "onnx")
    return conv(b, b.op("onnx.PRelu", [y, slope]).result, 4)


def transposed(b, x):
    rng = np.random.default_rng(5)
    w = b.constant(rng.standard_normal((14, 9, 2, 2)).astype(np.float32), "onnx")
    y = b.op("onnx.ConvTranspose", [conv(b, x, 14), w, None], {"strides": (2, 2)}).result
    return conv(b, y, 3)


def group_normalized(b, x):
    rng = np.random.default_rng(5)
    scale, bias = (b.constant(rng.random(24).astype(np.float32), "onnx") for _ in range(2))
    y = b.op("onnx.GroupNormalization", [conv(b, x, 24), scale, bias], {"num_groups": 6}).result
    return conv(b, y, 4)


def groups_as_instances(b, x):
    """As PyTorch exports it."""
    rng = np.random.default_rng(5)
    one, zero = (b.constant(np.full(6, v, np.float32), "onnx") for v in (1, 0))
    y = b.op("onnx.Reshape", [conv(b, x, 24), ints(b, 0, 6, -1)]).result
    y = b.op("onnx.InstanceNormalization", [y, one, zero]).result
    y = b.op("onnx.Reshape", [y, ints(b, 1, 24, 6, 6)]).result
    return conv(b, b.op("onnx.Mul", [y, b.constant(rng.random((24, 1, 1)).astype(np.float32), "onnx")]).result, 4)


def instance_normalized(b, x):
    rng = np.random.default_rng(5)
    scale, bias = (b.constant(rng.random(12).astype(np.float32), "onnx") for _ in range(2))
    return conv(b, b.op("onnx.InstanceNormalization", [conv(b, x, 12), scale, bias]).result, 4)


def packed(b, x):
    """Queries, keys and values from one product, as channels (3, heads, each)."""
    y = b.op("onnx.Reshape", [conv(b, x, 3 * 4 * 5), ints(b, 1, 3, 4, 5, 36)]).result
    y = b.op("onnx.Transpose", [y], {"perm": (1, 0, 2, 4, 3)}).result
    q, k, v = (b.op("onnx.Gather", [y, ints(b, i)], {"axis": 0}).result for i in range(3))
    q, k, v = (b.op("onnx.Reshape", [t, ints(b, 1, 4, 36, 5)]).result for t in (q, k, v))
    turned = b.op("onnx.Transpose", [k], {"perm": (0, 1, 3, 2)}).result
    weights = b.op("onnx.Softmax", [b.op("onnx.MatMul", [q, turned]).result], {"axis": -1}).result
    y = b.op("onnx.Transpose", [b.op("onnx.MatMul", [weights, v]).result], {"perm": (0, 1, 3, 2)}).result
    return conv(b, b.op("onnx.Reshape", [y, ints(b, 1, 20, 6, 6)]).result, 4)


@pytest.mark.parametrize(
    ("body", "of"),
    [
        (residual, 20), (concatenated, 22), (depthwise, 16), (grouped, 8 + 12), (split, 26), (flattened, 12),
        (normalized, 12), (transposed, 14 + 9), (group_normalized, 6), (groups_as_instances, 6),
        (instance_normalized, 12), (packed, 4),
    ],
)  # fmt: skip
def test_dependencies(body, of):
    done = assert_agrees(graph(body))
    assert done.of == of  # of each set as many, and outputs stay whole


def test_the_least_channels_go():
    def body(b, x):
        y = conv(b, x, 10)
        y.op.operands[1].op.attributes["value"][[2, 5, 7]] *= 1e-3
        return conv(b, y, 3)

    module = graph(body)
    weight = next(op for op in module.walk() if op.name == "onnx.Conv").operands[1].constant
    prune.run(module, 0.3)
    kept = next(op for op in module.walk() if op.name == "onnx.Conv").operands[1].constant
    np.testing.assert_array_equal(kept, np.delete(weight, [2, 5, 7], axis=0))


def test_what_normalizes_over_channels_keeps_them_all():
    def body(b, x):
        y = b.op("onnx.Transpose", [conv(b, x, 12)], {"perm": (0, 2, 3, 1)}).result
        scale = b.constant(np.ones(12, np.float32), "onnx")
        return b.op("onnx.LayerNormalization", [y, scale, None], {"axis": -1}, results=1).results[0]

    assert prune.run(graph(body), 0.5).channels == 0
