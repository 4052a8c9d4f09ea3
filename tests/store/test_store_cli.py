"""``planish store`` on a real model: kept, compared, promoted, written out again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "ppocr_cls.onnx"
SHAPE = ("--shape", "x=1,3,48,192", "-q")


def test_two_versions_of_a_model(compile_: Run, planish: Run, tmp_path: Path) -> None:
    model = shutil.copy(EXAMPLE, tmp_path)
    assert compile_(model, *SHAPE, "-o", "half.mlpackage", "--json", "half.json")[0] == 0
    assert compile_(model, *SHAPE, "--quantize", "int8", "-o", "int8.mlpackage", "--json", "int8.json")[0] == 0
    assert planish("store", "add", model)[0] == 0
    for name, metric in (("half", 0.98), ("int8", 0.97)):
        added = ("--report", f"{name}.json", "--metric", f"accuracy={metric}", "--tag", name)
        assert planish("store", "add", f"{name}.mlpackage", *added)[0] == 0

    listed = json.loads(planish("store", "list", "--json")[1])
    original = next(a for a in listed if a["kind"] == "original")
    assert [a["parent"] for a in listed if a["kind"] == "package"] == [original["id"]] * 2

    found = json.loads(planish("store", "diff", "half", "int8", "--json", "--graph")[1])
    before, after = found["bytes"]["total"]
    assert after < 0.8 * before
    plain, small = found["estimates"]["memory_mb"]
    assert small < 0.9 * plain, "what is predicted is predicted of the compressed package"
    assert found["metrics"]["accuracy"] == [0.98, 0.97]
    assert found["made"]["recipe.settings"][1].startswith("int8")
    assert any("constexpr" in line for line in found["graph"] if line.startswith("+"))

    assert planish("store", "promote", "int8", "production", "--note", "smaller")[0] == 0
    assert planish("store", "get", "@production", "-o", "out.mlpackage")[0] == 0
    ours, theirs = (tmp_path / name / "Manifest.json" for name in ("out.mlpackage", "int8.mlpackage"))
    assert ours.read_bytes() == theirs.read_bytes()
    code, out, _ = planish("store", "verify")
    assert (code, out) == (0, "  3 artifacts, all whole\n")


def test_damage_is_exit_code_1_and_mistakes_2(planish: Run, tmp_path: Path) -> None:
    assert planish("store", "list")[0] == 2, "there is no store yet"
    assert planish("store", "add", EXAMPLE, "--tag", "x")[0] == 0
    assert planish("store", "add", tmp_path / "nothing.onnx")[0] == 2
    assert planish("store", "get", "nobody", "-o", "out")[0] == 2
    objects = [p for p in (tmp_path / "planish.store" / "objects").rglob("*") if p.is_file()]
    objects[0].unlink()
    code, out, _ = planish("store", "verify")
    assert code == 1
    assert "its file ppocr_cls.onnx is missing" in out
