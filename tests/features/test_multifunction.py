"""Packages of several functions with shared weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import compiler
from compiler import Wishes
from compiler.errors import UserError
from compiler.multifunction import parse_part
from compiler.proof import Reference, compare
from compiler.shapes import Span
from tests.cli.test_cli import Run
from tests.features.apple import spec_of
from tests.features.test_image import conv
from tests.test_driver import linear


def wide() -> onnx.ModelProto:
    return linear(64)


def test_parse() -> None:
    part = parse_part("a=folder/m.onnx:x=1,3:onnx::y=1..8,2")
    assert (part.name, part.source) == ("a", "folder/m.onnx")
    assert part.shapes == {"x": (1, 3), "onnx::y": (Span(1, 8), 2)}
    assert parse_part("a=m.onnx:in:0=1,2").shapes == {"in:0": (1, 2)}
    assert parse_part("b=m.mlpackage").shapes == {}


def test_weights_are_stored_once(tmp_path: Path, planish: Run) -> None:
    wide_net = wide()
    path = tmp_path / "m.mlpackage"
    done = compiler.bundle(path, {"first": wide_net, "again": wide_net, "other": conv()}, "cpu", default="again")
    assert set(done.compilations) == {"first", "again", "other"}
    assert all(c.report.verify.passed for c in done.compilations.values())
    weights = (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert 64 * 64 * 4 <= weights < 1.5 * 64 * 64 * 4
    spec = spec_of(path)
    assert spec.description.defaultFunctionName == "again"
    assert [f.name for f in spec.description.functions] == ["first", "again", "other"]
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    picture = np.random.default_rng(0).standard_normal((1, 3, 8, 6)).astype(np.float32)
    for name, model, array in (("first", wide_net, x), ("other", conv(), picture), (None, wide_net, x)):
        np.savez(tmp_path / "in.npz", x=array)
        chosen = ("--function", name) if name else ()
        code, _, err = planish("run", path, "--inputs", "in.npz", "--outputs", "out.npz", *chosen)
        assert code == 0, err
        with np.load(tmp_path / "out.npz") as file:
            assert compare(file["y"], Reference(model).run({"x": array})[0]).rel_l2 < 1e-5
    code, _, err = planish("run", path, "--inputs", "in.npz", "--outputs", "out.npz", "--function", "othr")
    assert code == 2
    assert "did you mean 'other'" in err


def test_one_model_at_several_shapes_and_a_package(planish: Run, tmp_path: Path, models_dir: Path) -> None:
    model = models_dir / "centerface" / "model.onnx"
    onnx.save(conv(), tmp_path / "conv.onnx")
    wishes = Wishes(images=["x:scale=1/255"])
    compiler.compile(tmp_path / "conv.onnx", "cpu", tmp_path / "conv.mlpackage", os="ios18", wishes=wishes)
    code, out, err = planish(
        *("bundle", "all.mlpackage", f"small={model}:input.1=1,3,32,32", f"large={model}:input.1=1,3,32,64"),
        *("picture=conv.mlpackage", "--target", "cpu"),
    )
    assert code == 0, err
    assert "3 functions, each as it was proven" in out
    functions = {f.name: f for f in spec_of(tmp_path / "all.mlpackage").description.functions}
    assert functions["picture"].input[0].type.WhichOneof("Type") == "imageType"
    shapes = [list(functions[n].input[0].type.multiArrayType.shape) for n in ("small", "large")]
    assert shapes == [[1, 3, 32, 32], [1, 3, 32, 64]]
    code, _, err = planish("export", "all.mlpackage", "small.onnx", "--function", "small")
    assert code == 0, err


@pytest.mark.parametrize(
    ("parts", "options", "part"),
    [
        (("a=m.onnx",), (), "needs two functions or more"),
        (("a=m.onnx", "a=m.onnx"), (), "two functions are called 'a'"),
        (("a=m.onnx", "b-c=m.onnx"), (), "'b-c' cannot be the name"),
        (("a=m.onnx", "b=n.onnx"), (), "no model or package at 'n.onnx'"),
        (("a=m.onnx", "b"), (), "does not say a name and a model"),
        (("a=m.onnx", "b=m.onnx"), ("--os", "ios17"), "several functions need iOS 18"),
        (("a=m.onnx", "b=m.onnx"), ("--default", "c"), "no function is called 'c'"),
    ],
)
def test_bad_bundles(planish: Run, tmp_path: Path, parts: tuple[str, ...], options: tuple[str, ...], part: str) -> None:
    onnx.save(linear(), tmp_path / "m.onnx")
    code, _, err = planish("bundle", "out.mlpackage", *parts, *options)
    assert code == 2
    assert part in err
    assert not (tmp_path / "out.mlpackage").exists()


def test_a_package_for_a_later_release_is_refused(tmp_path: Path) -> None:
    compiler.compile(linear(), "cpu", tmp_path / "new.mlpackage", os="ios26", verify="off")
    with pytest.raises(UserError, match="for ios26, later than ios18"):
        compiler.bundle(tmp_path / "m.mlpackage", {"a": linear(), "b": tmp_path / "new.mlpackage"}, "cpu")
