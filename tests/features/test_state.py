"""States: what comes back stays inside Core ML, held against onnxruntime that is fed back by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler import Wishes
from compiler.driver import Options, load_library
from compiler.errors import UserError
from compiler.execution.calls import run_calls
from compiler.proof import Reference, compare, read_package
from tests.cli.test_cli import Run
from tests.features.apple import feature, spec_of

F = TensorProto.FLOAT
HEADS, LENGTH, DEPTH = 2, 6, 4


def decoder() -> onnx.ModelProto:
    """One step of attention over a cache of keys and values that is written at ``position``."""
    rng = np.random.default_rng(0)
    weights = {f"w{n}": rng.standard_normal((HEADS * DEPTH, HEADS * DEPTH)).astype(np.float32) * 0.5 for n in "qkv"}
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["position", "zero"], ["row"]),
        node("Equal", ["steps", "row"], ["here"]),  # [LENGTH] == [1, 1]
        node("Reshape", ["here", "column"], ["mask"]),  # 1 × 1 × LENGTH × 1
        node("LessOrEqual", ["steps", "row"], ["seen"]),
        node("Reshape", ["seen", "line"], ["past"]),  # 1 × 1 × 1 × LENGTH
    ]
    for n in "qkv":
        nodes += [
            node("MatMul", ["x", f"w{n}"], [f"{n}_flat"], f"project_{n}"),
            node("Reshape", [f"{n}_flat", "heads"], [n]),  # 1 × HEADS × 1 × DEPTH
        ]
    for n in "kv":
        nodes.append(node("Where", ["mask", n, f"{n}_cache"], [f"{n}_cache_out"], f"write_{n}"))
    nodes += [
        node("Transpose", ["k_cache_out"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Where", ["past", "scores", "low"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "v_cache_out"], ["mixed"], "mix"),
        node("Reshape", ["mixed", "flat"], ["y"]),
    ]
    cache = [1, HEADS, LENGTH, DEPTH]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("x", F, [1, HEADS * DEPTH]),
            helper.make_tensor_value_info("position", TensorProto.INT64, [1]),
            *(helper.make_tensor_value_info(f"{n}_cache", F, cache) for n in "kv"),
        ],
        [
            helper.make_tensor_value_info("y", F, [1, HEADS * DEPTH]),
            *(helper.make_tensor_value_info(f"{n}_cache_out", F, cache) for n in "kv"),
        ],
        [
            *(numpy_helper.from_array(a, n) for n, a in weights.items()),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
            numpy_helper.from_array(np.arange(LENGTH, dtype=np.int64), "steps"),
            numpy_helper.from_array(np.array([1, 1, LENGTH, 1], np.int64), "column"),
            numpy_helper.from_array(np.array([1, 1, 1, LENGTH], np.int64), "line"),
            numpy_helper.from_array(np.array([1, HEADS, 1, DEPTH], np.int64), "heads"),
            numpy_helper.from_array(np.array([1, HEADS * DEPTH], np.int64), "flat"),
            numpy_helper.from_array(np.array(-1e4, np.float32), "low"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def fed_back(
    model: onnx.ModelProto | Path, calls: list[dict[str, np.ndarray]], pairs: dict[str, str]
) -> list[np.ndarray]:
    """The first output of onnxruntime at each call, states fed back by hand."""
    reference = Reference(model)
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in reference._session.get_inputs()}
    held = {n: np.zeros(shapes[n], np.float32) for n in pairs}
    out = []
    for one in calls:
        results = dict(zip(reference.output_names, reference.run({**one, **held}), strict=True))
        held = {n: results[r] for n, r in pairs.items()}
        out.append(next(results[n] for n in reference.output_names if n not in pairs.values()))
    return out


CACHES = {"k_cache": "k_cache_out", "v_cache": "v_cache_out"}


@pytest.mark.parametrize("target", ["ane", "cpu"])
def test_a_cache_of_keys_and_values(tmp_path: Path, target: str) -> None:
    path = tmp_path / "m.mlpackage"
    wishes = Wishes(states=[f"{a}:{b}" for a, b in CACHES.items()])
    done = compiler.compile(decoder(), target, path, os="ios18", wishes=wishes)  # type: ignore[arg-type]
    assert done.report.verify.passed
    assert done.report.verify.sets == 8
    spec = spec_of(path)
    assert [i.name for i in spec.description.input] == ["x", "position"]
    assert [o.name for o in spec.description.output] == ["y"]
    state = feature(spec, "k_cache", "state").stateType.arrayType
    assert list(state.shape) == [1, HEADS, LENGTH, DEPTH]
    assert state.dataType == state.FLOAT16
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((LENGTH, 1, HEADS * DEPTH)).astype(np.float32)
    positions = np.arange(LENGTH)[:, None]
    calls = [{"x": x, "position": p} for x, p in zip(xs, positions, strict=True)]
    want = fed_back(decoder(), calls, CACHES)
    got = run_calls(read_package(path), load_library(Options()), {"x": xs, "position": positions})["y"]
    assert got.shape == (LENGTH, 1, HEADS * DEPTH)
    for a, b in zip(got, want, strict=True):
        assert compare(a, b).rel_l2 < 5e-3
    # Without what the calls before left behind, the later ones would be far off.
    alone = run_calls(read_package(path), load_library(Options()), calls[-1])["y"]
    assert compare(alone, want[-1]).rel_l2 > 0.1


@pytest.mark.parametrize(
    ("name", "shapes", "pairs"),
    [
        ("silero_vad_16k", {"input": (1, 576)}, {"state": "stateN"}),
        ("silero_vad_op18", {"input": (1, 576)}, {"state": "stateN"}),
        ("fsmn_vad", {"speech": (1, 10, 400)}, {f"in_cache{i}": f"out_cache{i}" for i in range(4)}),
    ],
)
def test_streaming_models(models_dir: Path, tmp_path: Path, name: str, shapes: dict, pairs: dict[str, str]) -> None:
    path = tmp_path / "m.mlpackage"
    model = models_dir / name / "model.onnx"
    wishes = Wishes(states=[f"{a}:{b}" for a, b in pairs.items()])
    done = compiler.compile(model, "cpu", path, os="ios18", shapes=shapes, wishes=wishes)
    assert done.report.verify.passed
    rng = np.random.default_rng(2)
    key, shape = next(iter(shapes.items()))
    sequence = (0.3 * rng.standard_normal((12, *shape))).astype(np.float32)
    rest = {"sr": np.array(16000)} if name.startswith("silero") else {}
    want = fed_back(model, [{key: one, **rest} for one in sequence], pairs)
    library = load_library(Options())
    got = run_calls(read_package(path), library, {key: sequence, **rest})
    for a, b in zip(next(iter(got.values())), want, strict=True):
        assert compare(a, b).rel_l2 < 5e-3


def test_a_state_of_apples_converter(tmp_path: Path) -> None:
    """An accumulator that coremltools builds: the state is read, added to, and written."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    @mb.program(
        input_specs=[mb.TensorSpec((3,), types.fp16), mb.StateTensorSpec((3,), types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, total):  # type: ignore[no-untyped-def]
        held = mb.read_state(input=total)
        new = mb.add(x=held, y=x)
        updated = mb.coreml_update_state(state=total, value=new)
        return mb.mul(x=updated, y=np.float16(2), name="y")

    made = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18, skip_model_load=True)
    made.save(str(tmp_path / "m.mlpackage"))
    xs = np.array([[1, 2, 3], [10, 20, 30], [100, 200, 300]], np.float32)
    got = run_calls(read_package(tmp_path / "m.mlpackage"), load_library(Options()), {"x": xs})
    np.testing.assert_array_equal(next(iter(got.values())), 2 * np.cumsum(xs, 0))


def test_export_shows_states_as_inputs_and_outputs(tmp_path: Path) -> None:
    from compiler.export_package import package_to_onnx

    path = tmp_path / "m.mlpackage"
    wishes = Wishes(states=[f"{a}:{b}" for a, b in CACHES.items()])
    compiler.compile(decoder(), "cpu", path, os="ios18", verify="off", wishes=wishes)
    model = package_to_onnx(read_package(path), load_library(Options()))
    assert [o.name for o in model.graph.output] == ["y", "k_cache_out", "v_cache_out"]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--state", "k_cache:k_cache_out"), "states need iOS 18"),
        (("--os", "ios18", "--state", "k_cache"), "not of the form IN:OUT"),
        (("--os", "ios18", "--state", "k_cach:k_cache_out"), "'k_cach', which is no input; did you mean"),
        (("--os", "ios18", "--state", "k_cache:y"), "cannot come back as 'k_cache'"),
        (("--os", "ios18", "--state", "position:y"), "Core ML keeps states in half precision"),
        (("--os", "ios18", "--state", "k_cache:y", "--state", "k_cache:k_cache_out"), "another --state names"),
    ],
)
def test_bad_pairs(compile_: Run, tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    onnx.save(decoder(), tmp_path / "m.onnx")
    code, _, err = compile_(tmp_path / "m.onnx", *options)
    assert code == 2
    assert part in err


def test_calls_on_the_command_line(compile_: Run, planish: Run, tmp_path: Path) -> None:
    onnx.save(decoder(), tmp_path / "m.onnx")
    options = [word for a, b in CACHES.items() for word in ("--state", f"{a}:{b}")]
    xs = np.random.default_rng(1).standard_normal((3, 1, HEADS * DEPTH)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=xs, position=np.arange(3)[:, None])
    code, out, err = compile_(tmp_path / "m.onnx", "--os", "ios18", *options, "--inputs", "in.npz")
    assert code == 0, err
    assert "half precision, as Core ML has them" in out
    code, out, err = planish("run", "m.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz")
    assert code == 0, err
    assert "y  float32[3, 1, 8]" in out
    np.savez(tmp_path / "in.npz", x=xs, position=np.arange(2)[:, None])
    code, _, err = planish("run", "m.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz")
    assert code == 2
    assert "different numbers of calls" in err


def test_an_output_must_remain(tmp_path: Path) -> None:
    wishes = Wishes(states=["x:y"])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", F, [2])],
        [helper.make_tensor_value_info("y", F, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UserError, match="a package must give something"):
        compiler.compile(model, "cpu", tmp_path / "m.mlpackage", os="ios18", wishes=wishes)
