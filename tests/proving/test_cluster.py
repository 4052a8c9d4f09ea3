"""``planish rules prove --cluster``: the same verdicts as here, from workers of Dask."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_cli import Run, planish

__all__ = ["planish"]

RULES = """
stage canonicalize
use onnx

rule doubled_is_squared "x + x is not x · x" {
  match   { y = Add(x, x) }
  rewrite { y = Mul(x, x) }
}

rule negated_four_times "x" {
  match   { y = Neg(Neg(Neg(Neg(x)))) }
  rewrite { y = x }
}
"""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with one worker, in processes as on two machines."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
            cwd=folder,
            env=environment,
            stderr=subprocess.DEVNULL,
        )

    running = [
        start("dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)),
        start("dask_worker", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(file)),
    ]
    try:
        import json

        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


def test_workers_prove_and_find_counterexamples(planish: Run, scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "mine.rules").write_text(RULES)
    code, out, err = planish("rules", "prove", "mine.rules", "--count", "10", "--cluster", scheduler)
    assert code == 1, err
    assert "doubled_is_squared: wrong" in out
    assert "1 of 2 rules proved" in out


def test_an_address_where_nobody_answers(planish: Run) -> None:
    code, _, err = planish("rules", "prove", "--rule", "identity", "--cluster", "nowhere")
    assert (code, "no scheduler answers at nowhere" in err) == (2, True)
