"""``planish optimize``: what is kept, what is rolled back, and that a killed climb goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import UserError
from compiler.ladder import STEPS, Step, Trial, front, steps
from compiler.ladder.trials import Journal, Measured

Run = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "ppocr_cls.onnx"


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """Arguments that fit the example: pictures of its size, two steps."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((10, 1, 3, 48, 192)).astype(np.float32))
    model = shutil.copy(EXAMPLE, tmp_path)
    steps = ["--step", "half", "--step", "palette6"]
    return [str(model), "--data", "data.npz", "--shape", "x=1,3,48,192", "--metric", "error", *steps]


def test_a_step_is_kept_as_long_as_the_metric_allows(planish: Run, asked: list[str]) -> None:
    code, out, err = planish("optimize", *asked, "--max-drop", "0.02", "--json", "a.json", "--report", "a.html")
    assert code == 0, err
    found = json.loads(Path("a.json").read_text())
    assert [(t["step"], t["kept"]) for t in found["trials"]] == [("half", True), ("palette6", True)]
    half, palette = found["trials"]
    assert palette["bytes"] < 0.7 * half["bytes"]
    assert 0.0 < half["drop"] < palette["drop"] <= 0.02
    assert Path("ppocr_cls.mlpackage/Manifest.json").is_file()
    assert Path("a.html").read_text().count("<circle") == 2

    strict = str((half["drop"] + palette["drop"]) / 2)
    code, out, err = planish("optimize", *asked, "--max-drop", strict, "--json", "b.json")
    assert code == 0, err
    assert out.count("measured before") == 2, "only the verdict is new"
    found = json.loads(Path("b.json").read_text())
    assert [t["kept"] for t in found["trials"]] == [True, False]
    assert "the metric drops" in found["trials"][1]["why"]
    assert found["best"]["step"] == "half"

    code, out, err = planish("optimize", *asked, "--max-drop", strict, "--explore", "2", "--json", "c.json")
    assert code == 0, err
    others = [
        (t["options"].get("quantize"), t["options"].get("prune"))
        for t in json.loads(Path("c.json").read_text())["trials"]
    ]
    assert len(set(others)) == 4, "nothing is tried twice"

    code, _, err = planish("optimize", *asked, "--max-drop", "0", "-o", "none.mlpackage")
    assert (code, "no step keeps the error" in err) == (1, True)
    assert not Path("none.mlpackage").exists()


def test_a_killed_climb_goes_on_where_it_was(asked: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", "optimize", *asked]
    command += ["--max-drop", "0.02"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=_environment())
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("  half"):
            first.send_signal(signal.SIGKILL)
            break
    first.wait()
    assert not (tmp_path / "ppocr_cls.mlpackage").exists()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment(), check=False)
    assert second.returncode == 0, second.stderr
    before = [line.split()[0] for line in second.stdout.splitlines() if "measured before" in line]
    assert before == ["half"]


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1]), "PYTHONUNBUFFERED": "1"}


def test_steps_build_on_what_was_kept() -> None:
    int8, mixed, prune = (next(s for s in STEPS if s.name == n) for n in ("int8", "mixed 80 %", "prune 10 %"))
    assert mixed.after(int8, 1000) == {"quantize": "mixed", "budget": 800}
    assert prune.after(int8, 1000) == {"quantize": "int8", "prune": 0.1}
    assert int8.after(prune.upon(Step("half")), 1000) == {"quantize": "int8", "prune": 0.1}


def test_a_step_upon_another_one_has_a_package_of_its_own() -> None:
    half, int8, prune = (next(s for s in STEPS if s.name == n) for n in ("half", "int8", "prune 10 %"))
    names = [steps.package_name(prune, prune.after(kept, 1000)) for kept in (half, int8, int8)]
    assert names[0] != names[1], "what was measured before must not be another package now"
    assert names[1] == names[2]


def test_steps_that_a_release_has_not_are_left_out_or_refused() -> None:
    assert "palette4" not in [s.name for s in steps.chosen((), 17)]
    with pytest.raises(UserError, match="needs iOS 18"):
        steps.chosen(["palette4"], 17)
    with pytest.raises(UserError, match=r"no step 'int9'.*int8"):
        steps.chosen(["int9"], 18)


def test_mistakes_are_one_sentence_before_anything_is_tried(planish: Run, asked: list[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", picture=np.zeros((2, 1, 3, 48, 192), np.float32))
    (tmp_path / "mine.py").write_text(
        "def fails(outputs, sample):\n    return outputs['z']\ndef nan(outputs, sample):\n    return float('nan')\n"
    )
    for more, text in {
        ("--metric", "mine.py:fails"): "the metric fails of mine.py failed: KeyError: 'z'",
        ("--metric", "mine.py:nan"): "the metric nan of mine.py gave nan, which is no number to judge by",
        ("--metric", "accuracy"): "the metric 'accuracy' needs an array 'label' among the data",
        ("--data", "wrong.npz"): "there is no array for input 'x' in wrong.npz, only for 'picture'",
        ("--calibrate", "wrong.npz"): "there is no array for input 'x' in wrong.npz, only for 'picture'",
        ("--max-drop", "little"): "--max-drop little is no drop",
        ("--max-drop", "1%"): "the original's metric is 0, of which there is no percentage",
        ("-o", "none/a.mlpackage"): "there is no folder for none/a.mlpackage",
        ("--json", "none/a.json"): "there is no folder for none/a.json",
        ("--step", "int9"): "the ladder has no step 'int9'",
    }.items():
        code, out, err = planish("optimize", *asked, "--max-drop", "0.02", *more)
        assert (code, text in err, out) == (2, True, ""), err
        assert not Path("ppocr_cls.mlpackage").exists()


def test_a_damaged_journal_is_an_error_and_one_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a")
    journal.put("half", Measured(refused="why"))
    assert Journal(tmp_path, "a").get("half") == Measured(refused="why")
    assert Journal(tmp_path, "b").get("half") is None
    (tmp_path / "ladder.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Journal(tmp_path, "a")


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 4)), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int, int]]) -> None:
    tried = [Trial(Step("s"), {}, Measured("p", size, ms), drop=drop) for size, ms, drop in points]
    found = front(tried, allowed=3.0)
    for trial, point in zip(tried, points, strict=True):
        others = [p for p in points if p[2] <= 3 and p != point]
        beaten = any(all(a <= b for a, b in zip(other, point, strict=True)) for other in others)
        assert (trial in found) == (point[2] <= 3 and not beaten)
