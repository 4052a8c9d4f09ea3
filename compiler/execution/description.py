"""What an app has to know of a package: inputs, outputs and states, their types, and what may be batched.

It is read from the package itself, an ML Program or Metal kernels, and is the same for the server, which answers by
it, and the Swift package, whose types are made from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.dialects.mil_types import DictType
from compiler.errors import UnsupportedError
from compiler.ir import STRING, Function, Module, StateType, TensorType, Type

if TYPE_CHECKING:
    from codegen.metal.program import Program

#: What a package says whose rows do not mix (``compile --batch``); see docs/batch.md for why that is so.
ROWS = "planish.rows"
APART = "independent"


@dataclass(frozen=True, slots=True)
class Feature:
    """One input, output or state.

    Attributes:
        kind: ``tensor``, ``image`` (planes of 0 to 255), ``label`` (the best class), ``scores`` (the value of every
            class, in the order of ``classes``) or ``state``.
        dtype: of the elements, as the IR spells it: ``f32``, ``i32`` …; ``string`` of a label that is text.
        shape: the shape to assume where none is said; None for a size that only a run tells.
        low, high: the least and greatest size of each dimension, -1 for no bound; empty where only ``shape`` will do.
        shapes: the shapes that are allowed, where they are listed.
        color: of an image: RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16.
        classes: of a label or of scores.
        optional: an input that may be left out.
        text: one line for people.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    color: str = ""
    classes: tuple[str | int, ...] = ()
    optional: bool = False
    text: str = ""

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may be given."""
        if self.shapes:
            return shape in self.shapes
        if self.low:
            return len(shape) == len(self.low) and all(
                low <= size and (high < 0 or size <= high) for size, low, high in zip(shape, self.low, self.high)
            )
        return shape == self.shape


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows one call may have, along the first axis of some inputs and of every output.

    Attributes:
        inputs: which inputs have rows; any others are the same for all.
        sizes: the numbers that are allowed; empty where any from ``low`` to ``high`` is.
        high: -1 for no bound.
    """

    inputs: tuple[str, ...]
    low: int
    high: int
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """A package as an app sees it.

    Attributes:
        kind: ``mlprogram`` or ``metal``.
        rows: None where a call has the rows that the shapes say, or where nobody has shown that rows do not mix.
        os: the oldest release that runs it, such as ``ios17``; empty for kernels.
        metadata: what the package says of itself.
    """

    name: str
    kind: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...] = ()
    rows: Rows | None = None
    os: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of_module(module: Module) -> Description:
    """The description of the main function of a package that :func:`compiler.execution.running.read_package` read.

    Raises:
        UnsupportedError: a feature is of a type that Core ML's features are not.
    """
    main = module.main
    inputs = [_feature(main, a.name, a.type) for a in main.inputs if not isinstance(a.type, StateType)]
    states = [_feature(main, a.name, a.type) for a in main.inputs if isinstance(a.type, StateType)]
    outputs = []
    for name, value in zip(main.output_names, main.outputs, strict=True):
        classes: tuple[str | int, ...] = ()
        if value.op is not None and value.op.name == "mil.classify":
            classes = tuple(value.op.attributes["classes"])
        outputs.append(_feature(main, name, value.type, classes))
    said = {k.removeprefix("metadata."): str(v) for k, v in module.attributes.items() if k.startswith("metadata.")}
    said |= {
        k: str(module.attributes[k]) for k in ("author", "license", "description", "version") if k in module.attributes
    }
    rows = _rows(inputs, outputs) if _apart(module) and not states else None
    os = str(module.attributes.get("os", ""))
    return Description(module.name, "mlprogram", tuple(inputs), tuple(outputs), tuple(states), rows, os, said)


def rows_of(module: Module) -> Rows | None:
    """The rows that :func:`of_module` describes, and nothing else of it."""
    return of_module(module).rows if _apart(module) else None


def _apart(module: Module) -> bool:
    return bool(module.attributes.get(f"metadata.{ROWS}") == APART)


def of_program(program: Program) -> Description:
    """The description of Metal kernels."""

    def features(indices: list[int]) -> tuple[Feature, ...]:
        buffers = [program.buffers[i] for i in indices]
        return tuple(
            Feature(b.name, "image" if b.pixels else "tensor", b.declared, tuple(b.shape), color=b.pixels)
            for b in buffers
        )

    inputs, outputs = features(program.of_kind("input")), features(program.of_kind("output"))
    return Description(program.name, "metal", inputs, outputs, metadata=dict(program.metadata))


def content_hash(package: Path) -> str:
    """The SHA-256 of a package: of the names and bytes of its files, in the order of the names."""
    total = hashlib.sha256()
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(package).as_posix()}\0{inner}\n".encode())
    return total.hexdigest()


def _feature(function: Function, name: str, type_: Type, classes: tuple[str | int, ...] = ()) -> Feature:
    said = function.attributes
    text = str(said.get(f"doc.{name}", ""))
    if isinstance(type_, DictType):
        return Feature(name, "scores", "f64", (len(classes),), classes=classes, text=text)
    kind = "tensor"
    if isinstance(type_, StateType):
        kind, type_ = "state", type_.element
    if not isinstance(type_, TensorType) or type_.shape is None:
        raise UnsupportedError(f"'{name}' is a {type_}, which an app can neither give nor take")
    if classes:
        return Feature(name, "label", "string" if type_.dtype is STRING else "i64", (), classes=classes, text=text)
    shape = tuple(d if isinstance(d, int) else None for d in type_.shape)
    default = said.get(f"default.{name}")
    ranges, shapes = said.get(f"range.{name}", ()), said.get(f"shapes.{name}", ())
    color = str(said.get(f"image.{name}", ""))
    return Feature(
        name,
        "image" if color else kind,
        type_.dtype.name,
        tuple(default) if default else shape,
        tuple(low for low, _ in ranges),
        tuple(high for _, high in ranges),
        tuple(tuple(s) for s in shapes),
        color,
        optional=f"optional.{name}" in said,
        text=text,
    )


def _rows(inputs: list[Feature], outputs: list[Feature]) -> Rows | None:
    """The rows of a package whose rows do not mix; None where its outputs do not have them in front."""
    with_rows = [f for f in inputs if _open_in_front(f)]
    in_front = all(f.kind == "tensor" and f.shape and f.shape[0] is None for f in outputs)
    if not with_rows or not in_front:
        return None
    names = tuple(f.name for f in with_rows)
    if with_rows[0].shapes:
        sizes = {tuple(sorted({s[0] for s in f.shapes})) for f in with_rows}
        rest = {(f.name, s[1:]) for f in with_rows for s in f.shapes}
        if len(sizes) != 1 or len(rest) != len(with_rows):
            return None
        counts = sizes.pop()
        return Rows(names, counts[0], counts[-1], counts)
    bounds = [f.high[0] for f in with_rows if f.high[0] >= 0]
    return Rows(names, max(f.low[0] for f in with_rows), min(bounds, default=-1))


def _open_in_front(feature: Feature) -> bool:
    if feature.shapes:
        return len({s[:1] for s in feature.shapes}) > 1
    return bool(feature.low) and feature.low[0] != feature.high[0]
