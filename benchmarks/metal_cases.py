"""Packages of every kernel family with inputs and what onnxruntime gives for them, for a run on a real GPU.

    python -m benchmarks.metal_cases FOLDER [FAMILY …]

writes FOLDER/N/m.metalpackage, FOLDER/N/case with NAME.in and NAME.out for each input and output as elements lie in
buffers, and FOLDER/list with a line for each: its number, the greatest relative L2 error, its family and sizes.
codegen/metal/host/run.swift runs one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

import compiler
from benchmarks.metal_families import FAMILIES, cases
from codegen.metal import package
from codegen.metal.program import STORED

#: What a GPU may be off by: fast math, its own exp, its own order of summing.
LIMIT = {"fp32": 1e-4, "fp16": 2e-2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    options = parser.parse_args()
    folder = options.folder
    lines: list[str] = []
    count = 0
    for family in options.families or FAMILIES:
        for case in cases(family):
            for precision, limit in LIMIT.items():
                place = folder / str(count)
                count += 1
                (place / "case").mkdir(parents=True)
                model = case.model()
                made = compiler.compile(
                    model,
                    target="metal",
                    output=place / "m.metalpackage",
                    precision=precision,
                    verify="off",
                    inputs=dict(case.inputs) if case.inputs else None,
                    wishes=compiler.Wishes(images=case.images) if case.images else None,
                )
                program = package.read(made.path)
                if any(b.rows >= 0 or b.pixels for b in program.buffers):
                    continue  # a buffer that is not full has no one expected content; the runner binds no textures
                rng = np.random.default_rng(0)
                given = dict(case.inputs or {})
                for b in (program.buffers[i] for i in program.of_kind("input")):
                    given.setdefault(b.name, rng.standard_normal(b.shape).astype(np.float32))
                    given[b.name].astype(STORED[b.store]).tofile(place / "case" / f"{b.name}.in")
                session = ort.InferenceSession(model.SerializeToString())
                names = [o.name for o in session.get_outputs()]
                expected = dict(zip(names, session.run(names, given), strict=True))
                for b in (program.buffers[i] for i in program.of_kind("output")):
                    expected[b.name].astype(STORED[b.store]).tofile(place / "case" / f"{b.name}.out")
                lines.append(f"{place.name} {limit} {family} {case.sizes} {precision}")
    (folder / "list").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
