"""Pictures that are made up to correct biases by."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.compression.pictures import leaves, made_up, strokes
from compiler.compression.settings import Settings
from compiler.ir import F32, Function, Module, TensorType


def module(*shape: int) -> Module:
    made = Module("m")
    made.add(Function("main", {"x": TensorType(F32, shape)}, []))
    return made


def settings(quantize: str, **more) -> Settings:
    found = Settings.of(quantize, 18, **more)
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(1, 3, 48, 320), (2, 1, 32, 24), (1, 17, 16, 3)])
def test_pictures_have_the_shape_of_the_input_and_are_the_same_each_time(shape):
    once, again = (made_up(module(*shape), settings("int8")) for _ in range(2))
    np.testing.assert_equal(once, again)
    assert len(once) == 8
    for one in once:
        assert one["x"].shape == shape
        assert one["x"].dtype == np.float32
        assert one["x"].std() > 0.05
    assert len({one["x"].tobytes() for one in once}) == 8


def test_they_are_made_only_where_biases_are_corrected_by_them():
    assert made_up(module(1, 3, 32, 32), settings("int8-nearest")) == []
    assert made_up(module(1, 3, 32, 32), settings("sparse50")) == []
    assert made_up(module(1, 3, 32, 32), settings("palette4-unique")) == []
    assert len(made_up(module(1, 3, 32, 32), settings("palette4"))) == 8
    assert made_up(module(1, 3, 32, 32), settings("int8", data={"x": np.zeros((1, 3, 32, 32))})) == []
    assert made_up(module(1, 16000), settings("int8")) == []


def test_strokes_are_of_two_shades_and_leaves_of_many():
    rng = np.random.default_rng(0)
    text, shapes = strokes(rng, 64, 96, 0.5), leaves(rng, 64, 96)
    for picture in (text, shapes):
        assert picture.shape == (3, 64, 96)
        assert np.abs(picture).max() <= 1
    assert (text[0] == text[1]).all()
    ink = np.bincount(np.unique(text, return_inverse=True)[1].ravel()).max() / text.size
    assert 0.05 < ink < 0.9  # all of the ink has the same shade
    assert len(np.unique(shapes[0])) > 15
