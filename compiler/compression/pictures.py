"""Pictures that are made up to correct biases by, where weights are compressed without data.

What a layer loses on the mean depends on what its inputs are on the mean, which pictures of quite different things let
one tell about as well as photographs do: strokes as of writing, from small to as high as the picture, and shapes that
lie over each other like fallen leaves, of which Baradad et al. (2021) show that networks take them for natural.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.execution import samples
from compiler.ir import Module, TensorType
from compiler.shapes import sizes_to_try

if TYPE_CHECKING:
    from compiler.compression.settings import Settings

Array = np.ndarray[Any, Any]

SEED = 60
#: Pictures to make: the height of a line of strokes as a share of the picture's smaller side, None for leaves; and
#: whether values lie in [0, 1] instead of [-1, 1]. What they agree on is believed, so they are unlike each other.
_KINDS: tuple[tuple[float | None, bool], ...] = (
    (0.17, False),
    (0.25, False),
    (0.35, True),
    (0.5, True),
    (None, False),
    (None, False),
    (None, True),
    (None, True),
)
#: Of pictures with more pixels than this every second is made: one shows as much as two small ones.
_LARGE = 1 << 16
_NOISE = 0.05
_LEAVES = 60


def made_up(module: Module, settings: Settings) -> list[dict[str, Array]]:
    """Inputs to correct biases by, in the order of an onnx module's.

    None where the user gave some, where the scheme has no biases corrected, or where the model takes anything but
    pictures, the only inputs that can be made up well enough: made-up sounds are noise. They do not depend on how much
    is proven, so neither does the package.
    """
    if not settings.corrects_biases or settings.data is not None:
        return []
    if not all(samples.is_picture(a.type) for a in module.main.inputs):
        return []
    large = any(math.prod(samples.picture_axes(s) or ()) > _LARGE for s, _ in _shapes(module, 0).values())
    sets = []
    for i, (line, positive) in enumerate(_KINDS[:: 2 if large else 1]):
        rng = np.random.default_rng(SEED + i)
        shapes = _shapes(module, i)
        sets.append({n: _batch(rng, s, line, positive).astype(dtype) for n, (s, dtype) in shapes.items()})
    return sets


def _shapes(module: Module, number: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and element type of each input in a set of inputs."""
    sizes = sizes_to_try(module, number)
    found = {}
    for argument in module.main.inputs:
        assert isinstance(argument.type, TensorType)
        shape = tuple(d if isinstance(d, int) else sizes.get(d, 2) for d in argument.type.shape or ())
        found[argument.name] = shape, argument.type.dtype.numpy
    return found


def _batch(rng: np.random.Generator, shape: tuple[int, ...], line: float | None, positive: bool) -> Array:
    """Pictures in a shape that has channels first or last."""
    axes = samples.picture_axes(shape)
    assert axes is not None
    height, width = axes
    first = shape[2:] == axes
    channels = shape[1] if first else shape[3]
    made = [leaves(rng, height, width) if line is None else strokes(rng, height, width, line) for _ in range(shape[0])]
    pictures = rng.standard_normal((len(made), min(3, channels), height, width))
    pictures *= _NOISE
    for picture, into in zip(made, pictures, strict=True):
        into += picture[:channels]
    if positive:
        pictures += 1
        pictures /= 2
    return pictures if first else np.moveaxis(pictures, 1, 3)


def strokes(rng: np.random.Generator, height: int, width: int, line: float) -> Array:
    """(3, height, width) in [-1, 1]: lines of upright and level strokes on a ground that is brighter here and there.

    Args:
        line: the height of a line, as a share of the smaller side.
    """
    ground, ink = rng.uniform(0.2, 1.0), rng.uniform(-1.0, 0.2)
    if rng.random() < 0.3:
        ground, ink = ink, ground
    y, x = np.arange(height), np.arange(width)
    side = min(height, width)
    out = np.full((height, width), ground)
    for _ in range(4):
        cy, cx, spread = rng.random() * height, rng.random() * width, (0.1 + 0.3 * rng.random()) * side
        down, along = (np.exp(-((at - c) ** 2) / (2 * spread**2)) for at, c in ((y, cy), (x, cx)))
        out += np.outer(0.1 * rng.standard_normal() * down, along)
    high = max(6, int(side * line))
    thick = max(1, int(high * rng.uniform(0.06, 0.16)))
    for top in range(int(rng.integers(0, high // 2)), height - high + 1, high * 3 // 2):
        left = int(rng.integers(0, max(1, width // 8)))
        while left < width - high // 2:
            glyph = int(high * rng.uniform(0.4, 0.8))
            for upright in rng.random(3) < 0.5:
                if upright:
                    at = left + int(rng.integers(0, max(1, glyph - thick)))
                    out[top : top + high, at : at + thick] = ink
                else:
                    at = top + int(rng.integers(0, high - thick + 1))
                    out[at : at + thick, left : left + glyph] = ink
            left += glyph + thick + 1 + (high // 2 if rng.random() < 0.15 else 0)
    return np.broadcast_to(np.clip(out, -1, 1, out=out), (3, height, width))


def leaves(rng: np.random.Generator, height: int, width: int) -> Array:
    """(3, height, width) in [-1, 1]: ellipses and rectangles of any colour, many small and few large, turned anyhow."""
    out = np.full((3, height, width), rng.uniform(-1, 1))
    side = min(height, width)
    rooms = np.empty((2, height * width), np.float32)
    for _ in range(_LEAVES):
        radius = 0.6 * side * (rng.random() ** 3 + 0.03)
        cy, cx, angle, narrow = rng.random() * height, rng.random() * width, rng.random() * np.pi, rng.uniform(0.1, 1)
        round_ = rng.random() < 0.5
        cosine, sine = math.cos(angle), math.sin(angle)
        # How far it reaches from its centre along each axis.
        sides = (abs(sine), abs(cosine) * narrow), (abs(cosine), abs(sine) * narrow)
        down, along = (radius * (math.hypot(*side) if round_ else sum(side)) for side in sides)
        top, bottom = (min(max(int(v), 0), height) for v in (cy - down, cy + down + 1))
        left, right = (min(max(int(v), 0), width) for v in (cx - along, cx + along + 1))
        y, x = (np.arange(*of, dtype=np.float32) - c for of, c in (((top, bottom), cy), ((left, right), cx)))
        # In memory that stays: for arrays of this size new pages take longer than what is computed in them.
        u, v = (room[: len(y) * len(x)].reshape(len(y), len(x)) for room in rooms)
        np.add((y * (sine / radius))[:, None], x * (cosine / radius), out=u)
        np.subtract((y * (cosine / radius / narrow))[:, None], x * (sine / radius / narrow), out=v)
        if round_:
            inside: Array = np.add(np.square(u, out=u), np.square(v, out=v), out=u) < 1
        else:
            inside = np.maximum(np.abs(u, out=u), np.abs(v, out=v), out=u) < 1
        colour = np.clip(rng.uniform(-1, 1) + 0.3 * rng.standard_normal(3), -1, 1)
        np.copyto(out[:, top:bottom, left:right], colour[:, None, None], where=inside)
    return out
