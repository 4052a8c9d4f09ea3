"""Packages of parts: joined by name, run in a row, served, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import compiler
from compiler.cli import planish_app
from compiler.cli.console import run
from compiler.errors import UserError
from compiler.execution.description import Description, Feature
from compiler.execution.parts import describe, join
from compiler.serving.loaded import Loaded
from tests.serving.client import Client
from tests.test_hybrid import LACKING, inputs, model


def _part(
    name: str, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]], dtype: str = "f32"
) -> Description:
    sides = [tuple(Feature(n, "tensor", dtype, s) for n, s in side.items()) for side in (inputs, outputs)]
    return Description(name, "mlprogram", *sides, os="ios17")


def test_parts_are_joined_by_name() -> None:
    a = _part("a", {"x": (1,), "m": (2,)}, {"h": (3,), "side": (1,)})
    b = _part("b", {"h": (3,), "m": (2,)}, {"y": (1,)})
    whole = join("w", [a, b])
    assert [f.name for f in whole.inputs] == ["x", "m"]
    assert [f.name for f in whole.outputs] == ["side", "y"]
    assert [f.name for f in join("w", [a, b], ["y", "h"]).outputs] == ["y", "h"]
    with pytest.raises(UserError, match="no part of 'w' makes 'z'"):
        join("w", [a, b], ["z"])
    with pytest.raises(UserError, match=r"'h' is f32\[3\] where it is made, and part 'b' takes f32\[4\]"):
        join("w", [a, _part("b", {"h": (4,)}, {"y": (1,)})])
    with pytest.raises(UserError, match="part 'b' takes i32"):
        join("w", [a, _part("b", {"h": (3,)}, {"y": (1,)}, "i32")])
    assert join("w", [a, _part("b", {"h": (3,)}, {"y": (1,)}, "f16")]).inputs[0].dtype == "f32"


def test_a_folder_of_parts_is_described_and_served(tmp_path: Path) -> None:
    path = tmp_path / "warp.hybridpackage"
    compiler.compile(model(), output=path, hybrid=True, inputs=inputs(), disable_rules=[LACKING])
    whole, parts = describe(path)
    assert (whole.kind, [p.kind for p in parts]) == ("hybrid", ["mlprogram", "metal", "mlprogram"])
    np.savez(tmp_path / "in.npz", **inputs())
    words = ["run", str(path), "--inputs", str(tmp_path / "in.npz"), "--outputs", str(tmp_path / "out.npz")]
    assert run(planish_app, "planish", words) == 0
    loaded = Loaded(path)
    with np.load(tmp_path / "out.npz") as wanted, Client(path) as client:
        _, served = client.ask({"id": 1}, **inputs())
        for _ in range(2):  # a second call finds everything as the first did
            again = loaded.run(inputs())
            for name in whole.outputs:
                assert np.array_equal(again[name.name], wanted[name.name])
                assert np.array_equal(served[name.name], wanted[name.name])
        header, _ = client.ask({"id": 2}, x=inputs()["x"])
        assert "no tensor for input 'grid'" in header["error"]["message"]
    (path / "1.metalpackage" / "plan.json").unlink()
    with pytest.raises(UserError):
        Loaded(path)
