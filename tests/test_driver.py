"""The road: public API, report, ONNX backend, automatic fp32, flexible shapes, and writing whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler.errors import UnsupportedError, UserError, VerificationError
from compiler.output import Output
from compiler.proof import read_package
from compiler.target import Target

F = TensorProto.FLOAT


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, int],
    constants: dict[str, np.ndarray] | None = None,
    input_type: int = F,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, input_type, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def linear(n: int = 4) -> onnx.ModelProto:
    w = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], "mm"), helper.make_node("Relu", ["a"], ["y"], "relu")]
    return model_of(nodes, {"x": [1, n]}, {"y": F}, {"w": w})


def test_compile_takes_a_model_in_memory(tmp_path: Path) -> None:
    done = compiler.compile(linear(), "ane", tmp_path / "m.mlpackage")
    assert done.path == tmp_path / "m.mlpackage"
    assert done.report.verify.status == "passed"
    assert all(op.defn.dialect in ("mil", "ir") for op in done.module.walk())
    json.dumps(done.report.to_json(), allow_nan=False)


def test_a_package_says_where_it_comes_from(tmp_path: Path) -> None:
    done = compiler.compile(linear(), "cpu", tmp_path / "m.mlpackage", verify="off")
    attributes = read_package(done.path).attributes
    for key in ("source.sha256", "rules.sha256", "version"):
        assert attributes[f"metadata.planish.{key}"]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    for arguments in ({"target": "anee"}, {"os": "ios7"}, {"precision": "fp61"}):
        with pytest.raises(UserError, match=r"no .* is called"):
            compiler.compile(linear(), **{"target": "cpu", **arguments})  # type: ignore[arg-type]


def test_the_target_answers_what_rules_ask() -> None:
    import compiler.dialects.mil  # noqa: F401 (registers mil.*)

    target = Target.of("ane", "ios17")
    assert (target.unit, target.ios, target.precision) == ("ane", 17, "fp16")
    assert Target.of("cpu").precision == "fp32"
    assert target.supports("mil.conv")
    assert not target.supports("mil.scaled_dot_product_attention")
    assert Target.of("ane", "ios18").supports("mil.scaled_dot_product_attention")


def test_an_epsilon_that_vanishes_keeps_its_operators_in_fp32(tmp_path: Path) -> None:
    """log(max(x, 1e-10)), as mel spectrograms have it: in half precision the guard is 0 and its logarithm -inf."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Max", ["a", "eps"], ["b"], "guard"),
        helper.make_node("Log", ["b"], ["c"], "log"),
        helper.make_node("Tanh", ["c"], ["d"], "tanh"),
        helper.make_node("Add", ["c", "d"], ["y"], "add"),
    ]
    constants = {"eps": np.array(1e-10, np.float32)}
    done = compiler.compile(model_of(nodes, {"x": [1, 64]}, {"y": F}, constants), "ane", tmp_path / "m.mlpackage")
    kept = {k["node"]: k["reason"] for k in done.report.kept}
    assert {"guard", "log"} <= kept.keys()
    assert "tanh" not in kept
    assert "vanishes" in kept["guard"]


def test_a_small_guard_is_scaled_with_what_it_guards(tmp_path: Path) -> None:
    """Beside values of 1e-7 a guard of 1e-10 is no smaller than half precision holds; the logarithm takes no scale."""
    nodes = [
        helper.make_node("Mul", ["x", "small"], ["a"], "scale"),
        helper.make_node("Max", ["a", "eps"], ["b"], "guard"),
        helper.make_node("Log", ["b"], ["y"], "log"),
    ]
    constants = {"eps": np.array(1e-10, np.float32), "small": np.array(1e-7, np.float32)}
    done = compiler.compile(model_of(nodes, {"x": [1, 64]}, {"y": F}, constants), "ane", tmp_path / "m.mlpackage")
    assert [k["op"] for k in done.report.kept] == ["mil.mul", "mil.log"]


def test_values_that_overflow_keep_their_operators_in_fp32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["a"], "blow"),
        helper.make_node("Mul", ["a", "a"], ["b"], "square"),
        helper.make_node("ReduceMean", ["b"], ["m"], "mean", axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["m"], ["s"], "sqrt"),
        helper.make_node("Div", ["a", "s"], ["n"], "norm"),
        helper.make_node("Sin", ["n"], ["y"], "sin"),
    ]
    constants = {"big": np.array(3000.0, np.float32)}
    done = compiler.compile(model_of(nodes, {"x": [1, 64]}, {"y": F}, constants), "ane", tmp_path / "m.mlpackage")
    kept = {k["node"] for k in done.report.kept}
    assert {"square", "mean"} <= kept
    assert "sin" not in kept
    assert any("f32" in note for note in done.report.notes)
    assert done.report.verify.passed


def test_cancellation_is_found_by_search(tmp_path: Path) -> None:
    """(x + 1000) - 1000 loses all but the first digits in half precision, without a value out of range."""
    nodes = [
        helper.make_node("Add", ["x", "k"], ["a"], "up"),
        helper.make_node("Sigmoid", ["x"], ["g"], "gate"),
        helper.make_node("Sub", ["a", "k"], ["b"], "down"),
        helper.make_node("Mul", ["b", "g"], ["y"], "gated"),
    ]
    model = model_of(nodes, {"x": [1, 64]}, {"y": F}, {"k": np.full((1, 64), 1000.0, np.float32)})
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", disable_rules=())
    assert done.report.verify.passed


def test_a_wrong_rule_is_located_by_operator_and_by_name(tmp_path: Path) -> None:
    rules = tmp_path / "wrong.rules"
    rules.write_text(
        "stage fuse\nuse onnx\nrule relu_is_sigmoid {\n  match { y = Relu(x) }\n  rewrite { y = Sigmoid(x) }\n}\n"
    )
    with pytest.raises(VerificationError) as error:
        compiler.compile(linear(), "cpu", tmp_path / "m.mlpackage", rules=[rules])
    assert "'relu'" in error.value.message
    assert "relu_is_sigmoid" in error.value.message
    assert error.value.remedy == "--disable-rule relu_is_sigmoid"
    assert error.value.report.verify.status == "failed"  # type: ignore[attr-defined]
    assert not (tmp_path / "m.mlpackage").exists()


def test_an_operator_without_lowering_is_named_with_its_node(tmp_path: Path) -> None:
    nodes = [helper.make_node("StringConcat", ["x", "x"], ["y"], "glue")]
    model = model_of(nodes, {"x": [2]}, {"y": TensorProto.STRING}, input_type=TensorProto.STRING)
    model.opset_import[0].version = 20
    with pytest.raises(UnsupportedError, match="glue"):
        compiler.compile(model, "cpu", tmp_path / "m.mlpackage", verify="off")
    assert list(tmp_path.iterdir()) == []


def test_flexible_shapes_are_written_and_proven(tmp_path: Path) -> None:
    from compiler.shapes import Choice, Span

    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1] * 4), helper.make_node("Relu", ["a"], ["y"])]
    model = model_of(nodes, {"x": [1, 3, "H", "W"]}, {"y": F}, weights)
    for name, size in (("range", Span(8, 16)), ("shapes", Choice((8, 12)))):
        path = tmp_path / f"{name}.mlpackage"
        done = compiler.compile(model, "cpu", path, shapes={"x": (1, 3, size, 8)})
        assert done.report.verify.passed
        assert f"{name}.x" in read_package(path).main.attributes


def test_what_is_written_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a" / "m.mlpackage"

    def fail() -> None:
        with Output(target) as out:
            out.draft.mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(target.parent.iterdir()) == []
    for content in ("first", "second"):
        with Output(target) as out:
            out.draft.mkdir()
            (out.draft / "Manifest.json").write_text(content)
            out.publish()
        assert (target / "Manifest.json").read_text() == content
    with pytest.raises(RuntimeError):
        fail()
    assert (target / "Manifest.json").read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


class TestOnnxBackend:
    def test_results_have_declared_types_and_names(self) -> None:
        nodes = [
            helper.make_node("ArgMax", ["x"], ["label"], "argmax", axis=1, keepdims=0),
            helper.make_node("Softmax", ["x"], ["p"], "softmax", axis=1),
        ]
        model = model_of(nodes, {"x": [2, 5]}, {"label": TensorProto.INT64, "p": F})
        x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
        label, p = compiler.onnx_backend.run_model(model, [x])
        assert label.dtype == np.int64
        assert p.dtype == np.float32
        np.testing.assert_array_equal(label, x.argmax(1))
        e = np.exp(x - x.max(1, keepdims=True))
        np.testing.assert_allclose(p, e / e.sum(1, keepdims=True), rtol=1e-5)

    def test_prepare_runs_as_often_as_wanted(self) -> None:
        model = linear()
        rep = compiler.onnx_backend.prepare(model)
        w = numpy_helper.to_array(model.graph.initializer[0])
        for seed in (1, 2):
            x = np.random.default_rng(seed).standard_normal((1, 4)).astype(np.float32)
            for given in ([x], x, {"x": x}):
                np.testing.assert_allclose(rep.run(given)[0], np.maximum(x @ w, 0), rtol=1e-5, atol=1e-6)
        with pytest.raises(UserError, match="1 inputs, 2 arrays"):
            rep.run([x, x])

    def test_supports_the_cpu_alone(self) -> None:
        assert compiler.onnx_backend.supports_device("CPU")
        assert not compiler.onnx_backend.supports_device("CUDA")
