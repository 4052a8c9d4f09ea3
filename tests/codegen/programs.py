"""Small mil modules for the tests of reader and writer."""

from __future__ import annotations

import numpy as np

from compiler import ir
from compiler.dialects import mil as _dialect  # noqa: F401 (registers mil.*)
from compiler.ir import BOOL, F16, F32, I32, TensorType


def module(inputs, build, outputs=("y",), name="main"):
    """A module of one function: ``build(builder, *arguments)`` gives its results."""
    f = ir.Function(name, inputs, outputs)
    results = build(ir.Builder(f.block), *f.inputs)
    f.set_outputs(results if isinstance(results, list) else [results])
    m = ir.Module("test")
    m.add(f)
    return m


def same(b, name, *operands, **attributes):
    """An operator whose result has the type of its first operand."""
    return b.op(f"mil.{name}", operands, attributes, [operands[0].type]).result


def relu(dtype=F32, shape=(1, 4), inputs=("x",), outputs=("y",)):
    return module({inputs[0]: TensorType(dtype, shape)}, lambda b, x: same(b, "relu", x), outputs)


def linear(weights=1, outputs=("y",), fill=None):
    """``weights`` layers of 64 to 64 elements, whose weights are all ``fill`` or else random."""
    rng = np.random.default_rng(0)

    def build(b, x):
        for _ in range(weights):
            w = np.full((64, 64), fill, np.float16) if fill is not None else rng.normal(size=(64, 64))
            x = same(b, "linear", x, b.constant(w.astype(np.float16), "mil"))
        return x

    return module({"x": TensorType(F16, (1, 64))}, build, outputs)


def chain(length):
    """A chain of conv, relu, layer_norm, add."""
    type_ = TensorType(F16, (1, 64, 32, 32))

    def build(b, x):
        w = b.constant(np.ones((64, 64, 1, 1), np.float16), "mil")
        for i in range(length // 4):
            x = same(b, "conv", x, w, strides=(1, 1), pad_type="custom", pad=(0, 0, 0, 0), dilations=(1, 1), groups=1)
            x.name = f"block{i}/conv"
            y = same(b, "layer_norm", same(b, "relu", x), axes=(1,), epsilon=2.0**-14)  # a half holds it
            x = same(b, "add", x, y)
        return x

    return module({"x": type_}, build)


def nested():
    """A loop with a branch in it, which use values from outside."""

    def build(b, x, n):
        zero = b.constant(np.int32(0).reshape(()), "mil")
        carried = [zero.type, x.type]
        condition, body = ir.Block(carried, ["i", "a"]), ir.Block(carried, ["i", "a"])
        inner = ir.Builder(condition)
        inner.ret([inner.op("mil.less", [condition.arguments[0], n], {}, [TensorType(BOOL, ())]).result])
        inner = ir.Builder(body)
        i, a = body.arguments
        then, otherwise = ir.Block(), ir.Block()
        branch = ir.Builder(then)
        branch.ret([same(branch, "add", a, x)])
        ir.Builder(otherwise).ret([x])
        one = inner.constant(np.int32(1).reshape(()), "mil")
        test = inner.op("mil.greater", [i, one], {}, [TensorType(BOOL, ())]).result
        chosen = inner.op("mil.cond", [test], regions=[then, otherwise]).result
        inner.ret([same(inner, "add", i, one), chosen])
        loop = b.op("mil.while_loop", [zero, x], regions=[condition, body])
        return same(b, "softmax", loop.results[1], axis=1)

    return module({"x": TensorType(F32, (2, 3)), "n": TensorType(I32, ())}, build)


def text(m):
    """The text of a module without the names of values, which are only hints."""
    for op in m.walk():
        for value in (*op.results, *(a for r in op.regions for a in r.arguments)):
            value.name = ""
    return ir.print_module(m)
