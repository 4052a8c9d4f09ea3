"""A detector's boxes through Core ML's non-maximum suppression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import compiler
from compiler import Wishes
from compiler.driver import Options, load_library
from compiler.errors import UserError
from compiler.execution.calls import run_calls
from compiler.features.nms import parse
from compiler.features.nms_program import Part
from compiler.proof import read_package
from tests.features.apple import spec_of
from tests.test_driver import F, model_of

BOXES, CLASSES = 60, 3


def detector(form: str) -> onnx.ModelProto:
    """Gives out the boxes and the scores that it is given, times one."""
    nodes = [helper.make_node("Mul", [n, "one"], [f"{n}_out"]) for n in ("b", "s")]
    shapes = {"b": [1, BOXES, 4], "s": [1, CLASSES, BOXES]}
    if form == "center":
        shapes = {"b": [1, 4, BOXES], "s": [1, BOXES, CLASSES]}
    return model_of(nodes, shapes, {"b_out": F, "s_out": F}, {"one": np.array([1], np.float32)})


def greedy(corners: np.ndarray, scores: np.ndarray, iou: float, least: float, most: int) -> list[int]:
    """Suppression as every textbook has it: corners 4 × boxes, scores classes × boxes."""
    best = scores.max(0)
    chosen: list[int] = []
    for i in np.argsort(-best, kind="stable"):
        if best[i] <= least or len(chosen) == most:
            break
        x1, y1, x2, y2 = corners[:, i]
        for j in chosen:
            u1, v1, u2, v2 = corners[:, j]
            inter = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
            if inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter) > iou:
                break
        else:
            chosen.append(int(i))
    return chosen


@pytest.mark.parametrize("form", ["corners", "center"])
@pytest.mark.parametrize("most", [5, 40])
def test_the_boxes_that_a_textbook_keeps(tmp_path: Path, form: str, most: int) -> None:
    path = tmp_path / "m.mlpackage"
    wish = f"boxes=b_out,scores=s_out,iou=0.4,score=0.3,max={most},format={form}"
    done = compiler.compile(detector(form), "cpu", path, wishes=Wishes(nms=wish))
    assert done.report.verify.passed
    assert set(done.report.verify.outputs) >= {"coordinates", "confidence", "index", "count", "nms_boxes", "nms_scores"}
    spec_of(path)
    rng = np.random.default_rng(0)
    low = rng.random((2, BOXES)).astype(np.float32)
    corners = np.concatenate([low, low + 0.1 + 0.5 * rng.random((2, BOXES)).astype(np.float32)])
    scores = rng.random((CLASSES, BOXES)).astype(np.float32) ** 3
    if form == "corners":
        boxes, given = corners.T, {"b": corners.T[None], "s": scores[None]}
    else:
        center = np.concatenate([(corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]])
        boxes, given = center.T, {"b": center[None], "s": scores.T[None]}
    want = greedy(corners, scores, 0.4, 0.3, most)
    assert 0 < len(want) <= most
    got = run_calls(read_package(path), load_library(Options()), given)
    assert got["count"].tolist() == [len(want)]
    assert got["index"][0].tolist() == want + [-1] * (most - len(want))
    np.testing.assert_array_equal(got["coordinates"][0, : len(want)], boxes[want])
    np.testing.assert_array_equal(got["confidence"][0, : len(want)], scores.T[want])
    assert not got["coordinates"][0, len(want) :].any()
    assert not got["confidence"][0, len(want) :].any()


def test_one_class_and_stretches_of_one_output(tmp_path: Path) -> None:
    """Boxes and scores side by side, as YOLO gives them; the first class is the background."""
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 7, 30], "z": [1]}, {"y": F})
    path = tmp_path / "m.mlpackage"
    wish = "boxes=y[0:4],scores=y[4:],class=1,format=center,score=0.5,max=10"
    compiler.compile(model, "ane", path, wishes=Wishes(nms=wish))
    x = np.zeros((1, 7, 30), np.float32)
    x[0, :4] = np.array([[1, 1, 2, 2], [5, 5, 2, 2], [9, 9, 2, 2]] * 10).T
    x[0, 4], x[0, 5] = 0.9, np.linspace(0, 0.59, 30)
    got = run_calls(read_package(path), load_library(Options()), {"x": x, "z": np.zeros(1, np.float32)})
    assert got["index"][0, :4].tolist() == [29, 28, 27, -1]
    assert got["confidence"].shape == (1, 10, 1)


def test_a_wrong_reading_of_boxes_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the program took corners for centers, the proof would say so."""
    from compiler.errors import VerificationError
    from compiler.features import nms_program

    monkeypatch.setattr(nms_program, "center", lambda b, corners: corners)
    rng = np.random.default_rng(0)
    low = rng.random((BOXES, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + 0.1 + 0.5 * rng.random((BOXES, 2)).astype(np.float32)], 1)[None]
    inputs = {"b": boxes, "s": rng.random((1, CLASSES, BOXES)).astype(np.float32)}
    wishes = Wishes(nms="boxes=b_out,scores=s_out,score=0.1")
    with pytest.raises(VerificationError):
        compiler.compile(detector("corners"), "cpu", tmp_path / "m.mlpackage", inputs=inputs, wishes=wishes)


def test_parse() -> None:
    wish = parse("boxes=a:b[0:4],scores=c,iou=0.5,score=0.1,max=7,format=center,class=2")
    assert (wish.boxes, wish.scores) == (Part("a:b", 0, 4), Part("c"))
    assert (wish.iou, wish.score, wish.most, wish.form, wish.chosen) == (0.5, 0.1, 7, "center", 2)


@pytest.mark.parametrize(
    ("wish", "part"),
    [
        ("boxes=b_out", "does not say boxes and scores"),
        ("boxes=b_out,scores=s_out,iuo=1", "'iuo=1', which is no part of it"),
        ("boxes=b_out,scores=s_out,iou=2", "an iou above 0"),
        ("boxes=b_out,scores=s_out,max=a", "'a' in --nms"),
        ("boxes=b_out,scores=s_out,format=corner", "did you mean 'corners'"),
        ("boxes=b,scores=s_out", "'b', which is no output"),
        ("boxes=s_out,scores=b_out", "3 numbers × 60"),
        ("boxes=b_out[0:9],scores=s_out", "which has 4 numbers a box"),
        ("boxes=b_out,scores=s_out,class=3", "which has 3 numbers a box"),
    ],
)
def test_bad_wishes(tmp_path: Path, wish: str, part: str) -> None:
    with pytest.raises(UserError) as error:
        compiler.compile(detector("corners"), "cpu", tmp_path / "m.mlpackage", wishes=Wishes(nms=wish))
    assert part in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("name", "wish", "shapes", "found"),
    [
        ("ultraface", "boxes=boxes,scores=scores,class=1,score=0.5,max=20", {}, 1),
        ("yolov8n_320", "boxes=output0[0:4],scores=output0[4:],format=center", {"images": (1, 3, 320, 320)}, 2),
    ],
)
def test_real_detectors(models_dir: Path, tmp_path: Path, name: str, wish: str, shapes: dict, found: int) -> None:
    folder, path = models_dir / name, tmp_path / "m.mlpackage"
    wishes = Wishes(nms=f"{wish},score=0.1" if "score=" not in wish else wish)
    io = folder / "io.npz"
    done = compiler.compile(folder / "model.onnx", "ane", path, shapes=shapes, inputs=io, wishes=wishes)
    assert done.report.verify.passed
    with np.load(io) as file:
        given = {k.removeprefix("in:"): file[k] for k in file.files if k.startswith("in:")}
    assert run_calls(read_package(path), load_library(Options()), given)["count"].tolist() == [found]
    spec_of(path)
