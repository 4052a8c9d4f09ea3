"""What a template needs of one model: its types and names in Swift."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codegen.swift.names import comment, literal, member_names, raw_block, type_name
from compiler.errors import UnsupportedError
from compiler.execution.description import Description, Feature

#: Element types and their names in Swift.
SCALARS = {
    "bool": "Bool",
    "f16": "Float16",
    "f32": "Float",
    "f64": "Double",
    **{f"{s}{b}": f"{n}{b}" for s, n in (("i", "Int"), ("u", "UInt")) for b in (8, 16, 32, 64)},
}

#: More classes than that are no enumeration that anyone would switch over.
MOST_CASES = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One input or output as a property.

    Attributes:
        key: its name in the model, as a literal.
        name, type: in Swift.
        text: its documentation.
        give: an input as a tensor, from a value called ``input``.
        take: an output, from features called ``features``.
    """

    key: str
    name: str
    type: str
    text: str
    give: str = ""
    take: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A package among the resources; ``function`` is empty where it has one only."""

    source: Path
    resource: str
    description: Description
    function: str = ""


@dataclass(frozen=True, slots=True)
class SwiftModel:
    """A model, ready for the templates.

    Attributes:
        labels: cases of the enumeration of labels as (name, literal); empty where there is none.
        classes: all classes as literals.
    """

    name: str
    description: Description
    parts: Sequence[Part]
    inputs: Sequence[Member]
    outputs: Sequence[Member]
    labels: Sequence[tuple[str, str]]
    classes: Sequence[str]
    text: Sequence[str]

    @property
    def stateful(self) -> bool:
        return bool(self.description.states)

    @property
    def hybrid(self) -> bool:
        return self.description.kind == "hybrid"

    def raw(self, description: Description) -> tuple[str, str, str]:
        """A description as JSON, a feature a line, between the delimiters of a raw string."""
        lines = []
        for key, value in description.to_json().items():
            if isinstance(value, (list, tuple)) and value:
                features = ",\n    ".join(json.dumps(v, ensure_ascii=False) for v in value)
                lines.append(f'  "{key}": [\n    {features}\n  ]')
            else:
                lines.append(f'  "{key}": {json.dumps(value, ensure_ascii=False)}')
        text = "{\n" + ",\n".join(lines) + "\n}"
        start, end = raw_block(text)
        return start, text, end


def swift_model(name: str, description: Description, parts: Sequence[Part]) -> SwiftModel:
    """The model called ``name`` (a Swift type).

    Raises:
        UnsupportedError: it takes or gives what the runtime has no type for.
    """
    classes = next((f.classes for f in description.outputs if f.classes), ())
    labels: list[tuple[str, str]] = []
    has_label = any(f.kind == "label" for f in description.outputs)
    if has_label and len(classes) <= MOST_CASES:
        names = member_names(map(str, classes), "label")
        labels = [(n, literal(str(c))) for n, c in zip(names, classes)]
    inputs = [
        _member(f, n, bool(labels))
        for f, n in zip(description.inputs, member_names(f.name for f in description.inputs))
    ]
    outputs = [
        _member(f, n, bool(labels))
        for f, n in zip(description.outputs, member_names(f.name for f in description.outputs))
    ]
    said = description.metadata
    text = [comment(said["description"])] if said.get("description") else []
    facts = (("author", "Author"), ("license", "License"), ("version", "Version"), ("planish.source", "Compiled from"))
    text += [f"{label}: {comment(said[key])}" for key, label in facts if said.get(key)]
    return SwiftModel(
        name, description, parts, inputs, outputs, labels, [literal(str(c)) for c in classes], text or [name]
    )


def _member(feature: Feature, name: str, enumerated: bool) -> Member:
    key = literal(feature.name)
    text = f"{comment(feature.text)} " if feature.text else ""
    if feature.kind == "image":
        give = f"input.{name}.tensor"
        bgr = ", bgr: true" if feature.color == "BGR" else ""
        size = " × ".join("…" if d is None else str(d) for d in feature.shape[2:])
        return Member(
            key, name, "PixelImage", f"{text}A picture, {size}.", give, f"try PixelImage(features.tensor({key}){bgr})"
        )
    if feature.kind == "label":
        if enumerated:
            return Member(key, name, "Label", f"{text}The best class.", "", f"try Label(named: features.text({key}))")
        return Member(key, name, "String", f"{text}The best class.", "", f"try features.text({key})")
    if feature.kind == "scores":
        take = f"try ClassScores(classes: classNames, values: features.tensor({key}).scalars())"
        return Member(key, name, "ClassScores", f"{text}The value of every class.", "", take)
    scalar = SCALARS.get(feature.dtype)
    if scalar is None:
        raise UnsupportedError(f"'{feature.name}' has elements of {feature.dtype}, for which Swift has no type")
    text += f"{_spelled(feature)}."
    if not feature.shape:
        return Member(key, name, scalar, text, f"input.{name}.tensor", f"try features.scalar({key})")
    return Member(key, name, f"Shaped<{scalar}>", text, f"input.{name}.tensor", f"try Shaped(features.tensor({key}))")


def _spelled(feature: Feature) -> str:
    if not feature.shape:
        return f"A number, {feature.dtype}"
    if feature.shapes:
        return f"{feature.dtype}, one of {', '.join(_sizes(s) for s in feature.shapes)}"
    if feature.low:
        sides = [str(a) if a == b else f"{a}…{b if b >= 0 else ''}" for a, b in zip(feature.low, feature.high)]
        return f"{feature.dtype}, {' × '.join(sides)}"
    return f"{feature.dtype}, {_sizes(feature.shape)}"


def _sizes(shape: Sequence[int | None]) -> str:
    return " × ".join("…" if d is None else str(d) for d in shape)


def unique_type(wanted: str, taken: set[str]) -> str:
    """A type name that no other model has."""
    name, number = type_name(wanted), 2
    while name in taken:
        name, number = f"{type_name(wanted)}{number}", number + 1
    taken.add(name)
    return name
