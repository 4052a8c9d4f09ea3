"""``planish compare`` on a real model and its compressed form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compiler import comparison
from compiler.comparison import metrics
from compiler.errors import UserError

Run = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "ppocr_cls.onnx"
SHAPE = ("--shape", "x=1,3,48,192", "-q")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve pictures, labelled with the class that the original model chooses, but for two of them."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((12, 1, 3, 48, 192)).astype(np.float32)
    session = ort.InferenceSession(EXAMPLE)
    labels = np.array([session.run(None, {"x": p})[0].argmax(-1) for p in pictures])
    labels[:2] = 1 - labels[:2]
    path = tmp_path / "data.npz"
    np.savez(path, x=pictures, label=labels)
    return path


def test_half_precision_against_four_bits(compile_: Run, planish: Run, data: Path, tmp_path: Path) -> None:
    model = shutil.copy(EXAMPLE, tmp_path)
    assert compile_(model, *SHAPE, "-o", "a.mlpackage")[0] == 0
    assert compile_(model, *SHAPE, "--quantize", "palette4", "-o", "b.mlpackage")[0] == 0
    options = ("--data", data, "--model", model, "--metric", "error", "--metric", "accuracy")
    code, out, _ = planish("compare", "a.mlpackage", "b.mlpackage", *options, "--json", "c.json", "--report", "c.html")
    assert code == 0
    found = json.loads(Path("c.json").read_text())

    error = found["metrics"]["error"]
    assert error["better"] == "a", "four bits are further off, on every sample"
    assert error["difference"]["low"] > 0.0
    assert error["difference"]["p"] < 0.01
    assert found["metrics"]["accuracy"]["a"]["mean"] == pytest.approx(10 / 12)
    sizes = [found["sides"][s]["bytes"] for s in "ab"]
    assert sizes[1] < sizes[0]
    assert found["sides"]["a"]["estimates"]["latency_ms"] > 0.0
    assert found["layers"], "values of the model are found in both packages"
    assert all(row["a"] < row["b"] for row in found["layers"][:3])
    assert "error, 12 samples" in out
    page = Path("c.html").read_text()
    assert all(f'id="{table}"' in page for table in ("sides", "metrics", "layers"))
    assert "http" not in page, "the page needs no network"


def test_a_model_against_itself_is_no_better(data: Path) -> None:
    found = comparison.compare(EXAMPLE, EXAMPLE, data, metric="agreement")
    agreement = found["metrics"]["agreement"]
    assert (agreement["a"]["mean"], agreement["difference"]["mean"], agreement["better"]) == (1.0, 0.0, None)


def test_a_metric_of_ones_own(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def confidence(outputs, sample):\n    assert 'label' in sample\n    return outputs[min(outputs)].max()\n"
    )
    found = comparison.compare(EXAMPLE, EXAMPLE, data, metric=f"{file}:confidence")
    assert 0.5 <= found["metrics"]["confidence"]["a"]["mean"] <= 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "no metric is called 'acuracy'.*accuracy"),
        ("nothing.py:f", "cannot read the metric's file"),
        ("mine.py:g", "has no function 'g'"),
        ("bad.py:f", "cannot be loaded: SyntaxError"),
    ],
)
def test_metrics_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def f(outputs, sample): return 1")
    (tmp_path / "bad.py").write_text("def f(")
    with pytest.raises(UserError, match=message):
        metrics.find(name)


def test_data_that_cannot_be_compared_on(planish: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 3, 48, 192), np.float32))
    code, _, err = planish("compare", EXAMPLE, EXAMPLE, "--data", "one.npz")
    assert (code, "there is one sample" in err) == (2, True)
    np.savez(tmp_path / "other.npz", y=np.zeros((4, 1, 3, 48, 192), np.float32))
    code, _, err = planish("compare", EXAMPLE, EXAMPLE, "--data", "other.npz")
    assert (code, "no array for input 'x'" in err) == (2, True)
