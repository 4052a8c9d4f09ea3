"""Each ``*.ir`` file here is a test: a RUN line, a module, a line of dashes, and what comes out of the pipeline.

``pytest tests/golden --update-golden`` rewrites what stands below the dashes; read the difference before you commit it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401
from tests.golden import pipeline

HERE = Path(__file__).parent
CASES = sorted(HERE.rglob("*.ir"))


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.relative_to(HERE).with_suffix("").as_posix())
def test_golden(path: Path, golden: Callable[[Path, str], None]) -> None:
    golden(path, pipeline.run(path.read_text(encoding="utf-8"), path.name))


def test_a_pipeline_is_a_list_of_steps_with_options() -> None:
    steps = pipeline.parse_pipeline('pass cse, rules fuse {target = "ane", ios = 17}, roundtrip')
    assert steps == [("pass", "cse", {}), ("rules", "fuse", {"target": "ane", "ios": 17}), ("roundtrip", "", {})]


@pytest.mark.parametrize("line", ["passes cse", "pass cse; pass dce"])
def test_a_step_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no step in"):
        pipeline.parse_pipeline(line)


def test_a_file_without_a_run_line_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one line"):
        pipeline.run("module @m {\n}\n", "x.ir")
