"""Training by itself: checkpoints between judgements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")

from compiler.distil import train as training
from compiler.distil.train import Schedule, train


class Killed(Exception):
    pass


def test_what_was_learnt_between_judgements_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_KEEP_EVERY", -1.0)
    rng = np.random.default_rng(0)
    samples = list(rng.standard_normal((12, 3)).astype(np.float32))
    seen: list[str] = []

    def run(name: str, stop: int = 0):
        def at(what: str) -> None:
            seen.append(what)
            if stop and what.startswith(f"step {stop} of"):
                raise Killed

        def losses(parameters, batch):
            return ((batch - parameters["w"]) ** 2).sum(axis=1)

        start = {"w": np.full(3, 5.0, np.float32)}
        schedule = Schedule(9, 2, 1e-1, every=6)
        return train(start, losses, samples[:8], samples[8:], schedule, tmp_path / name, "a task", at=at)

    with pytest.raises(Killed):
        run("killed", stop=5)
    seen.clear()
    resumed, whole = run("killed"), run("whole")
    assert seen[0].startswith("step 5 of 9")
    np.testing.assert_array_equal(resumed.parameters["w"], whole.parameters["w"])
    assert resumed.history == whole.history
