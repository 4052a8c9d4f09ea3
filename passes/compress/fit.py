"""Schemes made to fit a weight: groups and blocks that fill it, one scale where its users disagree about its axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from passes.compress.encode import Axes
from passes.compress.schemes import Linear, Palette, Scheme, Sparse


def fitted(scheme: Scheme, shape: Sequence[int], axes: Axes | None) -> Scheme:
    """The scheme with groups (along output channels) and blocks (along input channels) that fill the weight: of the
    sizes that do, the next larger than asked for, which takes no more room. A weight without axes takes one scale or
    table."""
    if axes is None:
        return whole(scheme)
    if isinstance(scheme, Sparse):
        return scheme if scheme.values is None else replace(scheme, values=_fitted(scheme.values, shape, axes))
    return _fitted(scheme, shape, axes)


def _fitted(scheme: Linear | Palette, shape: Sequence[int], axes: Axes) -> Linear | Palette:
    if isinstance(scheme, Palette):
        channels = shape[axes.output]
        group = _next_divisor(channels, scheme.group) if scheme.group else 0
        return replace(scheme, group=0 if group == channels else group)
    if scheme.granularity != "block":
        return scheme
    block = _next_divisor(shape[axes.input], scheme.block)
    return replace(scheme, granularity="channel") if block == shape[axes.input] else replace(scheme, block=block)


def _next_divisor(of: int, least: int) -> int:
    """The least divisor that is no less than ``least``, or the number itself where there is none."""
    return next((d for d in range(least, of) if of % d == 0), of)


def whole(scheme: Scheme) -> Scheme:
    """The scheme with one scale or table for the tensor."""
    if isinstance(scheme, Sparse):
        return scheme if scheme.values is None else replace(scheme, values=_whole(scheme.values))
    return _whole(scheme)


def _whole(scheme: Linear | Palette) -> Linear | Palette:
    if isinstance(scheme, Linear):
        return replace(scheme, granularity="tensor")
    return replace(scheme, group=0, channel_scale=False)
