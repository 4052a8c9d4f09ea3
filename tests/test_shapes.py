"""``--shape``: its spelling, and what becomes of dimensions that the model leaves open."""

from __future__ import annotations

import pytest

from compiler.errors import UserError
from compiler.shapes import Choice, Span, parse, resolve


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("x=1,3,224,224", "x", (1, 3, 224, 224)),
        ("x=1..8,3", "x", (Span(1, 8), 3)),
        ("x=1|8|4,3", "x", (Choice((1, 4, 8)), 3)),
        ("a=b:0=2, 3", "a=b:0", (2, 3)),
        ("sr=", "sr", ()),
    ],
)
def test_parse(text: str, name: str, shape: tuple[object, ...]) -> None:
    assert parse(text) == (name, shape)


@pytest.mark.parametrize("text", ["1,3,224", "=1,2", "x=1,,2", "x=a", "x=0,3", "x=8..1", "x=1.5"])
def test_what_is_misspelled_is_said(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert text in str(error.value)
    assert error.value.remedy


def test_an_open_batch_becomes_one_with_a_note() -> None:
    found = resolve([("x", ("N", 3, 224, 224)), ("y", ("?", 7))], {})
    assert found.shapes == {"x": (1, 3, 224, 224), "y": (1, 7)}
    assert len(found.notes) == 2
    assert "batch dimension of 'x'" in found.notes[0]


def test_any_other_open_dimension_stops_with_the_shape_to_add() -> None:
    with pytest.raises(UserError) as error:
        resolve([("x", ("N", 3, "H", "W"))], {}, "compile m.onnx")
    assert "input 'x' has open dimensions (N, 3, H, W)" in error.value.message
    assert error.value.remedy == "compile m.onnx --shape x=1,3,224,224"


def test_the_remedy_names_every_input_that_is_open() -> None:
    with pytest.raises(UserError) as error:
        resolve([("ids", ("batch", "seq")), ("mask", ("batch", "seq"))], {}, "compile m.onnx")
    assert error.value.remedy == "compile m.onnx --shape ids=1,128 --shape mask=1,128"


def test_a_sequence_is_no_batch() -> None:
    with pytest.raises(UserError):
        resolve([("x", ("seq_len", 80))], {})
    with pytest.raises(UserError):
        resolve([("x", ("?",))], {})


def test_a_symbol_given_once_holds_everywhere() -> None:
    found = resolve([("ids", ("batch", "seq")), ("mask", ("batch", "seq"))], {"mask": (2, 32)})
    assert found.shapes == {"ids": (2, 32), "mask": (2, 32)}
    assert found.notes == []


def test_flexible_dimensions_stay_symbols() -> None:
    found = resolve([("x", ("N", 3, "?", 8))], {"x": (Span(1, 4), 3, Choice((8, 16)), 8)})
    assert found.shapes == {"x": ("N", 3, "x_2", 8)}
    assert found.flexible == {"N": Span(1, 4), "x_2": Choice((8, 16))}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"x": (3, 224, 224)}, "rank 3, the model declares rank 4"),
        ({"x": (1, 1, 224, 224)}, "dimension 1 of input 'x' as 1, the model fixes it at 3"),
        ({"X": (1, 3, 224, 224)}, "no input 'X'; did you mean 'x'?"),
        ({"x": (2, 3, 8, 8), "y": (3, 5)}, "dimension 'N' is given as 2 and as 3"),
    ],
)
def test_contradictions(given: dict[str, tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        resolve([("x", ("N", 3, "H", "W")), ("y", ("N", 5))], given)
    assert sentence in str(error.value)
    assert error.value.remedy
