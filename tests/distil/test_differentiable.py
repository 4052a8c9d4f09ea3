"""The IR as a function of JAX computes what onnxruntime computes, and its slopes are those of differences."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler import frontend
from compiler.distil.differentiable import Differentiable, Quantizer
from compiler.driver import Options, at_stage
from compiler.errors import UnsupportedError
from compiler.execution import evaluate, samples
from compiler.ir import Module

RNG = np.random.default_rng(0)


def module_of(op: str, inputs: list[np.ndarray], **attributes: object) -> tuple[Module, dict[str, np.ndarray]]:
    """One operator whose first operand is an input; the others are constants."""
    names = ["x", *(f"c{i}" for i in range(len(inputs) - 1))]
    node = helper.make_node(op, names, ["y"], **attributes)
    constants = [numpy_helper.from_array(a, n) for n, a in zip(names[1:], inputs[1:], strict=True)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs[0].shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [x], [y], constants)
    return frontend.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])), {"x": inputs[0]}


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES = {
    "conv": (
        "Conv",
        [normal(2, 4, 9, 7), normal(6, 2, 3, 3), normal(6)],
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]},
    ),
    "conv of one axis, dilated": ("Conv", [normal(1, 3, 12), normal(5, 3, 3)], {"dilations": [2]}),
    "conv, same": ("Conv", [normal(1, 3, 8, 7), normal(5, 3, 4, 3)], {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
    "max pool, sizes up": (
        "MaxPool",
        [normal(1, 2, 7, 8)],
        {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1},
    ),
    "average pool": ("AveragePool", [normal(1, 2, 7, 8)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average pool, padding counted": (
        "AveragePool",
        [normal(1, 2, 7, 8)],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "gemm": ("Gemm", [normal(3, 4), normal(5, 4), normal(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "layer norm": ("LayerNormalization", [normal(2, 3, 8), normal(8), normal(8)], {"epsilon": 1e-3}),
    "group norm": ("GroupNormalization", [normal(2, 6, 5, 4), normal(6), normal(6)], {"num_groups": 3}),
    "einsum": ("Einsum", [normal(2, 3, 5), normal(2, 4, 5)], {"equation": "bik,bjk->bij"}),
    "instance norm": ("InstanceNormalization", [normal(2, 3, 5, 4), normal(3), normal(3)], {}),
    "batch norm": ("BatchNormalization", [normal(2, 3, 4, 4), normal(3), normal(3), normal(3), np.abs(normal(3))], {}),
    "slice backwards": ("Slice", [normal(5, 6), ints(4, -1), ints(-9, 1), ints(0, 1), ints(-2, -1)], {}),
    "split": ("Split", [normal(6, 4), ints(1, 2, 3)], {"axis": 0}),
    "pad": ("Pad", [normal(3, 4), ints(1, 2), np.float32(0.5), ints(1)], {}),
    "pad, reflected": ("Pad", [normal(3, 5), ints(1, 2, 0, 1)], {"mode": "reflect"}),
    "reduce mean": ("ReduceMean", [normal(2, 3, 4), ints(0, -1)], {"keepdims": 0}),
    "reduce log-sum-exp": ("ReduceLogSumExp", [normal(2, 3, 4), ints(1)], {}),
    "gather from behind": ("Gather", [normal(4, 3), ints(0, -1, 2)], {"axis": 0}),
    "depth to space": ("DepthToSpace", [normal(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    "depth to space, by blocks": ("DepthToSpace", [normal(1, 8, 2, 3)], {"blocksize": 2}),
    "hard sigmoid": ("HardSigmoid", [normal(3, 4)], {"alpha": 0.3}),
    "prelu": ("PRelu", [normal(1, 3, 2, 2), normal(3, 1, 1)], {}),
    "gelu": ("Gelu", [normal(3, 4)], {"approximate": "tanh"}),
    "reshape": ("Reshape", [normal(2, 3, 4), ints(0, -1)], {}),
    "transpose": ("Transpose", [normal(2, 3, 4)], {"perm": [2, 0, 1]}),
    "softmax": ("Softmax", [normal(2, 3, 4)], {"axis": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnxruntime_computes(name: str) -> None:
    op, inputs, attributes = CASES[name]
    module, given = module_of(op, inputs, **attributes) if op != "Split" else _split(inputs, attributes)
    expected = evaluate.Session(module).run(given)
    function = Differentiable(module.main)
    for ours, theirs in zip(function(function.parameters, given), expected, strict=True):
        assert np.shape(ours) == theirs.shape
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def _split(inputs: list[np.ndarray], attributes: dict[str, object]) -> tuple[Module, dict[str, np.ndarray]]:
    node = helper.make_node("Split", ["x", "s"], ["a", "b", "c"], **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs[0].shape)
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "abc"]
    graph = helper.make_graph([node], "g", [x], outs, [numpy_helper.from_array(inputs[1], "s")])
    return frontend.load(helper.make_model(graph)), {"x": inputs[0]}


@pytest.mark.parametrize("name", ["ppocr_cls", "mtcnn_onet", "dnsmos", "espcn"])
def test_a_real_model_computes_what_onnxruntime_computes(name: str, models_dir: Path) -> None:
    folder = models_dir / name
    with np.load(folder / "io.npz") as io:
        given = {k.removeprefix("in:"): io[k] for k in io.files if k.startswith("in:")}
    options = Options(shapes={k: v.shape for k, v in given.items()})
    module = at_stage(folder / "model.onnx", "fuse", options)
    expected = evaluate.Session(module).run(given)
    function = Differentiable(module.main)
    for ours, theirs in zip(jax.jit(function)(function.parameters, given), expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize("name", ["bert", "einsum_attention"])
def test_a_transformer_computes_what_onnxruntime_computes(name: str, pairs_dir: Path) -> None:
    module = at_stage(pairs_dir / name / "model.onnx", "fuse", Options())
    (given,) = samples.generate(module.main, 1)
    expected = ort.InferenceSession(pairs_dir / name / "model.onnx").run(None, given)
    function = Differentiable(module.main)
    for ours, theirs in zip(function(function.parameters, given), expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_slopes_are_those_of_differences() -> None:
    module, given = module_of("Conv", [normal(1, 2, 6, 6), normal(3, 2, 3, 3), normal(3)])
    function = Differentiable(module.main)

    def loss(parameters: dict[str, jax.Array]) -> jax.Array:
        return jnp.square(function(parameters, given)[0]).sum()

    slopes = jax.grad(loss)({k: jnp.asarray(v) for k, v in function.parameters.items()})
    assert len(slopes) == 2
    for name, slope in slopes.items():
        direction = normal(*slope.shape)
        moved = [{**function.parameters, name: function.parameters[name] + s * 1e-2 * direction} for s in (1, -1)]
        difference = float(loss(moved[0]) - loss(moved[1])) / 2e-2  # exact for a square
        assert float(jnp.vdot(slope, direction)) == pytest.approx(difference, rel=1e-3)


def test_a_quantizer_rounds_forward_and_passes_slopes_through() -> None:
    module, given = module_of("Gemm", [normal(1, 4), normal(4, 5)])
    function = Differentiable(module.main)
    name = next(iter(function.parameters))
    quantizer = Quantizer(4)
    weight = function.parameters[name]
    scale = np.abs(weight).max(0, keepdims=True) / 7
    rounded = given["x"] @ (np.round(weight / scale) * scale)
    assert np.allclose(function(function.parameters, given, (), quantizer)[0], rounded, atol=1e-5)
    slope = jax.grad(lambda p: function(p, given, (), quantizer)[0].sum())({name: jnp.asarray(weight)})[name]
    assert np.allclose(slope, np.broadcast_to(given["x"].T, weight.shape), atol=1e-6)


def test_what_is_not_differentiated_is_refused_by_name() -> None:
    module, _ = module_of("CumSum", [normal(4), np.int64(0)])
    with pytest.raises(UnsupportedError, match=r"onnx\.CumSum.* is not differentiated here"):
        Differentiable(module.main)


def test_trained_parameters_are_stored_where_the_file_finds_them() -> None:
    module, given = module_of("Gemm", [normal(1, 4), normal(4, 5)])
    function = Differentiable(module.main)
    function.store({k: 2 * v for k, v in function.parameters.items()})
    model = evaluate.to_onnx(module)
    onnx.checker.check_model(model)
    assert np.allclose(evaluate.Session(module).run(given)[0], 2 * function(function.parameters, given)[0], atol=1e-5)
