"""``planish export``: a package as an ONNX model that others can check, run and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import compiler
from compiler.driver import Options, load_library
from compiler.errors import UserError
from compiler.export_package import package_to_onnx
from compiler.proof import compare, read_package
from compiler.shapes import Span
from tests.cli.test_cli import Run
from tests.features.test_dynamic_shapes import pooled


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


def test_a_package_of_apples_converter(pairs_dir: Path, tmp_path: Path, planish: Run) -> None:
    folder = pairs_dir / "vit"
    code, out, err = planish("export", folder / "apple.mlpackage", "vit.onnx")
    assert code == 0, err
    assert "nodes" in out
    model = onnx.load(tmp_path / "vit.onnx")
    onnx.checker.check_model(model, full_check=True)
    with np.load(folder / "io.npz") as io:
        assert compare(run(model, {"in0": io["in0"]})[0], io["out0"]).rel_l2 < 2e-3
    assert all(t.data_type != onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    names = [*(n.name for n in model.graph.node), *(v for n in model.graph.node for v in n.output)]
    assert not [n for n in names if "cast_fp16" in n or not n]
    assert {"query_1", "linear_0", "conv_proj_weight"} <= {*names, *(t.name for t in model.graph.initializer)}


def test_rounding_is_kept_on_request(pairs_dir: Path) -> None:
    folder = pairs_dir / "espcn"
    library = load_library(Options())
    rounded = package_to_onnx(read_package(folder / "apple.mlpackage"), library, rounding=True)
    kinds = [a.i for n in rounded.graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"]
    assert onnx.TensorProto.FLOAT16 in kinds


def test_open_shapes_stay_open_or_are_given(tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    model = pooled()
    compiler.compile(model, "cpu", path, shapes={"x": (1, 2, Span(5, 12), 8)})
    x = np.random.default_rng(0).standard_normal((1, 2, 9, 8)).astype(np.float32)
    want = run(model, {"x": x})[0]
    library = load_library(Options())
    fixed = package_to_onnx(read_package(path), library, {"x": (1, 2, 9, 8)})
    assert compare(run(fixed, {"x": x})[0], want).rel_l2 < 1e-6
    with pytest.raises(UserError, match="the package has"):
        package_to_onnx(read_package(path), library, {"x": (1, 3, 9, 8)})
    with pytest.raises(UserError, match="no input 'X'"):
        package_to_onnx(read_package(path), library, {"X": (1, 2, 9, 8)})


def test_the_benchmark_reads_a_pair(pairs_dir: Path, tmp_path: Path) -> None:
    from benchmarks.reader import LIMIT, measure

    row = measure(pairs_dir / "ranking", tmp_path)
    assert not row["said"]
    assert row["run"] <= LIMIT  # type: ignore[operator]
    assert row["export"] <= LIMIT  # type: ignore[operator]
