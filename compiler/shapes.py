"""Shapes of inputs: how ``--shape`` spells them, and what is done about dimensions that the model leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from compiler.errors import UserError
from compiler.ir import UNKNOWN, Dim, Module, suggest


@dataclass(frozen=True, slots=True)
class Span:
    """Any size from ``low`` to ``high``, both included: ``1..8``."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some sizes: ``1|4|8``."""

    sizes: tuple[int, ...]

    def __str__(self) -> str:
        return "|".join(map(str, self.sizes))


Size = int | Span | Choice
Shape = tuple[Size, ...]

_SPELLING = "NAME=1,3,224,224, with a..b for a range and a|b for a choice of sizes"


def parse(text: str) -> tuple[str, Shape]:
    """An input's name and its shape from ``NAME=1,3,224,224``; ``NAME=`` is a scalar.

    Raises:
        UserError: it is not spelled so, or a size is not positive.
    """
    name, equals, sizes = text.rpartition("=")
    if not equals or not name:
        raise UserError(f"--shape {text} does not say which input it is for", f"--shape {_SPELLING}")
    return name, tuple(_size(s.strip(), text) for s in sizes.split(",")) if sizes.strip() else ()


def _size(text: str, whole: str) -> Size:
    if re.fullmatch(r"\d+", text):
        sizes: tuple[int, ...] = (int(text),)
        size: Size = sizes[0]
    elif match := re.fullmatch(r"(\d+)\s*\.\.\s*(\d+)", text):
        sizes = (int(match[1]), int(match[2]))
        size = Span(*sizes)
        if sizes[0] > sizes[1]:
            raise UserError(f"the range {text} in --shape {whole} is empty", f"{sizes[1]}..{sizes[0]}")
    elif re.fullmatch(r"\d+(\s*\|\s*\d+)+", text):
        sizes = tuple(sorted({int(s) for s in text.split("|")}))
        size = Choice(sizes) if len(sizes) > 1 else sizes[0]
    else:
        raise UserError(f"'{text}' in --shape {whole} is no size", f"--shape {_SPELLING}")
    if min(sizes) < 1:
        raise UserError(f"a size in --shape {whole} is zero; sizes are positive", f"--shape {_SPELLING}")
    return size


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the shapes of a model's inputs are.

    Attributes:
        shapes: the dimensions of every input whose rank is known: sizes, or symbols for what stays flexible.
        flexible: what each such symbol may be.
        notes: what was decided without being asked, one sentence each.
    """

    shapes: dict[str, tuple[Dim, ...]]
    flexible: dict[str, Span | Choice]
    notes: list[str]


def resolve(
    inputs: Sequence[tuple[str, Sequence[Dim] | None]], given: Mapping[str, Shape], command: str = ""
) -> Resolved:
    """Fits the shapes given to the inputs that a model declares. An open batch dimension alone becomes 1.

    A symbol that one input's shape gives a size has that size in every other input.

    Args:
        inputs: name and declared dimensions of each input; a string is a symbol, ``"?"`` an open dimension.
        command: how the remedy starts, such as ``compile model.onnx``.

    Raises:
        UserError: a name is unknown, a rank or size contradicts the model, or a dimension stays open.
    """
    names = [n for n, _ in inputs]
    for name in given:
        if name not in names:
            raise UserError(
                f"the model has no input '{name}'{suggest(name, names)}", f"--shape for one of: {', '.join(names)}"
            )
    out = Resolved({}, {}, [])
    bound: dict[str, Dim] = {}
    for name, declared in inputs:
        if name in given:
            out.shapes[name] = _given(name, declared, given[name], bound, out.flexible)
    open_inputs = []
    for name, declared in inputs:
        if name in given:
            continue
        if declared is None:
            raise UserError(f"input '{name}' has no declared rank", f"{command} --shape {name}=…".strip())
        dims = [bound.get(d, d) if isinstance(d, str) else d for d in declared]
        if dims and _is_open(dims[0], out.flexible) and _is_batch(dims):
            out.notes.append(f"the batch dimension of '{name}' is open and becomes 1; --shape {name}=… sets another")
            if dims[0] != UNKNOWN:
                bound[str(dims[0])] = 1
            dims[0] = 1
        out.shapes[name] = tuple(dims)
    for name, shape in out.shapes.items():
        out.shapes[name] = tuple(bound.get(d, d) if isinstance(d, str) else d for d in shape)
        if any(_is_open(d, out.flexible) for d in out.shapes[name]):
            open_inputs.append(name)
    if open_inputs:
        declared_dims = dict(inputs)[open_inputs[0]] or ()
        options = " ".join(f"--shape {_quoted(n, _guess(out.shapes[n]))}" for n in open_inputs)
        raise UserError(
            f"input '{open_inputs[0]}' has open dimensions ({', '.join(map(str, declared_dims))}); "
            "a package needs to know their sizes",
            f"{command} {options}".strip(),
        )
    return out


def _given(
    name: str,
    declared: Sequence[Dim] | None,
    shape: Shape,
    bound: dict[str, Dim],
    flexible: dict[str, Span | Choice],
) -> tuple[Dim, ...]:
    if declared is not None and len(declared) != len(shape):
        want = f"({', '.join(map(str, declared))})"
        raise UserError(
            f"--shape gives input '{name}' rank {len(shape)}, the model declares rank {len(declared)}: {want}",
            f"--shape {_quoted(name, _guess(tuple(declared)))}",
        )
    dims: list[Dim] = []
    for i, size in enumerate(shape):
        was = declared[i] if declared is not None else UNKNOWN
        if isinstance(was, int):
            if was != size:
                raise UserError(
                    f"--shape gives dimension {i} of input '{name}' as {size}, the model fixes it at {was}",
                    f"--shape {_quoted(name, _guess(tuple(declared or ())))}",
                )
            dims.append(was)
            continue
        dim: Dim
        if isinstance(size, int):
            dim = size
        else:
            dim = was if was != UNKNOWN else re.sub(r"\W", "_", f"{name}_{i}")
            if flexible.setdefault(dim, size) != size:
                raise UserError(f"dimension '{dim}' is given as {flexible[dim]} and as {size}", "give it once")
        if was != UNKNOWN and bound.setdefault(was, dim) != dim:
            raise UserError(f"dimension '{was}' is given as {bound[was]} and as {dim}", "one size for each name")
        dims.append(dim)
    return tuple(dims)


def _is_open(dim: Dim, flexible: Mapping[str, object]) -> bool:
    return isinstance(dim, str) and dim not in flexible


def _is_batch(dims: Sequence[Dim]) -> bool:
    """Whether the open first dimension is a batch: the name says so, or nothing speaks against it."""
    first = str(dims[0]).lower()
    if "batch" in first or first in ("n", "b", "bs"):
        return True
    return len(dims) >= 2 and not any(word in first for word in ("seq", "len", "time", "frame", "height", "width"))


def _guess(dims: Sequence[Dim]) -> tuple[int, ...]:
    """A likely shape to offer: what is known, and the usual sizes for the rest."""
    out = []
    for i, d in enumerate(dims):
        if isinstance(d, int):
            out.append(d)
        elif i == 0 and _is_batch(dims):
            out.append(1)
        elif len(dims) == 4:
            out.append(224)
        else:
            out.append(128)
    return tuple(out)


def _quoted(name: str, shape: Sequence[Size]) -> str:
    text = f"{name}={','.join(map(str, shape))}"
    return text if re.fullmatch(r"[\w=,.:/|-]+", text) and "|" not in text else f"'{text}'"


#: The most shapes that Core ML lets an input choose from, says coremltools' guide on flexible inputs.
MOST_SHAPES = 128


def declare_flexible(module: Module, ios: int) -> None:
    """Says in the main function's attributes which shapes its inputs may have, for the writer.

    ``range.NAME`` holds a pair (least, greatest) for each dimension, ``shapes.NAME`` all shapes where sizes are chosen.
    Of several inputs with a choice Core ML takes the shapes that stand at the same place in their lists.

    Args:
        ios: the number of the release that the package is for.

    Raises:
        UserError: an input has both a range and a choice of sizes, or Core ML does not take so many choices.
    """
    flexible = _flexible(module)
    choices = {symbol: size for symbol, size in flexible.items() if isinstance(size, Choice)}
    chosen = []
    for argument in module.main.inputs:
        dims = argument.shape
        if dims is None or not any(d in flexible for d in dims):
            continue
        sizes = [flexible[d] if isinstance(d, str) else d for d in dims]
        if any(isinstance(s, Choice) for s in sizes):
            if any(isinstance(s, Span) for s in sizes):
                raise UserError(
                    f"input '{argument.name}' has a range and a choice of sizes, and Core ML takes one or the other",
                    f"--shape {argument.name}=… with ranges only, or choices only",
                )
            chosen.append(argument)
        else:
            pairs = tuple(
                (s.low, s.high) if isinstance(s, Span) else (s, s) for s in sizes if not isinstance(s, Choice)
            )
            module.main.attributes[f"range.{argument.name}"] = pairs
    if len(chosen) > 1 and ios < 18:
        names = ", ".join(f"'{a.name}'" for a in chosen)
        raise UserError(
            f"inputs {names} have a choice of sizes; before iOS 18 Core ML takes one such input",
            "--os ios18, or ranges in place of choices",
        )
    together = [dict(zip(choices, each, strict=True)) for each in product(*(c.sizes for c in choices.values()))]
    if len(together) > MOST_SHAPES:
        raise UserError(
            f"the choices of sizes make {len(together)} shapes, and Core ML takes {MOST_SHAPES} at most", "fewer sizes"
        )
    for argument in chosen:
        dims = argument.shape or ()
        shapes = [tuple(one[d] if isinstance(d, str) else d for d in dims) for one in together]
        # Alone, an input lists each shape once; beside others, once for each of theirs.
        module.main.attributes[f"shapes.{argument.name}"] = tuple(shapes if len(chosen) > 1 else dict.fromkeys(shapes))


def is_flexible(module: Module) -> bool:
    """Whether an input may have several shapes."""
    return bool(module.attributes.get("flexible"))


def sizes_to_try(module: Module, index: int) -> dict[str, int]:
    """A size for every flexible symbol: the least for index 0, the greatest for 1, sizes between after that."""
    out = {}
    for symbol, size in _flexible(module).items():
        steps = size.sizes if isinstance(size, Choice) else (size.low, _between(size), size.high)
        order = (steps[0], steps[-1], *steps[1:-1])
        out[symbol] = order[index % len(order)]
    return out


def _between(span: Span) -> int:
    """A size in the middle that is a multiple of every power of two that both ends are: networks halve their sizes."""
    step = (span.low | span.high) & -(span.low | span.high)
    return max(span.low, (span.low + span.high) // 2 // step * step)


def _flexible(module: Module) -> dict[str, Span | Choice]:
    out = {}
    for symbol, text in module.attributes.get("flexible", ()):
        size = _size(text, text)
        assert not isinstance(size, int)
        out[symbol] = size
    return out
