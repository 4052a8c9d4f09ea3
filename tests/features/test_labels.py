"""Classifiers: a label and the score of each class, as coremltools makes them and as we do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import compiler
from compiler import Wishes
from compiler.driver import Options, load_library
from compiler.errors import UserError
from compiler.execution.calls import run_calls
from compiler.export_package import package_to_onnx
from compiler.features.labels import Labels
from compiler.proof import compare, read_package
from tests.cli.test_cli import Run
from tests.features.apple import feature, spec_of
from tests.test_driver import F, model_of

NAMES = ["tench", "goldfish, a fish", "größer", "hammerhead"]


def net() -> onnx.ModelProto:
    nodes = [helper.make_node("Softmax", ["x"], ["p"], axis=1), helper.make_node("ReduceMax", ["x"], ["m"])]
    return model_of(nodes, {"x": [1, 4]}, {"p": F, "m": F})


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("target", ["ane", "cpu"])
def test_a_classifier(tmp_path: Path, names: Path, target: str) -> None:
    path = tmp_path / "m.mlpackage"
    done = compiler.compile(net(), target, path, wishes=Wishes(labels=str(names)))  # type: ignore[arg-type]
    assert done.report.verify.passed
    assert list(done.report.verify.outputs) == ["classLabel", "classLabel_probs", "m"]
    spec = spec_of(path)
    assert spec.description.predictedFeatureName == "classLabel"
    assert spec.description.predictedProbabilitiesName == "classLabel_probs"
    assert feature(spec, "classLabel", "output").WhichOneof("Type") == "stringType"
    assert feature(spec, "classLabel_probs", "output").dictionaryType.WhichOneof("KeyType") == "stringKeyType"
    x = np.array([[0, 3, 1, 2]], np.float32)
    got = run_calls(read_package(path), load_library(Options()), {"x": x})
    assert str(got["classLabel"]) == "goldfish, a fish"
    p = np.exp(x[0]) / np.exp(x[0]).sum()
    np.testing.assert_allclose(got["classLabel_probs"], p, rtol=2e-3)


def test_it_describes_itself_as_coremltools_would(tmp_path: Path, names: Path) -> None:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 4))])
    def program(x):  # type: ignore[no-untyped-def]
        return mb.softmax(x=x, axis=1)

    theirs = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        classifier_config=ct.ClassifierConfig(NAMES),
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    theirs.save(str(tmp_path / "theirs.mlpackage"))
    model = model_of([helper.make_node("Softmax", ["x"], ["p"], axis=1)], {"x": [1, 4]}, {"p": F})
    compiler.compile(model, "cpu", tmp_path / "ours.mlpackage", wishes=Wishes(labels=str(names)))
    ours, apple = spec_of(tmp_path / "ours.mlpackage").description, theirs.get_spec().description
    assert list(ours.output) == list(apple.output)
    assert ours.predictedProbabilitiesName == apple.predictedProbabilitiesName
    x = np.array([[0, 3, 1, 2]], np.float32)
    library = load_library(Options())
    ran = [run_calls(read_package(tmp_path / f"{n}.mlpackage"), library, {"x": x}) for n in ("ours", "theirs")]
    assert [str(r["classLabel"]) for r in ran] == ["goldfish, a fish"] * 2


def test_a_wrong_label_fails_and_a_near_tie_does_not() -> None:
    feature = Labels(NAMES, "p")
    clear = feature.package_outputs({"p": np.array([[0.1, 0.7, 0.1, 0.1]])})["classLabel"]
    assert not compare(np.array("tench"), clear).passes("fp16")
    assert compare(np.array("goldfish, a fish"), clear).passes("fp16")
    tie = feature.package_outputs({"p": np.array([[0.1, 0.4001, 0.1, 0.4]])})["classLabel"]
    assert compare(np.array("hammerhead"), tie).passes("fp16")


def test_export_gives_the_label_as_text(tmp_path: Path, names: Path) -> None:
    path = tmp_path / "m.mlpackage"
    compiler.compile(net(), "cpu", path, wishes=Wishes(labels=str(names)))
    model = package_to_onnx(read_package(path), load_library(Options()))
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    label, scores, _ = session.run(None, {"x": np.array([[0, 1, 5, 2]], np.float32)})
    assert label == "größer"
    assert scores.shape == (4,)


def test_run_prints_the_best(compile_: Run, planish: Run, tmp_path: Path, names: Path) -> None:
    onnx.save(net(), tmp_path / "m.onnx")
    code, _, err = compile_(tmp_path / "m.onnx", "--labels", f"{names}:p", "--rename", "m=peak")
    assert code == 0, err
    np.savez(tmp_path / "in.npz", x=np.array([[0, 3, 1, 2]], np.float32))
    code, out, err = planish("run", "m.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz", "--top", "2")
    assert code == 0, err
    lines = [line.split("  ")[-1] for line in out.splitlines() if line.startswith("    ")]
    assert lines == ["goldfish, a fish", "hammerhead"]


@pytest.mark.parametrize(
    ("text", "wish", "part"),
    [
        ("a\nb\n", "{}", "2 labels, and no output has as many scores"),
        ("a\nb\na\nd\n", "{}", "label 'a' in lines 1 and 3"),
        ("", "{}", "has no labels"),
        ("a\nb\nc\nd\n", "{}:q", "'q', which is no output"),
        ("a\nb\nc\nd\n", "{}:m", "4 labels, and no output has as many scores"),
        ("a\nb\nc\nd\n", "nowhere.txt", "no file of labels at 'nowhere.txt'"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, text: str, wish: str, part: str) -> None:
    path = tmp_path / "l.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=part):
        compiler.compile(net(), "cpu", tmp_path / "m.mlpackage", wishes=Wishes(labels=wish.format(path)))


def test_a_real_model(models_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("0\n90\n180\n270\n")
    model = models_dir / "pplcnet_orientation" / "model.onnx"
    wishes = Wishes(labels=str(path), images=["x:bgr:scale=1/255:mean=0.485,0.456,0.406:std=0.229,0.224,0.225"])
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", shapes={"x": (1, 3, 224, 224)}, wishes=wishes)
    assert done.report.verify.passed
    spec_of(tmp_path / "m.mlpackage")
