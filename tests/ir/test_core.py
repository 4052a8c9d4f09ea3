"""Values, operators, blocks: uses, order, insertion and removal."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from compiler import ir
from tests.ir import toy  # noqa: F401 (registers the dialect)

T = ir.TensorType(ir.F32, (3,))


def relu(x: ir.Value) -> ir.Op:
    return ir.Op("toy.relu", [x], [T])


def block_of(count: int) -> tuple[ir.Block, list[ir.Op]]:
    block = ir.Block([T], ["x"])
    return block, [block.append(relu(block.arguments[0])) for _ in range(count)]


def test_uses_are_counted_per_slot_and_users_come_once() -> None:
    block, (a,) = block_of(1)
    both = block.append(ir.Op("toy.add", [a.result, a.result], [T]))
    assert (a.result.use_count, list(a.result.users)) == (2, [both])
    both.set_operand(0, block.arguments[0])
    assert (a.result.use_count, list(a.result.users)) == (1, [both])
    assert block.arguments[0].use_count == 2
    both.operands = ()
    assert a.is_unused
    assert list(block.arguments[0].users) == [a]


def test_replace_all_uses_reaches_into_regions() -> None:
    block, (a, b) = block_of(2)
    inner = ir.Block()
    deep = inner.append(ir.Op("toy.add", [a.result, a.result], [T]))
    block.append(ir.Op("toy.loop", [a.result], [T], regions=[inner]))
    a.result.replace_all_uses_with(a.result)
    assert a.result.use_count == 3
    a.result.replace_all_uses_with(b.result)
    assert a.is_unused
    assert (b.result.use_count, deep.operands) == (3, (b.result, b.result))


def test_erase_refuses_what_is_used_and_lets_go_of_what_regions_hold() -> None:
    block, (a, b) = block_of(2)
    inner = ir.Block()
    first = inner.append(relu(a.result))
    inner.append(relu(first.result))
    loop = block.append(ir.Op("toy.loop", [b.result], [T], regions=[inner]))
    with pytest.raises(ValueError, match=r"cannot erase toy\.relu: toy\.relu still uses its result"):
        a.erase()
    loop.erase()
    assert a.is_unused
    assert b.is_unused
    assert (len(block), len(inner), loop.block) == (2, 0, None)


def test_clear_empties_a_block_and_its_uses() -> None:
    block, (a,) = block_of(1)
    b = block.append(relu(a.result))
    block.append(relu(b.result))
    block.clear()
    assert (len(block), block.first, block.last, block.arguments[0].use_count) == (0, None, None, 0)


def test_insert_and_remove_at_all_places() -> None:
    block, (a, b) = block_of(2)
    x = block.arguments[0]
    start, end = block.insert_after(None, relu(x)), block.insert_before(None, relu(x))
    middle = block.insert_before(b, relu(x))
    after = block.insert_after(middle, relu(x))
    order = [start, a, middle, after, b, end]
    assert list(block.ops) == order
    assert [op.next for op in order] == [*order[1:], None]
    assert [op.prev for op in order] == [None, *order[:-1]]
    assert all(p.comes_before(q) and not q.comes_before(p) for p, q in pairwise(order))
    for op in (start, middle, end):
        block.remove(op)
    assert list(block.ops) == [a, after, b]
    assert (block.first, block.last) == (a, b)
    with pytest.raises(ValueError, match="does not stand in this block"):
        block.remove(middle)
    with pytest.raises(ValueError, match="already stands in a block"):
        block.append(a)


@pytest.mark.parametrize("place", ["front", "before one", "after one", "before the last", "anywhere"])
def test_order_keys_hold_after_many_insertions(place: str) -> None:
    block, (_, middle, last) = block_of(3)
    rng = random.Random(0)
    ops = list(block.ops)
    for _ in range(3000):
        op = relu(block.arguments[0])
        if place == "front":
            block.insert_after(None, op)
        elif place == "before one":
            block.insert_before(middle, op)
        elif place == "after one":
            block.insert_after(middle, op)
        elif place == "before the last":
            block.insert_before(last, op)
        else:
            block.insert_before(rng.choice(ops), op)
            ops.append(op)
    order = list(block.ops)
    assert len(order) == len(block) == 3003
    assert all(a._order < b._order for a, b in pairwise(order))


def test_insertions_at_one_place_of_a_long_block_stay_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    block, ops = block_of(20_000)
    moved = 0

    class Counting(ir.Op):
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            nonlocal moved
            moved += name == "_order"
            super().__setattr__(name, value)

    for _ in range(2000):
        op = Counting("toy.relu", [block.arguments[0]], [T])
        block.insert_before(ops[10_000], op)
    assert moved < 2000 * 40


def test_iteration_survives_mutation() -> None:
    block, (a, b, c) = block_of(3)
    met = []
    for op in block.ops:
        met.append(op)
        if op is a:
            a.erase()
        elif op is b:
            added = block.insert_after(b, relu(block.arguments[0]))
            c.erase()
    assert met == [a, b, added]


def test_walk_meets_an_operator_before_its_regions() -> None:
    block, (a,) = block_of(1)
    inner = ir.Block()
    loop = block.append(ir.Op("toy.loop", [], [T], regions=[inner]))
    deep = inner.append(relu(a.result))
    last = block.append(relu(a.result))
    assert list(block.walk()) == [a, loop, deep, last]
    assert deep.parent is loop
    assert block.encloses(inner)
    assert not inner.encloses(block)


def test_operands_by_name() -> None:
    block, _ = block_of(0)
    x = block.arguments[0]
    op = ir.Op("toy.opt", [x, None, x], [T])
    assert [op.operand(n) for n in ("x", "w", "b")] == [x, None, x]
    assert ir.Op("toy.opt", [x], [T]).operand("b") is None
    with pytest.raises(KeyError, match="no operand 'bias'"):
        op.operand("bias")


def test_result_is_the_only_one() -> None:
    with pytest.raises(ValueError, match="has 2 results"):
        _ = ir.Op("toy.split", [], [T, T]).result


def test_locations_fuse_in_order_and_once() -> None:
    a, b = ir.Location(("conv", "bn"), ("import",)), ir.Location(("bn", "relu"))
    fused = ir.Location.fuse([a, b], "fold")
    assert fused == ir.Location(("conv", "bn", "relu"), ("import", "fold"))
    assert str(fused) == "conv, bn, relu < fold < import"


def test_functions_and_modules() -> None:
    module = ir.Module("m")
    f = module.add(ir.Function("f", {"x": T}, ["y"]))
    assert module.main is f
    with pytest.raises(ValueError, match="already has a function @f"):
        module.add(ir.Function("f"))
    module.add(ir.Function("g"))
    with pytest.raises(ValueError, match="2 functions and no @main"):
        _ = module.main
    with pytest.raises(ValueError, match=r"no ir\.return"):
        _ = f.outputs
    f.set_outputs([f.inputs[0]])
    y = ir.Builder(f.block).op("toy.relu", [f.inputs[0]]).result
    f.set_outputs([y], ["z"])
    assert (f.outputs, f.output_names) == ((y,), ["z"])
    assert [op.name for op in module.walk()] == ["toy.relu", "ir.return"]


def test_builder_fills_defaults_infers_types_and_says_what_is_wrong() -> None:
    f = ir.Function("f", {"x": T})
    b = ir.Builder(f.block)
    op = b.op("toy.scaled", [f.inputs[0]], {"mode": "slow"})
    assert op.attributes == {"alpha": 0.5, "axes": (0, 1), "mode": "slow"}
    assert op.result.type is T
    with pytest.raises(ir.InferenceError, match=r"toy\.scaled has no attribute 'moed'; did you mean 'mode'"):
        b.op("toy.scaled", [f.inputs[0]], {"moed": 1})
    with pytest.raises(ir.InferenceError, match=r"toy\.opt takes 1 to 3 operands, got 0"):
        b.op("toy.opt", [])
    with pytest.raises(ir.UnknownOperatorError, match="did you mean 'relu'"):
        b.op("toy.rleu", [])


def test_constants_give_their_array() -> None:
    f = ir.Function("f", {"x": T})
    c = ir.Builder(f.block).constant([1, 2], "toy", name="axes")
    assert (c.name, c.constant.tolist(), c.type) == ("axes", [1, 2], ir.TensorType(ir.I64, (2,)))
    assert f.inputs[0].constant is None


def test_the_program_on_the_first_page(capsys: pytest.CaptureFixture[str]) -> None:
    program = ir.__doc__.partition("::\n")[2]
    exec("\n".join(line.removeprefix("    ") for line in program.splitlines()), {})
    assert capsys.readouterr().out.splitlines() == ["onnx.Relu [tensor<1x3xf32>]", "ir.return []"]
