"""The plan as Swift: what it says, and that a Swift compiler takes it with Metal as Apple documents it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import compiler
from codegen.metal import package
from codegen.metal.program import STORED

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[2,8,9] x) => (float[2,8,9] y, float[2,8,8] z) {
  a = Softmax (x) y = Tanh (a) t = Transpose <perm = [0,2,1]> (a) z = MatMul (a, t)
}"""


PICTURE = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1,3,8,9] x, float[1,3,8,9] r) => (float[1,3,8,9] y) { a = Sigmoid (x) y = Add (a, r) }"""


@pytest.fixture
def folder(tmp_path):
    made = compiler.compile(onnx.parser.parse_model(TEXT), target="metal", output=tmp_path / "m.metalpackage")
    return made.path


@pytest.fixture
def pictured(tmp_path):
    made = compiler.compile(
        onnx.parser.parse_model(PICTURE),
        target="metal",
        output=tmp_path / "p.metalpackage",
        wishes=compiler.Wishes(images=["x:bgr:scale=1/255"]),
    )
    return made.path


def test_it_says_what_the_plan_says(folder):
    text = (folder / package.SWIFT).read_text()
    plan = json.loads((folder / package.PLAN).read_text())
    steps = re.findall(r'Step\(kernel: "(\w+)", groups: (\d+), threads: (\d+), buffers: \[(.*?)\], waits', text)
    assert [(k, int(g), int(t), [int(b) for b in bs.split(", ")]) for k, g, t, bs in steps] == [
        (d["kernel"], d["groups"], d["threads"], [b["buffer"] for b in d["bindings"]]) for d in plan["dispatches"]
    ]
    assert f"static let heapBytes = {plan['heap']}\n" in text


def test_every_type_of_elements_is_known_in_swift():
    codegen = Path(package.__file__).parents[1]
    engine = (codegen / "swift/runtime/Sources/PlanishRuntime/MetalPlan.swift").read_text()
    host = (codegen / "metal/host/run.swift").read_text()
    for store, dtype in STORED.items():
        assert f'case "{store}": .{np.dtype(dtype).name}\n' in engine
        assert f'"{store}": {np.dtype(dtype).itemsize}' in host


def test_textures_are_bound_beside_buffers(pictured):
    text = (pictured / package.SWIFT).read_text()
    assert re.search(r'buffers: \[1, 2\], waits: false, textures: \["x"\]\)', text)
    assert "encodeIndirect" not in text  # indirect command buffers take no textures


@pytest.mark.parametrize("which", ["folder", "pictured"])
def test_a_swift_compiler_takes_it(which, tmp_path, request):
    folder = request.getfixturevalue(which)
    swiftc = shutil.which("swiftc")
    if swiftc is None:
        pytest.skip("there is no Swift compiler here")
    stand_in = Path(__file__).with_name("swift") / "Metal.swift"
    subprocess.run(
        [swiftc, "-emit-module", "-module-name", "Metal", "-o", tmp_path / "Metal.swiftmodule", stand_in], check=True
    )
    files = [folder / package.SWIFT, Path(package.__file__).with_name("host") / "run.swift"]
    done = subprocess.run(
        [swiftc, "-typecheck", "-parse-as-library", "-I", tmp_path, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
