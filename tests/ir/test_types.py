"""Types and element types."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

from compiler import ir
from compiler.ir.types import dim_meet, shape_meet, type_meet
from tests.ir import toy

T = ir.TensorType


def test_types_are_interned_and_immutable() -> None:
    assert T(ir.F32, [1, "n"]) is T(ir.F32, (1, "n"))
    assert T(ir.F32, (1,)) is not T(ir.F16, (1,))
    assert T(ir.F32, None) is not T(ir.F32, ())
    assert ir.SequenceType(T(ir.F32, ())) is ir.SequenceType(T(ir.F32, ()))
    assert ir.SequenceType(T(ir.F32, ())) is not ir.OptionalType(T(ir.F32, ()))
    with pytest.raises(AttributeError, match="immutable"):
        T(ir.F32, ()).shape = (1,)


@given(toy.types)
@settings(max_examples=100)
def test_pickling_and_copying_keep_identity(type_: ir.Type) -> None:
    assert pickle.loads(pickle.dumps(type_)) is type_
    assert copy.deepcopy(type_) is type_


def test_spelling() -> None:
    spelled = {
        "tensor<f32>": T(ir.F32, ()),
        "tensor<*xf32>": T(ir.F32, None),
        "tensor<1x?xi4>": T(ir.I4, (1, "?")),
        "tensor<batch x 3xf32>": T(ir.F32, ("batch", 3)),
        'tensor<2x"H/2" x "a b" x bool>': T(ir.BOOL, (2, "H/2", "a b")),
        "sequence<tensor<3xstring>>": ir.SequenceType(T(ir.STRING, (3,))),
        "optional<sequence<tensor<f64>>>": ir.OptionalType(ir.SequenceType(T(ir.F64, ()))),
        "state<tensor<1x2xf16>>": ir.StateType(T(ir.F16, (1, 2))),
    }
    for text, type_ in spelled.items():
        assert str(type_) == text
        assert ir.parse_type(text) is type_
    assert ir.parse_type(" tensor< 1 x n x f32 > // a comment") is T(ir.F32, (1, "n"))


def test_shapes() -> None:
    t = T(ir.F32, (2, 3))
    assert (t.rank, t.size, t.is_static, t.static_shape) == (2, 6, True, (2, 3))
    assert (t.with_dtype(ir.F16), t.with_shape([6])) == (T(ir.F16, (2, 3)), T(ir.F32, (6,)))
    u = T(ir.F32, (2, "n"))
    assert (u.rank, u.size, u.is_static) == (2, None, False)
    assert (T(ir.F32, None).rank, T(ir.F32, None).size, T(ir.F32, ()).size) == (None, None, 1)
    with pytest.raises(ValueError, match=r"tensor<2xn x f32> has unknown dimensions"):
        _ = u.static_shape


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (1, 1, 1),
        (1, 2, None),
        (1, "n", 1),
        ("n", "n", "n"),
        ("n", "m", "n"),
        ("?", "n", "n"),
        ("?", 3, 3),
        ("?", "?", "?"),
    ],
)
def test_dims_meet(a: ir.Dim, b: ir.Dim, both: ir.Dim | None) -> None:
    assert dim_meet(a, b) == both
    other = dim_meet(b, a)
    assert other == both or {other, both} == {"n", "m"}


def test_shapes_and_types_meet() -> None:
    assert shape_meet(None, (1, "n")) == ((1, "n"), True)
    assert shape_meet((1, "?"), ("n", 2)) == ((1, 2), True)
    assert shape_meet((1,), (1, 2)) == (None, False)
    assert shape_meet(None, None) == (None, True)
    assert type_meet(T(ir.F32, None), T(ir.F32, (1,))) is T(ir.F32, (1,))
    assert type_meet(T(ir.F32, ()), T(ir.F16, ())) is None
    assert type_meet(T(ir.F32, (2,)), T(ir.F32, (3,))) is None
    sequence = ir.SequenceType(T(ir.F32, ("?",)))
    assert type_meet(sequence, ir.SequenceType(T(ir.F32, (3,)))) is ir.SequenceType(T(ir.F32, (3,)))
    assert type_meet(sequence, T(ir.F32, (3,))) is None
    assert ir.element_dtype(ir.OptionalType(sequence)) is ir.F32


def test_element_types_and_numpy() -> None:
    for d in ir.DTYPES.values():
        assert ir.dtype(d.name) is d
        assert pickle.loads(pickle.dumps(d)) is d
        if d.name not in ("u1", "u3", "u6"):
            assert ir.from_numpy(d.numpy) is d
    assert ir.from_numpy("<U3") is ir.STRING
    assert ir.from_numpy(ml_dtypes.bfloat16) is ir.BF16
    with pytest.raises(TypeError, match="no IR element type"):
        ir.from_numpy(np.datetime64)
    with pytest.raises(KeyError):
        ir.dtype("f31")
    assert ir.BF16.is_float
    assert ir.U4.is_integer
    assert not ir.U4.is_signed
    assert not ir.BOOL.is_integer
