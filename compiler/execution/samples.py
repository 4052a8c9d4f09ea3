"""Inputs to try a model on: made to fit its graph, or read from an .npz file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import BOOL, Dim, DType, Function, Op, TensorType, Type, Value, suggest

Array = np.ndarray[Any, Any]

SEED = 20
#: Larger inputs than that are a mistake.
MOST_ELEMENTS = 1 << 40
#: Integers about which the graph says nothing stay below this.
_SMALL = 4


def from_npz(path: str | Path, names: Sequence[str]) -> dict[str, Array]:
    """One set of inputs by name. A key may carry the prefix ``in:``, and other keys may stand beside.

    Raises:
        UserError: the file cannot be read, or an input is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        reason = (e.strerror if isinstance(e, OSError) else "") or "it is not a NumPy .npz archive"
        raise UserError(f"cannot read the inputs {path}: {reason}", "numpy.savez(FILE, NAME=array, …)") from e
    found = {n: arrays[k] for n in names for k in (n, f"in:{n}") if k in arrays}
    missing = [n for n in names if n not in found]
    if missing:
        near = suggest(missing[0], arrays)
        have = ", ".join(arrays) or "nothing"
        raise UserError(f"{path} has no array for input '{missing[0]}' (it holds {have}){near}")
    return found


def generate(
    function: Function, count: int = 1, sizes: Callable[[int], Mapping[str, int]] | None = None
) -> list[dict[str, Array]]:
    """``count`` sets of inputs for a function of onnx operators, the same at every call.

    The first has standard normal floats, the second uniform ones in [0, 1), then normal again. What has the shape of
    a picture gets one: noise is no fair trial of a detector, which finds nothing in it and gives out zeros. Integers
    are small and stay inside every table that they index; masks and flags are true.

    Args:
        sizes: the sizes of open dimensions for the set of an index; 2 where it does not say.

    Raises:
        UserError: an input is not a tensor, so there is no telling what to feed.
    """
    limits = {a: _tables(a) for a in function.inputs}
    sets = []
    for i in range(count):
        rng = np.random.default_rng(SEED + i)
        one = {}
        open_sizes = sizes(i) if sizes is not None else {}
        for argument in function.inputs:
            if not isinstance(argument.type, TensorType):
                raise UserError(f"input '{argument.name}' is a {argument.type}, not a tensor", "--verify off")
            shape = tuple(d if isinstance(d, int) else open_sizes.get(d, 2) for d in argument.type.shape or ())
            if math.prod(shape) > MOST_ELEMENTS:
                raise UserError(
                    f"input '{argument.name}' has {math.prod(shape):,} elements, more than any memory holds",
                    "--shape with smaller sizes, or another model",
                )
            one[argument.name] = _array(
                rng, argument.name, shape, argument.type.dtype, _least(limits[argument], open_sizes), uniform=i % 2 == 1
            )
        sets.append(one)
    return sets


def _array(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], dtype: DType, limit: int | None, uniform: bool
) -> Array:
    if "mask" in name.lower() and limit is None:
        # All false would mask whole rows, of which a softmax makes NaN; all true is what unpadded inputs have.
        return np.ones(shape, dtype.numpy)
    if dtype is BOOL:
        return np.ones(shape, np.bool_)
    if dtype.is_float and (axes := picture_axes(shape)) is not None:
        picture = np.stack([_picture(rng, *axes) for _ in range(shape[0])])
        picture = (picture + 1.5) / 3.0 if uniform else picture + 0.1 * rng.standard_normal(picture.shape)
        channel = 1 if shape[1] in _CHANNELS else 3
        tint = 1.0 - 0.1 * rng.random(shape[channel])
        tinted = np.expand_dims(picture, channel) * tint.reshape([-1 if i == channel else 1 for i in range(4)])
        return np.asarray(tinted.astype(dtype.numpy))
    if dtype.is_float:
        values = rng.random(shape) if uniform else rng.standard_normal(shape)
        return np.asarray(values).astype(dtype.numpy)
    if dtype.is_integer:
        return np.asarray(rng.integers(0, _SMALL if limit is None else max(limit, 1), shape)).astype(dtype.numpy)
    raise UserError(f"input '{name}' has elements of type {dtype}, for which none can be made", "--inputs FILE.npz")


_CHANNELS = (1, 3)


def is_picture(type_: Type) -> bool:
    """Whether an input of a type is given a picture."""
    if not isinstance(type_, TensorType) or type_.shape is None or not type_.dtype.is_float:
        return False
    return picture_axes(tuple(d if isinstance(d, int) else 2 for d in type_.shape)) is not None


def picture_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and width of what has the shape of pictures, channels first or last; None for anything else."""
    if len(shape) != 4:
        return None
    if shape[1] in _CHANNELS:
        height, width = shape[2:]
    elif shape[3] in _CHANNELS:
        height, width = shape[1:3]
    else:
        return None
    return (height, width) if min(height, width) >= 16 else None


def _picture(rng: np.random.Generator, height: int, width: int) -> Array:
    """Values in about [-1.5, 1.5]: a light ground with soft blobs, and lines of dark strokes, as a page of text has."""
    y, x = np.mgrid[0:height, 0:width]
    out = np.full((height, width), 1.0)
    side = min(height, width)
    for _ in range(4):
        cy, cx, spread = rng.random() * height, rng.random() * width, (0.1 + 0.3 * rng.random()) * side
        out += 0.5 * rng.standard_normal() * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * spread**2))
    thick, line = max(1, side // 80), max(6, side // 12)
    for top in range(line // 2, height - line, 2 * line):
        left = int(rng.integers(0, max(1, width // 8)))
        while left < width - line:
            glyph = int(line * (0.4 + 0.4 * rng.random()))
            for _ in range(3):
                if rng.random() < 0.5:
                    at = left + int(rng.integers(0, max(1, glyph - thick)))
                    out[top : top + line, at : at + thick] = -1.5
                else:
                    at = top + int(rng.integers(0, line - thick + 1))
                    out[at : at + thick, left : left + glyph] = -1.5
            left += glyph + thick + 1 + (line // 2 if rng.random() < 0.15 else 0)
    return out


#: What an integer may pass through on its way to an index: operators that move elements but do not change them.
_MOVERS = frozenset(
    {
        "Cast",
        "Reshape",
        "Unsqueeze",
        "Squeeze",
        "Transpose",
        "Identity",
        "Slice",
        "Split",
        "Concat",
        "Expand",
        "Flatten",
    }
)


def _least(tables: set[Dim], open_sizes: Mapping[str, int]) -> int | None:
    """The size of the smallest of ``tables``; None if none has a known one."""
    sizes = [d if isinstance(d, int) else open_sizes[d] for d in tables if isinstance(d, int) or d in open_sizes]
    return min(sizes, default=None)


def _tables(value: Value) -> set[Dim]:
    """The sizes of the tables that integer ``value`` indexes."""
    found: set[Dim] = set()
    if not isinstance(value.type, TensorType) or not value.type.dtype.is_integer:
        return found
    seen = {value}
    pending = [value]
    while pending:
        at = pending.pop()
        for user in at.users:
            name = user.defn.name.partition(".")[2].partition("@")[0]
            size = _table_size(user, name, at)
            if size is not None:
                found.add(size)
            elif name in _MOVERS:
                for result in user.results:
                    if result not in seen:
                        seen.add(result)
                        pending.append(result)
    return found


def _table_size(user: Op, name: str, index: Value) -> Dim | None:
    operands = user.operands
    if name in ("Gather", "GatherElements") and len(operands) > 1 and operands[1] is index:
        table = operands[0]
        shape = table.shape if table is not None else None
        return shape[user.attributes["axis"]] if shape else None
    if name == "OneHot" and operands[0] is index and operands[1] is not None:
        depth = operands[1].constant
        return int(depth.reshape(-1)[0]) if depth is not None else None
    return None


def fitted(given: Mapping[str, Array], function: Function, names: Sequence[str] | None = None) -> dict[str, Array]:
    """``given`` in the order and with the element types of the function's inputs, or of those called ``names``.

    Raises:
        UserError: an array is missing, or its shape is not the input's, or none that the package declares.
    """
    out = {}
    for argument in function.inputs:
        if names is not None and argument.name not in names:
            continue
        if argument.name not in given:
            raise UserError(f"there is no array for input '{argument.name}'{suggest(argument.name, given)}")
        out[argument.name] = np.asarray(given[argument.name])
        color = function.attributes.get(f"image.{argument.name}")
        if color is not None:
            out[argument.name] = pixels(out[argument.name], color)
        if not isinstance(argument.type, TensorType) or argument.type.shape is None:
            continue
        shape = out[argument.name].shape
        fits = len(shape) == len(argument.type.shape) and all(
            not isinstance(d, int) or d == g for d, g in zip(argument.type.shape, shape, strict=True)
        )
        if not fits:
            want = ", ".join(map(str, argument.type.shape))
            raise UserError(f"input '{argument.name}' has shape ({want}), the array given for it {shape}")
        _hold_to_declared(function, argument.name, shape)
        out[argument.name] = out[argument.name].astype(argument.type.dtype.numpy, copy=False)
    return out


def _hold_to_declared(function: Function, name: str, shape: tuple[int, ...]) -> None:
    """Raises UserError for a shape outside the ranges, or not among the shapes, that Core ML is told for an input."""
    listed, ranges = function.attributes.get(f"shapes.{name}"), function.attributes.get(f"range.{name}")
    if listed is not None and shape not in listed:
        raise UserError(
            f"input '{name}' takes one of the shapes {', '.join(map(str, listed))}, and the array is {shape}",
            "an array of one of these shapes, or a package with more of them (--shape)",
        )
    for axis, (size, (low, high)) in enumerate(zip(shape, ranges or ())):
        if size < low or 0 <= high < size:
            most = f"to {high}" if high >= 0 else "or more"
            raise UserError(
                f"axis {axis} of input '{name}' takes {low} {most} elements, and the array given for it has {size}",
                "an array within these bounds, or a package with wider ones (--shape)",
            )


def pixels(array: Array, color: str) -> Array:
    """Planes for an image input, 1 × planes × height × width, from a picture.

    Args:
        array: a picture, uint8, height × width × 3 (red, green, blue) or height × width; anything else is taken for
            planes already, in the order of ``color``.
        color: what Core ML calls the order of the planes: RGB, BGR or GRAYSCALE.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        return array
    picture = array if array.ndim == 3 else array[:, :, None]
    planes = picture.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes[:, ::-1] if color == "BGR" else planes)
