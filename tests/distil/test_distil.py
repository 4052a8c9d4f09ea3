"""``planish distil``: a pruned student gets nearer to its teacher, a killed run goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from compiler.distil import losses
from compiler.distil.data import divided, samples
from compiler.errors import UserError
from compiler.ir import F32, Function, TensorType
from tests.distil import small

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """A small network, pictures whose left half is lighter or not, and how to train a student without 30 % of it."""
    small.write(tmp_path)
    return [str(tmp_path / "small.onnx"), "--data", "data.npz", "--prune", "0.3", "--batch", "4", "--every", "4"]


def test_a_pruned_student_learns_and_is_signed(planish: Run, compile_: Run, asked: list[str], tmp_path: Path) -> None:
    code, out, err = planish(
        "distil", *asked, "--steps", "60", "--rate", "0.003", "--features", "0.1", "-o", "student.onnx"
    )
    assert code == 0, err
    before, after = (float(n) for n in out.split("  loss ")[-1].split(",")[0].split(" → "))
    assert after < 0.7 * before
    said = {p.key: p.value for p in onnx.load("student.onnx").metadata_props}
    assert said["planish.source"] == "small.onnx"
    assert said["planish.recipe"] == "prune 0.3, distilled over 60 steps"
    with np.load("data.npz") as data:
        probabilities = ort.InferenceSession("student.onnx").run(None, {"x": data["x"][0]})[0]
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert compile_("student.onnx", "-q", "-o", "student.mlpackage")[0] == 0


def test_a_killed_run_goes_on_as_if_it_had_not_been(asked: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", "distil", *asked]
    command += ["--steps", "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "-o", name], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
        )

    killed = start("a.onnx")
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("  step      4"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    assert not (tmp_path / "a.onnx").exists()
    resumed, whole = start("a.onnx"), start("b.onnx")
    outputs = [process.communicate()[0] for process in (resumed, whole)]
    assert "step      4" not in outputs[0]
    weights = [
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / n).graph.initializer}
        for n in ("a.onnx", "b.onnx")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.allclose(weights[0][k], weights[1][k], atol=1e-6) for k in weights[0])


def test_what_was_learned_from_other_data_is_not_gone_on_with(planish: Run, asked: list[str], tmp_path: Path) -> None:
    assert planish("distil", *asked, "--steps", "4", "-o", "a.onnx")[0] == 0
    _, again, _ = planish("distil", *asked, "--steps", "4", "-o", "a.onnx")
    assert "step      4" not in again, "it is done"
    np.savez(tmp_path / "data.npz", x=small.pictures(20, np.random.default_rng(7)))
    code, out, err = planish("distil", *asked, "--steps", "4", "-o", "a.onnx")
    assert code == 0, err
    assert "step      4" in out


def test_mistakes_are_one_sentence(planish: Run, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    for more, text in {
        ("-o", str(asked[0])): "is the teacher, which stays as it is",
        ("-o", "nowhere/student.onnx"): "is no file that the student could be written to",
        ("-o", "s.onnx", "--prune", "1.5"): "is no share of channels",
        ("-o", "s.onnx", "--importance", "tailor"): "no importance is called 'tailor'",
        ("-o", "s.onnx", "--quantize", "int3"): "no rounding of weights is called 'int3'",
        ("-o", "s.onnx", "--loss", "none.py:f"): "cannot read the loss's file",
        ("-o", "s.onnx", "--loss", "mine.py"): "'mine.py' is no loss",
        ("-o", "s.onnx", "--loss", "mine.py:fails"): "the loss fails of mine.py failed: KeyError: 'z'",
        ("-o", "s.onnx", "--loss", "mine.py:wide"): "gave float32 of shape (1, 4), where one float is needed",
        ("-o", "s.onnx", "--data", "mine.py:arrays"): "gave a ndarray, where arrays by input name are needed",
        ("-o", "s.onnx", "--data", "mine.py:broken"): "the generator broken of mine.py failed: OSError: file 7",
        ("-o", "s.onnx", "--data", "mine.py:other"): "there is no array for input 'x' in what other of mine.py gave",
        ("-o", "s.onnx", "--data", "mine.py:nans"): "the array for input 'x' holds NaN",
    }.items():
        code, _, err = planish("distil", *asked, "--steps", "1", *more)
        assert (code, text in err) == (2, True), err
        assert not Path("s.onnx").exists()


MINE = """
import numpy as np

def fails(ours, theirs, sample):
    return ours["z"]

def wide(ours, theirs, sample):
    return ours["y"] - theirs["y"]

def arrays():
    yield np.zeros((1, 3, 8, 8))

def broken():
    raise OSError("file 7")
    yield

def other():
    yield {"picture": np.zeros((1, 3, 8, 8))}

def nans():
    yield {"x": np.full((1, 3, 8, 8), np.nan)}
"""


def test_losses_are_least_for_what_is_the_same() -> None:
    loss = losses.softened(2.0, {"y": -1})
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    assert float(loss({"y": p}, {"y": p}, {})) == pytest.approx(0.0, abs=1e-6)
    # At temperature 1 it is the Kullback-Leibler divergence.
    divergence = float((p * np.log(p / q)).sum())
    assert float(losses.softened(1.0, {"y": -1})({"y": q}, {"y": p}, {})) == pytest.approx(divergence, rel=1e-5)
    a = np.random.default_rng(0).standard_normal((1, 4, 3, 3))
    assert float(losses.attention([a], [a * 3])) == pytest.approx(0.0, abs=1e-6), "as they attend, not how strongly"
    assert float(losses.attention([a], [a[..., ::-1]])) > 0.01


def test_data_comes_from_files_folders_and_generators(tmp_path: Path) -> None:
    function = Function("main", [("x", TensorType(F32, (1, 2)))], ["y"])
    (tmp_path / "parts").mkdir()
    for i in range(3):
        np.savez(tmp_path / "parts" / f"{i}.npz", x=np.full((2, 1, 2), i, np.float32), label=np.arange(2))
    found = samples(tmp_path / "parts", function, 5)
    assert [float(s["x"][0, 0]) for s in found] == [0, 0, 1, 1, 2]
    assert [int(s["label"]) for s in found] == [0, 1, 0, 1, 0]
    (tmp_path / "make.py").write_text(
        "import numpy as np\ndef forever():\n    while True:\n        yield {'x': np.ones((1, 2), np.float32)}\n"
    )
    assert len(samples(f"{tmp_path}/make.py:forever", function, 7)) == 7
    learn, held = divided(found, 0.2, seed=0)
    assert (len(learn), len(held)) == (4, 1)
    with pytest.raises(UserError, match="two are the least"):
        divided(found[:1], 0.2, seed=0)
