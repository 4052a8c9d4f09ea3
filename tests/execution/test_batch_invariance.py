"""A row gets the same bits alone and among others: on real models, and for the operators that could not do it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import compiler
from compiler.execution import batch_invariance
from compiler.serving.loaded import Loaded

SIZES = (2, 3, 5, 7, 8, 13, 16, 33, 63, 64)


def package(model, path: Path, **options) -> Loaded:
    wishes = compiler.Wishes(batch="1..64")
    return Loaded(Path(compiler.compile(model, "cpu", path, wishes=wishes, verify="off", **options).path))


def differing(loaded: Loaded, arrays: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """The calls and rows in which a row is not what it is alone."""
    alone = [loaded.run({n: a[i : i + 1] for n, a in arrays.items()}) for i in range(64)]
    out = []
    for size in SIZES:
        first = size * 7 % (65 - size)
        together = loaded.run({n: a[first : first + size] for n, a in arrays.items()})
        out += [
            (size, i)
            for i in range(size)
            if any(together[n][i].tobytes() != alone[first + i][n][0].tobytes() for n in together)
        ]
    return out


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("gesture_mlp", {"input": (42,)}),
        ("mtcnn_rnet", {"input_2": (24, 24, 3)}),  # a convolution that threads share in other ways for one picture
        ("mtcnn_onet", {"input_3": (48, 48, 3)}),  # and a Gemm that is another kernel for one row
    ],
)
def test_rows_of_real_models(tmp_path: Path, models_dir: Path, model: str, inputs: dict[str, tuple[int, ...]]) -> None:
    shapes = {n: (1, *s) for n, s in inputs.items()}
    loaded = package(models_dir / model / "model.onnx", tmp_path / "m.mlpackage", shapes=shapes)
    assert loaded.description.rows is not None
    rng = np.random.default_rng(1)
    arrays = {n: rng.standard_normal((64, *s)).astype(np.float32) for n, s in inputs.items()}
    assert differing(loaded, arrays) == []


def graph(nodes, *shape: int, **constants: np.ndarray):
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [helper.make_tensor(n, TensorProto.FLOAT, a.shape, a.reshape(-1)) for n, a in constants.items()]
    made = helper.make_graph(nodes, "g", given, made, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def positive(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(2).random((64, *shape)).astype(np.float32) + 0.01}


def test_one_row_of_a_product_is_no_case_of_its_own(tmp_path: Path) -> None:
    w = np.random.default_rng(3).standard_normal((513, 67)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=-1)]
    loaded = package(graph(nodes, 513, w=w), tmp_path / "m.mlpackage")
    assert loaded.description.rows is not None
    assert differing(loaded, positive(513)) == []


def test_threads_do_not_share_a_product(tmp_path: Path) -> None:
    """They would by columns or by rows, and add partial sums of other lengths."""
    w = np.random.default_rng(3).standard_normal((400, 140)).astype(np.float32)
    loaded = package(graph([helper.make_node("MatMul", ["x", "w"], ["y"])], 50, 400, w=w), tmp_path / "m.mlpackage")
    assert differing(loaded, positive(50, 400)) == []


@pytest.mark.parametrize("function", ["Log", "Sin", "Atan", "Tanh", "Exp"])
def test_functions_whose_values_depend_on_their_place(tmp_path: Path, function: str) -> None:
    """Rows of three elements share no call where a function is one of those, rows of whole packets always do."""
    nodes = [helper.make_node(function, ["x"], ["y"])]
    for width in (3, 16):
        loaded = package(graph(nodes, width), tmp_path / f"{width}.mlpackage")
        if width == 16:
            assert loaded.description.rows is not None
        assert differing(loaded, positive(width)) == []


def test_a_package_that_cannot_be_batched_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's functions do: here one is said to depend on its place."""
    from compiler.execution import packets

    monkeypatch.setattr(packets, "_varies", lambda op: op.name == "onnx.Tanh")
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    assert package(graph(nodes, 3), tmp_path / "3.mlpackage").description.rows is None
    assert package(graph(nodes, 32), tmp_path / "32.mlpackage").description.rows is not None


def test_rows_go_to_all_processors_when_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def call(inputs):
        seen.append([len(a) for a in inputs])
        return [inputs[0] * 2]

    monkeypatch.setattr(batch_invariance, "processors", lambda: 3)
    rows = batch_invariance.Rows({0}, call, lambda shapes: None)
    x, same = np.arange(7.0)[:, None], np.zeros(5)
    assert np.array_equal(rows.run([x, same])[0], x * 2)
    assert seen == [[7, 5]]
    rows._seconds = 1.0
    assert np.array_equal(rows.run([x, same])[0], x * 2)
    assert sorted(seen[1:]) == [[2, 5], [2, 5], [3, 5]]
    rows._seconds = 1.0
    assert np.array_equal(rows.run([x[:3], same])[0], x[:3] * 2)
    assert seen[4:] == [[3, 5]]
    assert np.array_equal(rows.run([x[:1], same])[0], x[:1] * 2)
    assert seen[5:] == [[2, 5]]
    assert len(rows.run([x[:0], same])[0]) == 0
