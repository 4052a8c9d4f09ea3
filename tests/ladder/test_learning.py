"""Steps in which a pruned model learns: better than without, and a climb that is killed meanwhile goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compiler.ladder import STEPS, Step
from compiler.ladder.judge import Learning
from tests.distil import small
from tests.ladder.test_ladder import _environment

Run = Callable[..., tuple[int, str, str]]
pytest.importorskip("jax")
PRUNE, DISTIL = "prune 20 %", "distil 20 %"


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    small.write(tmp_path)
    np.savez(tmp_path / "learn.npz", x=small.pictures(400, np.random.default_rng(1)))
    start = [str(tmp_path / "small.onnx"), "--data", "data.npz", "--metric", "error"]
    return [*start, "--learn", "learn.npz"]


def steps(*names: str) -> list[str]:
    return [word for name in names for word in ("--step", name)]


def test_what_learned_is_kept_where_it_would_not_be_without(planish: Run, asked: list[str]) -> None:
    code, out, err = planish(
        "optimize", *asked, *steps("half", PRUNE, DISTIL), "--max-drop", "0.065", "--json", "a.json", "-o",
        "a.mlpackage",
    )  # fmt: skip
    assert code == 0, err
    trials = {t["step"]: t for t in json.loads(Path("a.json").read_text())["trials"]}
    assert trials[DISTIL]["options"] == {"distil": 0.2}
    assert trials[DISTIL]["macs"] == trials[PRUNE]["macs"]
    assert trials[DISTIL]["drop"] < 0.8 * trials[PRUNE]["drop"]
    assert [t["kept"] for t in trials.values()] == [True, False, True]
    assert "learning, step   300" in out
    assert f"a.mlpackage: {DISTIL}" in out
    assert not list(Path("small.ladder").glob("*.work")), "nothing is left of training"


def test_a_climb_that_is_killed_in_the_middle_of_learning_goes_on_there(asked: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", "optimize", *asked]
    command += [*steps("half", DISTIL), "--learn-steps", "50", "--max-drop", "0.2"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=_environment())
    assert first.stdout is not None
    for line in first.stdout:
        if "learning, step    25" in line:
            first.send_signal(signal.SIGKILL)
            break
    first.wait()
    assert not (tmp_path / "small.mlpackage").exists()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment(), check=False)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("measured before") == 1
    learning = [line.split()[2] for line in second.stdout.splitlines() if "learning, step" in line]
    assert learning == ["50:"], "what was learned is not learned again"


def test_without_jax_a_step_that_learns_is_refused_and_tried_again_with_it(
    planish: Run, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr(Learning, "installed", staticmethod(lambda: False))
        code, out, err = planish("optimize", *asked, *steps("half", DISTIL), "--max-drop", "0.5")
        assert code == 0, err
        assert "refused: distilling needs JAX and Optax" in out
    journal = json.loads(Path("small.ladder/ladder.json").read_text())
    assert len(journal["measured"]) == 1, "it may be installed by the next time"


def test_what_is_learned_from_must_fit(planish: Run, asked: list[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", picture=np.zeros((4, 1, 3, 8, 8), np.float32))
    (tmp_path / "empty").mkdir()
    for learn, text in {
        "other.npz": "there is no array for input 'x' in other.npz, only for 'picture'",
        "empty": "the folder empty holds no .npz file",
        "none.npz": "cannot read the inputs none.npz",
    }.items():
        code, _, err = planish("optimize", *asked, *steps(DISTIL), "--max-drop", "0.2", "--learn", learn)
        assert (code, text in err) == (2, True), err
        assert not Path("small.mlpackage").exists()


def test_a_step_that_learns_is_left_out_where_more_channels_are_gone_already() -> None:
    known = {s.name: s for s in STEPS}
    kept = known["prune 30 %"].upon(Step("int8", "int8"))
    assert known["distil 20 %"].is_idle(kept)
    assert not known["distil 40 %"].is_idle(kept)
    assert known["distil 40 %"].after(kept, 1) == {"quantize": "int8", "distil": 0.4}
    learned = known["distil 40 %"].upon(kept)
    assert known["palette6"].after(learned, 1) == {"quantize": "palette6", "distil": 0.4}
