"""What a run of kernels on this machine reports: races, barriers that not all reach, indices outside, endless loops."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import metal_mutations
from benchmarks.metal_families import cases
from benchmarks.metal_mutants import mutants
from codegen.metal.executor import Session
from codegen.metal.library import DispatchError
from codegen.metal.program import Binding, Buffer, Dispatch, Program

HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"
SIGNATURE = (
    "kernel void k(device const float* x [[buffer(0)]], device float* y [[buffer(1)]], "
    "uint t [[thread_position_in_threadgroup]])"
)

#: Each of 64 threads gives what the opposite one has; the barrier between is what the tests take away or spoil.
SWAP = f"""{HEAD}{SIGNATURE} {{
    threadgroup float kept[64];
    kept[t] = x[t];
    WAIT
    y[t] = kept[63 - t];
}}
"""
WAIT = "threadgroup_barrier(mem_flags::mem_threadgroup);"


def session(source: str, size: int = 64, dispatches: int = 1, wait: bool = True) -> Session:
    buffers = [Buffer("x", "input", "float", (size,), "f32"), Buffer("y", "output", "float", (size,), "f32")]
    steps = [Dispatch("k", 1, size, (Binding(0), Binding(1, True)), "map", wait=wait)] * dispatches
    return Session(Program("p", source, buffers, steps))


X = {"x": np.arange(64, dtype=np.float32)}


def test_a_right_kernel_gives_the_same_in_every_order() -> None:
    made = session(SWAP.replace("WAIT", WAIT))
    for order in range(4):
        np.testing.assert_array_equal(made.run(X, order)["y"], X["x"][::-1])


def test_a_missing_barrier_shows_as_a_result_that_depends_on_the_order() -> None:
    made = session(SWAP.replace("WAIT", "threadgroup float unused; unused = simd_sum(x[t]);"))
    first, second = (made.run(X, order)["y"] for order in (0, 1))
    assert not np.array_equal(first, second, equal_nan=True)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (f"if (t < 32) {{ {WAIT} }}", "some threads ended while others wait at a barrier"),
        (f"if (t < 32) {{ {WAIT} }} else {{ {WAIT} }}", "threads wait at different barriers"),
        (f"{WAIT} if (t % 2 == 0) {{ y[t] = simd_sum(x[t]); }} else {{ {WAIT} }}", "lanes of a simdgroup diverge"),
    ],
)
def test_barriers_that_not_all_reach_are_reported(spoilt: str, said: str) -> None:
    with pytest.raises(DispatchError, match=f"k: .*{said}"):
        session(SWAP.replace("WAIT", spoilt)).run(X)


@pytest.mark.parametrize(
    ("body", "order", "said"),
    [
        ("y[t] = x[t + 1];", 0, "outside its buffers"),
        ("y[t] = x[int(t) - 1];", 1, "outside its buffers"),
        ("y[t + 1] = x[t];", 0, "outside its buffers"),
        ("thread float own[4]; own[t] = x[t]; y[t] = own[t & 3];", 0, "outside an array of its own"),
        ("threadgroup float own[32]; own[t] = x[t]; y[t] = own[t];", 0, "outside an array of its own"),
        ("while (x[t] >= 0.0f) { y[t] = x[t]; }", 0, "does not end"),
    ],
)
def test_what_leaves_its_memory_or_does_not_end_is_named(body: str, order: int, said: str) -> None:
    with pytest.raises(DispatchError, match=f"k: .*{said}"):
        session(f"{HEAD}{SIGNATURE} {{ {body} }}\n").run(X, order, seconds=1)


def test_dispatches_between_two_barriers_run_backwards_in_another_order() -> None:
    source = f"{HEAD}{SIGNATURE} {{ y[t] = x[t]; }}\n" + SIGNATURE.replace(" k(", " l(") + " { y[t] = -x[t]; }\n"
    made = session(source)
    made.program.dispatches.append(Dispatch("l", 1, 64, made.program.dispatches[0].bindings, "map", wait=False))
    assert not np.array_equal(made.run(X, 0)["y"], made.run(X, 1)["y"])


@pytest.mark.parametrize("family", ["reduction", "recurrence"])
def test_mistakes_in_kernels_are_found(family: str) -> None:
    """Of each kernel some mistakes that cannot be right; benchmarks/metal_mutations.py has all kinds."""
    alone = next(metal_mutations.kernels(next(cases(family))))
    assert metal_mutations.found_by(alone, alone.program) is None
    kinds = {"barrier removed": 2, "barrier divergent": 1, "index off by one": 2, "loop bound": 2, "sum forgets": 1}
    tried = 0
    for mutant in mutants(alone.program):
        if kinds.get(mutant.kind, 0):
            kinds[mutant.kind] -= 1
            tried += 1
            assert metal_mutations.found_by(alone, mutant.program) is not None, mutant.where
    assert tried >= 4
