"""Inputs that take pictures and outputs that give them, held against the model after the arithmetic declared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import compiler
from compiler import Wishes
from compiler.errors import UserError
from compiler.features.image import parse
from compiler.proof import Reference, compare
from tests.cli.test_cli import Run
from tests.features.apple import feature, spec_of
from tests.features.test_dynamic_shapes import run
from tests.test_driver import F, model_of


def conv(pads: int = 0, shape: tuple[int, ...] = (1, 3, 8, 6)) -> onnx.ModelProto:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[pads] * 4)
    return model_of([node], {"x": list(shape)}, {"y": F}, {"w": w})


def test_parse() -> None:
    image = parse("a:b:bgr:scale=1/255:mean=0.4,0.5,0.6:std=2")
    assert (image.name, image.color, image.scale) == ("a:b", "bgr", 1 / 255)
    assert (image.mean, image.std) == ((0.4, 0.5, 0.6), (2.0,))
    assert parse("onnx::Relu_0").name == "onnx::Relu_0"


@pytest.mark.parametrize("text", ["", ":rgb", "x:scale=0", "x:std=0", "x:scale=a", "x:scale=1,2", "x:rgba", "x:bias=1"])
def test_what_is_misspelled_is_said(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert f"--image {text}" in str(error.value)


@pytest.mark.parametrize(
    ("pads", "wish", "left"),
    [
        (0, "x:rgb:scale=1/255:mean=0.485,0.456,0.406:std=0.229,0.224,0.225", set()),
        (1, "x:bgr:scale=1/255", set()),
        (1, "x:rgb:mean=104,117,123", {"mil.add"}),
    ],
)
def test_arithmetic_joins_the_first_convolution_where_that_is_exact(
    tmp_path: Path, pads: int, wish: str, left: set[str]
) -> None:
    path = tmp_path / "m.mlpackage"
    model = conv(pads)
    done = compiler.compile(model, "cpu", path, wishes=Wishes(images=[wish]))
    assert {op.name for op in done.module.walk()} & {"mil.add", "mil.mul", "mil.sub"} == left
    picture = feature(spec_of(path), "x").imageType
    assert (picture.height, picture.width) == (8, 6)
    assert picture.ColorSpace.Name(picture.colorSpace) == ("BGR" if ":bgr" in wish else "RGB")
    image = parse(wish)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 8, 6)).astype(np.float32)
    mean, std = (np.reshape(v, (1, -1, 1, 1)) for v in (image.mean, image.std))
    want = Reference(model).run({"x": ((pixels * image.scale - mean) / std).astype(np.float32)})[0]
    assert compare(run(path, pixels)[0], want).rel_l2 < 1e-5


def test_planes_that_come_last_in_the_model_come_first_in_core_ml(tmp_path: Path) -> None:
    model = model_of([helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2])], {"x": [1, 5, 7, 3]}, {"y": F})
    path = tmp_path / "m.mlpackage"
    compiler.compile(model, "cpu", path, wishes=Wishes(images=["x:scale=1/255"]))
    picture = feature(spec_of(path), "x").imageType
    assert (picture.height, picture.width) == (5, 7)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(run(path, pixels)[0], pixels.mean((2, 3))[:, None, None] / 255, rtol=1e-5)


def test_an_output_gives_a_picture(tmp_path: Path) -> None:
    """tanh in [-1, 1] as pixels of 0 to 255: the opposite of the arithmetic of an input."""
    model = model_of([helper.make_node("Tanh", ["x"], ["y"])], {"x": [1, 1, 4, 4]}, {"y": F})
    path = tmp_path / "m.mlpackage"
    wish = "y:gray:scale=1/255:mean=0.5:std=0.5"
    compiler.compile(model, "cpu", path, wishes=Wishes(images=[wish]))
    output = feature(spec_of(path), "y", "output").imageType
    assert output.ColorSpace.Name(output.colorSpace) == "GRAYSCALE"
    x = np.linspace(-3, 3, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(run(path, x)[0], (np.tanh(x) + 1) / 2 * 255, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("wish", "part"),
    [
        ("z", "which is no input or output"),
        ("x:gray", "no axis of 1 planes"),
        ("x:mean=1,2", "2 numbers as mean, and there are 3 planes"),
        ("y", "no axis of 1 or 3 planes"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, wish: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        compiler.compile(conv(), "cpu", tmp_path / "m.mlpackage", wishes=Wishes(images=[wish]))


def test_run_takes_pictures(compile_: Run, planish: Run, tmp_path: Path) -> None:
    onnx.save(conv(), tmp_path / "m.onnx")
    code, _, err = compile_(tmp_path / "m.onnx", "--target", "cpu", "--image", "x:bgr:scale=1/255")
    assert code == 0, err
    rgb = np.random.default_rng(3).integers(0, 256, (8, 6, 3), np.uint8)
    planes = np.ascontiguousarray(rgb[:, :, ::-1].transpose(2, 0, 1)[None])
    want = Reference(conv()).run({"x": planes.astype(np.float32) / 255})[0]
    for given in (rgb, planes):
        np.savez(tmp_path / "in.npz", x=given)
        code, _, err = planish("run", "m.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz")
        assert code == 0, err
        with np.load(tmp_path / "out.npz") as file:
            assert compare(file["y"], want).rel_l2 < 1e-5


@pytest.mark.parametrize(
    ("name", "wish"),
    [("mtcnn_onet", "input_3:rgb:scale=1/128:mean=0.99609375"), ("espcn", "onnx::Relu_0:rgb:scale=1/255")],
)
def test_real_models(models_dir: Path, tmp_path: Path, name: str, wish: str) -> None:
    path = tmp_path / "m.mlpackage"
    done = compiler.compile(models_dir / name / "model.onnx", "ane", path, wishes=Wishes(images=[wish]))
    assert done.report.verify.passed
    assert spec_of(path).description.input[0].type.WhichOneof("Type") == "imageType"
