"""Pictures that are made up to correct biases by, where weights are compressed without data.

What a layer loses on the mean depends on what its inputs are on the mean, which pictures of quite different things let
one tell about as well as photographs do: strokes as of writing, from small to as high as the picture, and shapes that
lie over each other like fallen leaves, of which Baradad et al. (2021) show that networks take them for natural.
"""

from __future__ import annotations

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
    sets = []
    for i, (line, positive) in enumerate(_KINDS):
        rng = np.random.default_rng(SEED + i)
        sizes = sizes_to_try(module, i)
        one = {}
        for argument in module.main.inputs:
            assert isinstance(argument.type, TensorType)
            shape = tuple(d if isinstance(d, int) else sizes.get(d, 2) for d in argument.type.shape or ())
            one[argument.name] = _batch(rng, shape, line, positive).astype(argument.type.dtype.numpy)
        sets.append(one)
    return sets


def _batch(rng: np.random.Generator, shape: tuple[int, ...], line: float | None, positive: bool) -> Array:
    """Pictures in a shape that has channels first or last."""
    axes = samples.picture_axes(shape)
    assert axes is not None
    height, width = axes
    first = shape[2:] == axes
    channels = shape[1] if first else shape[3]
    made = [leaves(rng, height, width) if line is None else strokes(rng, height, width, line) for _ in range(shape[0])]
    pictures = np.stack(made)[:, :channels]
    pictures = pictures + _NOISE * rng.standard_normal(pictures.shape)
    pictures = (pictures + 1) / 2 if positive else pictures
    return pictures if first else np.moveaxis(pictures, 1, 3)


def strokes(rng: np.random.Generator, height: int, width: int, line: float) -> Array:
    """(3, height, width) in [-1, 1]: lines of upright and level strokes on a ground that is brighter here and there.

    Args:
        line: the height of a line, as a share of the smaller side.
    """
    ground, ink = rng.uniform(0.2, 1.0), rng.uniform(-1.0, 0.2)
    if rng.random() < 0.3:
        ground, ink = ink, ground
    y, x = np.ogrid[0:height, 0:width]
    side = min(height, width)
    out = np.full((height, width), ground)
    for _ in range(4):
        cy, cx, spread = rng.random() * height, rng.random() * width, (0.1 + 0.3 * rng.random()) * side
        out += 0.1 * rng.standard_normal() * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * spread**2))
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
    picture: Array = np.clip(np.repeat(out[None], 3, axis=0), -1, 1)
    return picture


def leaves(rng: np.random.Generator, height: int, width: int) -> Array:
    """(3, height, width) in [-1, 1]: ellipses and rectangles of any colour, many small and few large, turned anyhow."""
    out = np.full((3, height, width), rng.uniform(-1, 1))
    side = min(height, width)
    for _ in range(_LEAVES):
        radius = 0.6 * side * (rng.random() ** 3 + 0.03)
        cy, cx, angle, narrow = rng.random() * height, rng.random() * width, rng.random() * np.pi, rng.uniform(0.1, 1)
        reach = 1.5 * radius
        top, bottom = (int(np.clip(v, 0, height)) for v in (cy - reach, cy + reach + 1))
        left, right = (int(np.clip(v, 0, width)) for v in (cx - reach, cx + reach + 1))
        y, x = np.ogrid[top:bottom, left:right]
        u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / radius
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / (radius * narrow)
        inside = u**2 + v**2 < 1 if rng.random() < 0.5 else (np.abs(u) < 1) & (np.abs(v) < 1)
        colour = np.clip(rng.uniform(-1, 1) + 0.3 * rng.standard_normal(3), -1, 1)
        np.copyto(out[:, top:bottom, left:right], colour[:, None, None], where=inside)
    return out
