"""Layout assignment: what is moved, what is not, and that nothing is computed otherwise."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from compiler import driver, ir
from compiler.ir import clone_module
from compiler.proof import run_mil
from passes import cse, layout
from passes.layout import cut
from passes.layout.axes import Factor, moves, order, shape_of

LIBRARY = driver.load_library(driver.Options())


def module(text: str) -> ir.Module:
    return ir.parse_module(text)


def laid(text: str) -> tuple[list[str], int]:
    """The operators after the pass, constants left out, and how many layout operators stand inside; values checked."""
    before = module(text)
    after = clone_module(before)
    layout.run(after)
    cse.run(after)
    ir.verify(after)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(a.type.static_shape).astype(np.float32) for a in before.main.inputs]
    inside = layout.interior(after)
    names = [op.name[4:] for op in after.main.block.ops if op.defn.constant is None and not op.defn.terminator]
    for a, b in zip(run_mil(before, [inputs], LIBRARY)[0], run_mil(after, [inputs], LIBRARY)[0], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return names, inside


# ---- moving


def arrangements(rng: random.Random) -> tuple[list[Factor], tuple, tuple]:
    factors = [Factor(n) for n in range(2, rng.randint(3, 9))]

    def arranged():
        some = factors[:]
        rng.shuffle(some)
        groups: list[tuple[Factor, ...]] = [() for _ in range(rng.randint(1, 5))]
        cuts = sorted(rng.randint(0, len(some)) for _ in range(len(groups) - 1))
        return tuple(tuple(some[a:b]) for a, b in itertools.pairwise([0, *cuts, len(some)]))

    return factors, arranged(), arranged()


@pytest.mark.parametrize("seed", range(200))
def test_moves_bring_every_element_to_its_place(seed):
    factors, have, want = arrangements(random.Random(seed))
    sizes = [f.size for f in factors]
    numbers = np.arange(np.prod(sizes)).reshape(sizes)

    def lying(arrangement):
        return numbers.transpose([factors.index(f) for f in order(arrangement)]).reshape(shape_of(arrangement))

    array = lying(have)
    for kind, data in moves(have, want):
        assert array.ndim <= 5
        array = array.transpose(data) if kind == "transpose" else array.reshape(data)
    np.testing.assert_array_equal(array, lying(want))


def test_a_permutation_is_one_step_and_a_head_split_is_two():
    s, h, d = Factor(5), Factor(2), Factor(3)
    assert moves(((), (s,), (d,)), ((), (d,), (s,))) == [("transpose", (0, 2, 1))]
    assert moves(((), (s,), (h, d)), ((), (h,), (s,), (d,))) == [
        ("reshape", (1, 5, 2, 3)),
        ("transpose", (0, 2, 1, 3)),
    ]


# ---- deciding


@pytest.mark.parametrize("seed", range(60))
def test_the_cut_is_the_best_of_all_choices(seed):
    rng = random.Random(seed)
    n = rng.randint(2, 7)
    terms = cut.Terms()
    pairs = []
    alone = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in range(n)]
    for i, (keep, take) in enumerate(alone):
        terms.one(i, keep, take)
    for a, b in itertools.combinations(range(n), 2):
        if rng.random() < 0.6:
            costs = rng.randint(0, 3), rng.randint(3, 9), rng.randint(3, 9), rng.randint(0, 3)
            pairs.append((a, b, costs))
            terms.two(a, b, *costs)

    def energy(choice):
        return sum(alone[i][c] for i, c in enumerate(choice)) + sum(
            costs[2 * choice[a] + choice[b]] for a, b, costs in pairs
        )

    kept, taken = ((Factor(2),),), ((Factor(3),),)
    found = cut.expand([kept] * n, dict.fromkeys(range(n), taken), terms)
    best = min(energy(c) for c in itertools.product((0, 1), repeat=n))
    assert energy([int(a is taken) for a in found]) == best


# ---- whole graphs


def test_channels_last_between_convolutions_costs_nothing():
    names, inside = laid("""
module @m {
  func @main(%x: tensor<1x4x5x6xf32>) -> (%y: tensor<1x4x5x6xf32>) {
    %w = mil.const() {val = dense<0.5>} : tensor<4x1x3x3xf32>
    %g = mil.const() {val = dense<[1.0, 2.0, 3.0, 4.0]>} : tensor<4xf32>
    %a = mil.conv(%x, %w) {pad = [1, 1, 1, 1], pad_type = "custom", groups = 4, strides = [1, 1], dilations = [1, 1]}
      : tensor<1x4x5x6xf32>
    %b = mil.transpose(%a) {perm = [0, 2, 3, 1]} : tensor<1x5x6x4xf32>
    %c = mil.layer_norm(%b, %g, %g) {axes = [3]} : tensor<1x5x6x4xf32>
    %d = mil.mul(%c, %g) : tensor<1x5x6x4xf32>
    %e = mil.transpose(%d) {perm = [0, 3, 1, 2]} : tensor<1x4x5x6xf32>
    %f = mil.add(%a, %e) : tensor<1x4x5x6xf32>
    return %f
  }
}""")
    assert names == ["conv", "layer_norm", "mul", "add"]
    assert inside == 0


def test_two_branches_turned_alike_are_turned_once():
    names, _ = laid("""
module @m {
  func @main(%x: tensor<1x6x8xf32>, %z: tensor<1x8x6xf32>) -> (%y: tensor<1x6x16xf32>) {
    %a = mil.transpose(%z) {perm = [0, 2, 1]} : tensor<1x6x8xf32>
    %b = mil.relu(%a) : tensor<1x6x8xf32>
    %c = mil.tanh(%a) : tensor<1x6x8xf32>
    %d = mil.add(%b, %c) : tensor<1x6x8xf32>
    %e = mil.concat(%d, %x) {axis = 2} : tensor<1x6x16xf32>
    return %e
  }
}""")
    assert names.count("transpose") == 1


def test_reductions_keep_or_drop_their_axis_where_it_lies():
    names, inside = laid("""
module @m {
  func @main(%x: tensor<2x4x5x6xf32>) -> (%y: tensor<2x5x6xf32>) {
    %w = mil.const() {val = dense<0.5>} : tensor<4x1x1x1xf32>
    %a = mil.conv(%x, %w) {strides = [1, 1], pad = [0, 0, 0, 0], dilations = [1, 1], groups = 4} : tensor<2x4x5x6xf32>
    %b = mil.transpose(%a) {perm = [0, 2, 3, 1]} : tensor<2x5x6x4xf32>
    %c = mil.reduce_max(%b) {axes = [3]} : tensor<2x5x6xf32>
    %d = mil.exp(%c) : tensor<2x5x6xf32>
    return %d
  }
}""")
    assert names == ["conv", "reduce_max", "exp"]
    assert inside == 0


def test_heads_are_cut_from_channels():
    names, inside = laid("""
module @m {
  func @main(%x: tensor<1x5x6xf32>) -> (%y: tensor<1x1x5x3xf32>, %z: tensor<1x1x5x3xf32>) {
    %s = mil.const() {val = dense<[1, 5, 2, 3]>: tensor<4xi32>} : tensor<4xi32>
    %a = mil.relu(%x) : tensor<1x5x6xf32>
    %b = mil.reshape(%a, %s) : tensor<1x5x2x3xf32>
    %c = mil.transpose(%b) {perm = [0, 2, 1, 3]} : tensor<1x2x5x3xf32>
    %d, %e = mil.split(%c) {num_splits = 2, axis = 1} : (tensor<1x1x5x3xf32>, tensor<1x1x5x3xf32>)
    %f = mil.exp(%d) : tensor<1x1x5x3xf32>
    %g = mil.exp(%e) : tensor<1x1x5x3xf32>
    return %f, %g
  }
}""")
    assert inside == 0
    assert "reshape" not in names


def test_a_reshape_that_mixes_dimensions_stays():
    names, inside = laid("""
module @m {
  func @main(%x: tensor<4x9xf32>) -> (%y: tensor<6x6xf32>) {
    %s = mil.const() {val = dense<[6, 6]>: tensor<2xi32>} : tensor<2xi32>
    %a = mil.relu(%x) : tensor<4x9xf32>
    %b = mil.reshape(%a, %s) : tensor<6x6xf32>
    %c = mil.softmax(%b) {axis = 1} : tensor<6x6xf32>
    return %c
  }
}""")
    assert names == ["relu", "reshape", "softmax"]
    assert inside == 1


def test_open_dimensions_are_left_alone():
    text = """
module @m {
  func @main(%x: tensor<n x 9xf32>) -> (%y: tensor<9 x n xf32>) {
    %a = mil.relu(%x) : tensor<n x 9xf32>
    %b = mil.transpose(%a) {perm = [1, 0]} : tensor<9 x n xf32>
    %c = mil.relu(%b) : tensor<9 x n xf32>
    return %c
  }
}"""
    m = module(text)
    before = ir.print_module(m)
    layout.run(m)
    assert ir.print_module(m) == before
    assert layout.interior(m) == 1


def test_casts_do_not_make_a_reshape_inside():
    m = module("""
module @m {
  func @main(%x: tensor<4x9xf32>) -> (%y: tensor<9x4xf16>) {
    %a = mil.cast(%x) {dtype = "fp16"} : tensor<4x9xf16>
    %b = mil.transpose(%a) {perm = [1, 0]} : tensor<9x4xf16>
    %c = mil.relu(%b) : tensor<9x4xf16>
    return %c
  }
}""")
    assert layout.interior(m) == 0


def test_a_vector_of_one_that_loses_its_axis_is_a_number():
    names, _ = laid(
        """module @m {
          func @main(%x: tensor<f32>) -> (%y: tensor<f32>) {
            %one = mil.const() {val = dense<[0.5]>} : tensor<1xf32>
            %0 = mil.expand_dims(%x) {axes = [0, 1]} : tensor<1x1xf32>
            %1 = mil.equal(%0, %one) : tensor<1x1xbool>
            %2 = mil.cast(%1) {dtype = "fp32"} : tensor<1x1xf32>
            %y = mil.reduce_max(%2) {axes = [0, 1], keep_dims = false} : tensor<f32>
            return %y
          }
        }"""
    )
    assert "equal" in names


def test_one_part_is_joined_along_an_axis_of_one():
    """Of a layer whose sequence has one step, on the Neural Engine."""
    names, _ = laid(
        """module @m {
          func @main(%x: tensor<2x3xf32>) -> (%y: tensor<1x3x2xf32>) {
            %0 = mil.expand_dims(%x) {axes = [0]} : tensor<1x2x3xf32>
            %1 = mil.concat(%0) {axis = 0, interleave = false} : tensor<1x2x3xf32>
            %y = mil.transpose(%1) {perm = [0, 2, 1]} : tensor<1x3x2xf32>
            return %y
          }
        }"""
    )
    assert "concat" in names
