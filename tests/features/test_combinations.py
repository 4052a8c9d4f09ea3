"""Options together, and what cannot be meant: a package that holds, or one sentence and nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import compiler
from compiler import Wishes
from compiler.errors import UnsupportedError, UserError
from compiler.shapes import parse
from tests.test_driver import F, model_of


def scorer(rows: int | str = 1, sides: tuple[int | str, int | str] = (8, 8)) -> onnx.ModelProto:
    """Pictures → scores of five classes."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    weights = {"w": rng.standard_normal((32, 3, 3, 3)), "v": rng.standard_normal((32, 5))}
    return model_of(nodes, {"x": [rows, 3, *sides]}, {"y": F}, {n: a.astype(np.float32) for n, a in weights.items()})


def detector() -> onnx.ModelProto:
    """A row of eight numbers → ten boxes and the scores of three classes."""
    rng = np.random.default_rng(0)
    nodes = []
    for name in ("b", "s"):
        nodes.append(helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_flat"]))
        nodes.append(helper.make_node("Reshape", [f"{name}_flat", f"{name}_to"], [name]))
    held = {
        "b_w": np.abs(rng.standard_normal((8, 40))).astype(np.float32),
        "s_w": rng.standard_normal((8, 30)).astype(np.float32),
        "b_to": np.array([1, 10, 4]),
        "s_to": np.array([1, 10, 3]),
    }
    return model_of(nodes, {"x": [1, 8]}, {"b": F, "s": F}, held)


@pytest.fixture
def five(tmp_path: Path) -> str:
    path = tmp_path / "five.txt"
    path.write_text("a\nb\nc\nd\ne\n")
    return str(path)


def compiled(model: onnx.ModelProto, folder: Path, **options: object) -> compiler.Compilation:
    done = compiler.compile(model, "cpu", folder / "m.mlpackage", **options)  # type: ignore[arg-type]
    assert done.report.verify.passed
    return done


def test_boxes_under_other_names(tmp_path: Path) -> None:
    wishes = Wishes(nms="boxes=b,scores=s", rename={"coordinates": "where", "count": "n"}, io="fp16")
    done = compiled(detector(), tmp_path, wishes=wishes)
    assert {"where", "n", "confidence"} <= set(done.report.verify.outputs)
    assert "coordinates" not in done.report.verify.outputs


def test_a_classifier_of_pictures_of_open_size_under_other_names(tmp_path: Path, five: str) -> None:
    model = scorer(sides=("h", "w"))
    wishes = Wishes(labels=five, images=["x:bgr:scale=1/255"], rename={"classLabel": "name", "x": "picture"})
    done = compiled(model, tmp_path, wishes=wishes, shapes=dict([parse("x=1,3,8..16,8..16")]))
    assert set(done.report.verify.outputs) == {"name", "classLabel_probs"}


@pytest.mark.parametrize("scheme", ["int8", "mixed"])
def test_smaller_weights_where_sizes_are_open(tmp_path: Path, scheme: str) -> None:
    shapes = dict([parse("x=1..3,3,8,8")])
    compiled(scorer("n"), tmp_path, shapes=shapes, quantize=scheme, max_error=0.2, os="ios18")


def test_a_choice_of_one_size_is_that_size() -> None:
    assert parse("x=1|1,3,8|8|16") == ("x", (1, 3, parse("x=8|16")[1][0]))


@pytest.mark.parametrize("rows", ["1..3", "1|2", "2"])
def test_classes_of_several_rows_are_refused(tmp_path: Path, five: str, rows: str) -> None:
    model, shapes = scorer("n"), dict([parse(f"x={rows},3,8,8")])
    with pytest.raises(UserError, match=r"one row of scores|no output has as many"):
        compiler.compile(model, "cpu", tmp_path / "m.mlpackage", shapes=shapes, wishes=Wishes(labels=five))
    assert not (tmp_path / "m.mlpackage").exists()


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"images": ["x:scale=nan"]}, "'nan' in --image x:scale=nan is no number"),
        ({"images": ["x:mean=1/0"]}, "is no number"),
        ({"nms": "boxes=b,scores=s,score=nan"}, "is no number"),
        ({"nms": "boxes=b,scores=s,iou=inf"}, "is no number"),
        ({"nms": "boxes=b,scores=s,max=2.5"}, "is no whole number"),
        ({"nms": "boxes=b,scores=s,class=0.5"}, "is no whole number"),
        ({"nms": "boxes=b,scores=s", "batch": "1,4"}, "--nms is for one picture at a time"),
        ({"labels": "five", "batch": "4"}, "--labels is for one row at a time"),
        ({"metadata": {"planish.rows": "independent"}}, "keys that start with planish. are Planish's"),
    ],
)
def test_what_cannot_be_meant_is_refused(five: str, wishes: dict[str, object], says: str) -> None:
    given = {**wishes, "labels": five} if "labels" in wishes else wishes
    with pytest.raises(UserError, match=says):
        Wishes(**given).interface()  # type: ignore[arg-type]


def test_rows_that_fit_nowhere_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """x + x xᵀ: three rows meet a matrix of three by three."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["m"]),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    model = model_of(nodes, {"x": [1, 6]}, {"y": F})
    with pytest.raises(UnsupportedError, match=r"onnx.Add at node 'y' does not take several rows") as error:
        compiler.compile(model, "cpu", tmp_path / "m.mlpackage", wishes=Wishes(batch="1,4"))
    assert "onnxruntime" not in str(error.value)
