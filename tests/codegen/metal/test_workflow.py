"""The job for a Mac, which has not been run: what it starts is there, and its steps do on Linux what can be done there.

``xcrun`` and the program it builds are stand-ins, which hold that they are given files that exist.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]

XCRUN = """#!/bin/sh
# Every argument that names a file of the package, or a source, must exist; what comes behind -o is made.
while [ $# -gt 0 ]; do
  case "$1" in
    -o) shift; printf '#!/bin/sh\\ntest -f "$1/plan.json" && test -d "$2" && test "$3" != "" && exit $STATUS\\n' > "$1"
        chmod +x "$1" ;;
    *.metal|*.swift|*.air) test -f "$1" || exit 3 ;;
  esac
  shift
done
"""


@pytest.fixture(scope="module")
def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github/workflows/metal.yml").read_text())


@pytest.fixture(scope="module")
def steps(workflow) -> list[str]:
    return [s["run"] for s in workflow["jobs"]["gpu"]["steps"] if "run" in s]


def test_what_it_names_is_there(workflow, steps):
    assert workflow["jobs"]["gpu"]["runs-on"].startswith("macos-")
    for pattern in workflow[True]["pull_request"]["paths"]:  # YAML 1.1 reads the key "on" as true
        assert list(ROOT.glob(pattern)), pattern
    text = "\n".join(steps)
    for module in re.findall(r"python -m (\S+)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"\b(?:codegen|benchmarks|rules|tests)/\S+", text):
        assert (ROOT / path).exists(), path


def test_its_steps_run_with_stand_ins(steps, tmp_path):
    (tmp_path / "xcrun").write_text(XCRUN)
    (tmp_path / "xcrun").chmod(0o755)
    for name in ("codegen", "benchmarks", "rules"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(step: str, status: int = 0) -> tuple[int, str]:
        """``status`` is what the program on the GPU ends with."""
        few = step.replace("metal_cases cases", "metal_cases cases 'conv variants'")  # a slice: all take a minute
        variables = {"PATH": f"{tmp_path}:{python}", "STATUS": str(status), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-e", "-c", few],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    for step in steps:
        if not step.startswith("pip "):
            code, said = run(step)
            assert code == 0, said
    code, said = run(steps[-1], status=1)
    assert code == 1
    assert said.count("failed: conv variants") == 6  # three sizes, in float and half
