"""A generated Swift package with real models, the Swift tests beside them, and what the models must give."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.utils import Extractor

import compiler
import compiler.driver
from codegen.swift import package
from compiler.serving.frames import DTYPES
from compiler.serving.loaded import Loaded
from compiler.target import Target

HERE = Path(__file__).parent
LIBRARY = "Models"


class Workspace:
    """Everything in one folder: packages, the generated package with tests, cases, a command that serves."""

    def __init__(self, folder: Path, models: Path, pairs: Path) -> None:
        self.folder, self.models = folder, models
        self.cases: dict[str, Any] = {}
        rng = np.random.default_rng(7)

        gesture = self._compile("gesture_mlp", "Gesture", wishes=compiler.Wishes(batch="1..64"))
        self._case("Gesture", gesture, [{"input": rng.standard_normal((1, 42)).astype(np.float32)} for _ in range(32)])
        rows = {"x": (1, 3, 48, 192)}
        direction = self._compile("ppocr_cls", "Direction", shapes=rows, wishes=compiler.Wishes(batch="1,4,8"))
        self._case("Direction", direction, [{"x": rng.random(rows["x"]).astype(np.float32)} for _ in range(8)])

        labels = folder / "labels.txt"
        labels.write_text("upright\nupside down\n", encoding="utf-8")
        wishes = compiler.Wishes(
            images=["x:scale=1/127.5:mean=1"],
            labels=str(labels),
            describe={"x": "A line of text."},
            description="Which way a line of text is up.",
            license="Apache-2.0",
        )
        picture = self._compile("ppocr_cls", "Picture", shapes=rows, wishes=wishes)
        self._case("Picture", picture, [{"x": rng.integers(0, 256, (48, 192, 3), np.uint8)} for _ in range(3)])

        audio = self._compile("melspectrogram", "Spectrum", shapes={"input": (1, 16000)})
        self._case("Spectrum", audio, [{"input": rng.standard_normal((1, 16000)).astype(np.float32)}])
        text = self._compile("tashkeel_bilstm_int8", "Vowels", shapes={"input": (1, 24)})
        (name,) = [f.name for f in Loaded(text).description.inputs]
        self._case("Vowels", text, [{name: rng.integers(0, 20, (1, 24)).astype(np.int32)}])

        wishes = compiler.Wishes(states=["state:stateN"])
        speech = self._compile("silero_vad_op18", "Speech", shapes={"input": (1, 576)}, os="ios18", wishes=wishes)
        frames = [{"input": rng.standard_normal((1, 576)).astype(np.float32), "sr": np.int32(16000)} for _ in range(6)]
        self._case("Speech", speech, frames, in_a_row=True)
        first, second = self._halves("gesture_mlp")
        hands = self._bundle("gesture_mlp")
        warp = self._warp(pairs / "stn_grid_sample" / "model.onnx")

        self.package = folder / "package"
        package.write([gesture, direction, picture, audio, text, speech, hands, warp], self.package, LIBRARY)
        # The hybrid is a package of its own; its sources join the others, so that one build does for all.
        hybrid = package.write([first, second], folder / "hybrid", "Halves", "WholeHand")
        self._join(hybrid.path)
        # Kernels give what the model declares, 64-bit integers; Core ML gives 32 bits.
        self.cases["WholeHand"] = [
            {**one, "outputs": {"class_ids": _array(_read(one["outputs"]["class_ids"]).astype(np.int64))}}
            for one in self.cases["Gesture"]
        ]
        (folder / "cases.json").write_text(json.dumps(self.cases), encoding="utf-8")
        self._add_tests()
        self.serve = self._command()

    def environment(self) -> dict[str, str]:
        """Variables by which the Swift tests find models, cases and the server."""
        return {
            **os.environ,
            "PLANISH": str(self.serve),
            "PLANISH_CASES": str(self.folder / "cases.json"),
            "PLANISH_PARTS": str(self.folder / "Warp.hybridpackage"),
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")]),
        }

    def swift(self, *words: str, timeout: int) -> subprocess.CompletedProcess[str]:
        """``swift WORDS`` in the package, built in a folder of its own."""
        return subprocess.run(
            ["swift", *words, "--scratch-path", str(self.folder / "build")],
            cwd=self.package,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _compile(self, model: str, name: str, **options: Any) -> Path:
        source = self.models / model / "model.onnx"
        out = self.folder / f"{name}.mlpackage"
        return Path(compiler.compile(source, "ane", out, verify="fast", **options).path)

    def _bundle(self, model: str) -> Path:
        """A package with a function for one row and one for four; the cases are those of the second."""
        from compiler import multifunction

        source = self.models / model / "model.onnx"
        parts = [multifunction.parse_part(f"{n}={source}:input={rows},42") for n, rows in (("one", 1), ("four", 4))]
        options = compiler.driver.Options(Target.of("ane", "ios18"), verify="fast")
        path = multifunction.bundle(self.folder / "Hands.mlpackage", parts, options).path
        x = np.random.default_rng(3).standard_normal((4, 42)).astype(np.float32)
        self._case("HandsFour", path, [{"input": x}], function="four")
        return path

    def _warp(self, source: Path) -> Path:
        """A spatial transformer that samples bicubically, which Core ML has no operator for, as three parts."""
        proto = onnx.load(str(source))
        (sample,) = (n for n in proto.graph.node if n.op_type == "GridSample")
        (mode,) = (a for a in sample.attribute if a.name == "mode")
        mode.s = b"cubic"
        out = self.folder / "Warp.hybridpackage"
        how: dict[str, Any] = {"precision": "fp32", "verify": "fast", "disable_rules": ["lower_grid_sample_by_taps"]}
        path = Path(compiler.compile(proto, "ane", out, hybrid=True, **how).path)
        rng = np.random.default_rng(5)
        self._case("Warp", path, [{"in0": rng.random((1, 1, 36, 36)).astype(np.float32)} for _ in range(4)])
        return path

    def _halves(self, model: str) -> tuple[Path, Path]:
        """A model cut in the middle: the first half for Core ML, the second as Metal kernels."""
        proto = onnx.shape_inference.infer_shapes(onnx.load(str(self.models / model / "model.onnx")))
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        (cut,) = next(n for n in proto.graph.node if n.op_type == "Relu").output
        given, made = [i.name for i in proto.graph.input], [o.name for o in proto.graph.output]
        paths = []
        for name, ins, outs, target in (("front", given, [cut], "cpu"), ("back", [cut], made, "metal")):
            part = Extractor(onnx.shape_inference.infer_shapes(proto)).extract_model(ins, outs)
            suffix = "metalpackage" if target == "metal" else "mlpackage"
            wishes = None if target == "metal" else compiler.Wishes(rename={cut: "cut"})
            if target == "metal":
                for node in part.graph.node:
                    node.input[:] = ["cut" if i == cut else i for i in node.input]
                part.graph.input[0].name = "cut"
            out = self.folder / f"{name}.{suffix}"
            paths.append(Path(compiler.compile(part, target, out, verify="fast", wishes=wishes).path))
        return paths[0], paths[1]

    def _case(
        self,
        name: str,
        path: Path,
        inputs: list[dict[str, Any]],
        in_a_row: bool = False,
        function: str | None = None,
    ) -> None:
        loaded = Loaded(path, function)
        state = loaded.open_state() if in_a_row else None
        cases = []
        for one in inputs:
            arrays = {k: np.asarray(v) for k, v in one.items()}
            outputs = loaded.run(arrays, state)
            cases.append({"inputs": {k: _array(v) for k, v in arrays.items()}, "outputs": {}, "texts": {}})
            for key, value in outputs.items():
                if value.dtype.kind == "U":
                    cases[-1]["texts"][key] = str(value)
                else:
                    cases[-1]["outputs"][key] = _array(value)
        self.cases[name] = cases

    def _join(self, other: Path) -> None:
        sources = self.package / "Sources" / LIBRARY
        shutil.copy(other / "Sources" / "Halves" / "WholeHand.swift", sources)
        for part in (other / "Sources" / "Halves" / "Resources").iterdir():
            shutil.copytree(part, sources / "Resources" / part.name)
        manifest = self.package / "Package.swift"
        text = manifest.read_text(encoding="utf-8")
        copies = "".join(
            f'                .copy("Resources/{p.name}"),\n' for p in (other / "Sources/Halves/Resources").iterdir()
        )
        manifest.write_text(text.replace("            resources: [\n", f"            resources: [\n{copies}"))

    def _add_tests(self) -> None:
        shutil.copytree(HERE / "swift", self.package / "Tests" / "PlanishTests")
        manifest = self.package / "Package.swift"
        text = manifest.read_text(encoding="utf-8")
        test = f'        .testTarget(name: "PlanishTests", dependencies: ["PlanishRuntime", "{LIBRARY}"]),\n'
        manifest.write_text(text.replace("        .executableTarget(", f"{test}        .executableTarget("))

    def _command(self) -> Path:
        script = self.folder / "planish"
        code = "from compiler.cli import planish_main; planish_main()"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n', encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return script


def _array(array: np.ndarray) -> dict[str, Any]:
    names = {v: k for k, v in DTYPES.items()}
    return {
        "dtype": names[array.dtype],
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


def _read(array: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["data"]), DTYPES[array["dtype"]]).reshape(array["shape"])
