"""Names, descriptions, metadata and element types of inputs and outputs, as an app wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from compiler import Wishes
from compiler.errors import UserError
from compiler.shapes import Span
from tests.cli.test_cli import Run
from tests.features.apple import feature, spec_of
from tests.features.test_dynamic_shapes import run
from tests.test_driver import F, linear, model_of


def test_names_descriptions_and_metadata_reach_the_package(compile_: Run, tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "m.onnx")
    code, out, err = compile_(
        *(
            tmp_path / "m.onnx",
            "--rename",
            "x=features",
            "--rename",
            "y=scores",
            "--describe",
            "x=What is given = x",
        ),
        *("--description", "A layer", "--author", "Someone", "--license", "MIT", "--model-version", "1.2"),
        *("--metadata", "team=vision", "--metadata", "url=https://x.org/?a=b"),
    )
    assert code == 0, err
    assert "scores" in out
    described = spec_of(tmp_path / "m.mlpackage").description
    assert [(i.name, i.shortDescription) for i in described.input] == [("features", "What is given = x")]
    assert [o.name for o in described.output] == ["scores"]
    said = described.metadata
    assert (said.author, said.license, said.shortDescription, said.versionString) == (
        "Someone",
        "MIT",
        "A layer",
        "1.2",
    )
    assert said.userDefined["team"] == "vision"
    assert said.userDefined["url"] == "https://x.org/?a=b"
    assert said.userDefined["planish.source"] == "m.onnx"


def test_what_is_said_of_shapes_follows_a_new_name(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 3]}, {"y": F})
    path = tmp_path / "m.mlpackage"
    compiler.compile(model, "cpu", path, shapes={"x": (Span(1, 4), 3)}, wishes=Wishes(rename={"x": "rows"}))
    ranges = feature(spec_of(path), "rows").multiArrayType.shapeRange.sizeRanges
    assert [(r.lowerBound, r.upperBound) for r in ranges] == [(1, 4), (3, 3)]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--rename", "z=a"), "'z', which is no input or output"),
        (("--rename", "x=y"), "the name 'y'"),
        (("--rename", "x=a b"), "which Core ML does not take"),
        (("--rename", "x"), "not of the form OLD=NEW"),
        (("--rename", "x=a", "--rename", "x=b"), "'x' twice"),
        (("--describe", "q=text"), "'q', which is no input or output"),
        (("--io", "fp61"), "no element type of inputs and outputs is called 'fp61'"),
        (("--metadata", "nothing"), "KEY=VALUE"),
    ],
)
def test_bad_values_are_named(compile_: Run, tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    onnx.save(linear(), tmp_path / "m.onnx")
    code, _, err = compile_(tmp_path / "m.onnx", *options)
    assert code == 2
    assert part in err
    assert len(err.strip().splitlines()) <= 2


@pytest.mark.parametrize("target", ["ane", "cpu"])
def test_half_precision_at_the_doors(tmp_path: Path, target: str) -> None:
    path = tmp_path / "m.mlpackage"
    done = compiler.compile(linear(), target, path, wishes=Wishes(io="fp16"))  # type: ignore[arg-type]
    spec = spec_of(path)
    halves = feature(spec, "x").multiArrayType.FLOAT16
    assert feature(spec, "x").multiArrayType.dataType == halves
    assert feature(spec, "y", "output").multiArrayType.dataType == halves
    casts = [op for op in done.module.walk() if op.name == "mil.cast"]
    assert len(casts) == (0 if target == "ane" else 2)


def test_a_model_in_half_precision_can_show_floats(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model = model_of([node], {"x": [2, 3]}, {"y": TensorProto.FLOAT16}, input_type=TensorProto.FLOAT16)
    path = tmp_path / "m.mlpackage"
    compiler.compile(model, "cpu", path)
    spec = spec_of(path)
    assert feature(spec, "x").multiArrayType.dataType == feature(spec, "x").multiArrayType.FLOAT16
    compiler.compile(model, "cpu", path, wishes=Wishes(io="fp32"))
    spec = spec_of(path)
    assert feature(spec, "x").multiArrayType.dataType == feature(spec, "x").multiArrayType.FLOAT32
    x = np.array([[1, -2, 3], [-1, 2, -3]], np.float32)
    np.testing.assert_array_equal(run(path, x)[0], np.maximum(x, 0))


def test_integers_have_no_half_precision(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    model = model_of([node], {"x": [2]}, {"y": TensorProto.INT32}, input_type=TensorProto.INT32)
    with pytest.raises(UserError, match="no float input or output"):
        compiler.compile(model, "cpu", tmp_path / "m.mlpackage", wishes=Wishes(io="fp16"))


def test_what_other_wishes_make_can_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a\nb\nc\nd\n")
    path = tmp_path / "m.mlpackage"
    wishes = Wishes(labels=str(tmp_path / "l.txt"), rename={"classLabel": "kind", "classLabel_probs": "scores"})
    compiler.compile(linear(), "cpu", path, wishes=wishes)
    described = spec_of(path).description
    assert (described.predictedFeatureName, described.predictedProbabilitiesName) == ("kind", "scores")
    wishes = Wishes(labels=str(tmp_path / "l.txt"), rename={"y": "scores"})
    with pytest.raises(UserError, match="in whose place others have come"):
        compiler.compile(linear(), "cpu", path, wishes=wishes)
