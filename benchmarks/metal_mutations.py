"""How many mistakes in Metal kernels are found: by the checker, or by a run in several orders of threads.

    python -m benchmarks.metal_mutations [FAMILY …] [--mutants 400] [--seed 0] [--kind KIND]

The kernels of the smallest case of each family (benchmarks/metal_families.py) are mutated one at a time and run on what
the right program gave them. A mutant is found by libclang and the lint, by clang, by a crash at a guard page, by
threads that do not meet, by results that depend on the order, or by results that are wrong. Prints the share by kind
and every survivor; exit code 1 below 95 %.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import compiler
from benchmarks.metal_families import FAMILIES, Case, cases
from benchmarks.metal_mutants import Mutant, mutants
from benchmarks.metal_sweep import LIMIT
from codegen.metal import executor, lint, package, toolchain
from codegen.metal.library import DispatchError
from codegen.metal.program import STORED, Buffer, Program
from codegen.metal.signature import SignatureError
from compiler.proof import compare

#: Orders of threads that a mutant runs in, and seconds that one may take.
ORDERS = (0, 1, 2)
SECONDS = 20


class Alone:
    """One dispatch of a program as a program, with what it reads and what it must write."""

    def __init__(self, whole: Program, step: int, memory: dict[int, np.ndarray], after: dict[int, np.ndarray]) -> None:
        d = whole.dispatches[step]
        head, *kernels = re.split(r"\n(?=//[^\n]*\n(?:// [^\n]*\n)*kernel void )", whole.source)
        text = next(k for k in kernels if f"kernel void {d.function}(" in k)
        used = list(dict.fromkeys(b.buffer for b in d.bindings))
        writes = {b.buffer for b in d.bindings if b.writes}
        buffers = []
        for i in used:
            b = whole.buffers[i]
            kind = "output" if i in writes else "input"
            declared = {"float": "f32", "half": "f16", "int": "i32", "bool": "bool", "char": "i8", "uchar": "u8"}[
                b.store
            ]
            buffers.append(Buffer(f"b{i}", kind, b.store, b.shape, declared, pixels=b.pixels))  # type: ignore[arg-type]
        bindings = tuple(replace(b, buffer=used.index(b.buffer)) for b in d.bindings)
        dispatch = replace(d, bindings=bindings, wait=True)
        self.program = Program("alone", f"{head}\n{text}", buffers, [dispatch])
        self.inputs = {f"b{i}": memory[i] for i in used if i not in writes}
        self.expected = {f"b{i}": _own(after[i], memory.get(i)) for i in writes}
        self.limit = LIMIT["fp16" if any(b.store == "half" for b in buffers) else "fp32"]


def _own(after: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """What a dispatch wrote of a buffer in which kernels before it have written their parts."""
    if before is None or after.dtype.kind != "f":
        return after
    return np.where(np.isnan(before.reshape(after.shape)), after, np.array(np.nan, after.dtype))


def found_by(alone: Alone, program: Program) -> str | None:
    """What finds that a variant of a kernel is wrong; None if nothing does."""
    if lint.check(program.source):
        return "checker"
    results = []
    try:
        session = executor.Session(program, ("-O1", *executor.FLAGS[1:]))
        for order in ORDERS:
            results.append(session.run(alone.inputs, order, SECONDS))
    except (SignatureError, toolchain.BuildError):
        return "compiler"
    except DispatchError as e:
        return "crash" if "outside" in str(e) or "end" in str(e) else "threads"
    for name in alone.expected:
        for other in results[1:]:
            if not np.array_equal(results[0][name], other[name], equal_nan=other[name].dtype.kind == "f"):
                return "order"
    for name, expected in alone.expected.items():
        got = results[0][name]
        holes = np.isnan(expected) if expected.dtype.kind == "f" else np.zeros(expected.shape, bool)
        if expected.dtype.kind == "f" and not np.array_equal(np.isnan(got), holes):
            return "result"  # it writes what is not its own, or leaves out something
        if compare(got[~holes], expected[~holes]).badness > alone.limit:
            return "result"
    return None


def kernels(case: Case, precision: str = "fp32") -> Iterator[Alone]:
    """The different kernels of a model, each alone."""
    with tempfile.TemporaryDirectory() as folder:
        made = compiler.compile(
            case.model(),
            target="metal",
            output=Path(folder) / "m.metalpackage",
            precision=precision,
            inputs=dict(case.inputs) if case.inputs else None,
            wishes=compiler.Wishes(images=case.images) if case.images else None,
        )
        program = package.read(made.path)
        inputs = _inputs(program, case)
        session = executor.Session(program)
        memory = {
            i: np.array(inputs[b.name] if (b := program.buffers[i]).pixels else a)
            for i, a in session.given(inputs).items()
        }
        written = iter(session.trace(inputs))
        seen: set[str] = set()
        for step, d in enumerate(program.dispatches):
            after = {b.buffer: next(written) for b in d.bindings if b.writes}
            if d.kernel not in seen:
                seen.add(d.kernel)
                yield Alone(program, step, dict(memory), after)
            memory.update(after)


def _inputs(program: Program, case: Case) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    given = dict(case.inputs or {})
    for i in program.of_kind("input"):
        b = program.buffers[i]
        if b.name not in given:
            given[b.name] = rng.standard_normal(b.shape).astype(STORED[b.store])
    return given


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--mutants", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="only mutants of this kind")
    options = parser.parse_args()
    pool: list[tuple[str, Alone, Mutant]] = []
    for family in options.families or FAMILIES:
        for alone in kernels(next(cases(family))):
            if (by := found_by(alone, alone.program)) is not None:
                raise SystemExit(f"a right kernel of {family} is called wrong by its {by}: {alone.program.source}")
            for m in mutants(alone.program):
                if options.kind in (None, m.kind):
                    pool.append((family, alone, m))
    chosen = random.Random(options.seed).sample(pool, min(options.mutants, len(pool)))
    total: Counter[str] = Counter()
    found: Counter[str] = Counter()
    means: Counter[str] = Counter()
    for family, alone, m in chosen:
        total[m.kind] += 1
        by = found_by(alone, m.program)
        if by is None:
            print(f"survives: {family} {alone.program.dispatches[0].kernel}, {m.kind}: {m.where}", flush=True)
        else:
            found[m.kind] += 1
            means[by] += 1
    for kind, n in total.most_common():
        print(f"{kind:24} {found[kind]:4} of {n}")
    print(", ".join(f"{by} {n}" for by, n in means.most_common()))
    share = found.total() / max(1, total.total())
    print(f"{found.total()} of {total.total()} of {len(pool)} mutants found: {100 * share:.1f} %")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
