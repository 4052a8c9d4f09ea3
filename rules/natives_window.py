"""The pads of windows, of convolutions and pooling: ONNX's and Core ML's ways to say them.

Pads are in Core ML's order unless said otherwise: before and after the first spatial dimension, then the second ….
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.ir import Dim, Value
from compiler.rewrite.functions import Decline, dims

#: Windows of more places do not become an operator for each.
_PLACES = 128


def require_few_places(kernel: Sequence[int]) -> None:
    """Declines a window that is too large for an operator for each place."""
    if math.prod(kernel) > _PLACES:
        raise Decline("a large window")


def interleaved(pads: Sequence[int]) -> tuple[int, ...]:
    """ONNX's order of pads, all before and then all after, in Core ML's."""
    n = len(pads) // 2
    return tuple(int(p) for i in range(n) for p in (pads[i], pads[n + i]))


def separated(pads: Sequence[int]) -> tuple[int, ...]:
    """Core ML's order of pads in ONNX's."""
    return tuple(int(p) for p in (*pads[0::2], *pads[1::2]))


def pad_type(auto_pad: str, x: Value, strides: Sequence[int]) -> str:
    """Core ML's name for how a window operator pads; ``custom`` wherever the pads can be computed."""
    if auto_pad in ("NOTSET", ""):
        return "custom"
    if auto_pad == "VALID":
        return "valid"
    if all(isinstance(d, int) or s == 1 for d, s in zip(dims(x)[2:], strides)):
        return "custom"
    return "same" if auto_pad == "SAME_UPPER" else "same_lower"


def explicit_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    sizes: Sequence[Dim],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """The pads of a window operator; zeros where only the runtime can know them (see :func:`pad_type`).

    SAME pads so that ⌈size / stride⌉ windows fit; what is odd goes behind (SAME_UPPER) or before (SAME_LOWER).
    """
    if not all(isinstance(k, int) for k in kernel):
        raise Decline("the size of the window is not known")
    if auto_pad in ("NOTSET", ""):
        return interleaved(pads) if pads is not None else (0,) * (2 * len(kernel))
    out: list[int] = []
    if auto_pad != "VALID":
        for size, k, s, d in zip(sizes, kernel, strides, dilations):
            reach = (k - 1) * d + 1
            if isinstance(size, int):
                total = max((-(-size // s) - 1) * s + reach - size, 0)
            elif s == 1:
                total = reach - 1
            else:
                break
            head = total // 2 if auto_pad == "SAME_UPPER" else (total + 1) // 2
            out += [head, total - head]
        else:
            return tuple(out)
    return (0,) * (2 * len(kernel))


def windows_start_inside(
    auto_pad: str, sizes: Sequence[Dim], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> bool:
    """Whether the windows of a pool lie so far apart that SAME pads would be negative.

    Of these onnxruntime's kernels refuse some, and let others start inside of the input (a window of 1 every 3 of 6
    starts at the second element); a convolution starts at the first element instead.
    """
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        return False
    for size, k, s, d in zip(sizes, kernel, strides, dilations):
        reach = (k - 1) * d + 1
        last = (-(-size // s) - 1) * s - size if isinstance(size, int) else -s
        if last + reach < -1:  # of −1, nothing stands before
            return True
    return False


def window_pads(
    auto_pad: str,
    ceil_mode: int,
    pads: Sequence[int] | None,
    sizes: Sequence[Dim],
    results: Sequence[Dim],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The pads of a pooling operator that never rounds up: where ONNX's does, the last window is padded to fit.

    Args:
        sizes, results: the spatial dimensions of input and output.

    Raises:
        Decline: it rounds up and the sizes are not known; or a window is larger than the padded input, of which ONNX
            makes one window by its way of rounding, and Core ML none; or windows start inside; or the result is not
            as large as padding by itself makes it.
    """
    dilations = dilations or [1] * len(kernel)
    if windows_start_inside(auto_pad, sizes, kernel, strides, dilations):
        raise Decline("windows lie so far apart that pads would be negative")
    out = list(explicit_pads(auto_pad, pads, sizes, kernel, strides, dilations))
    if auto_pad not in ("NOTSET", "", "VALID"):
        known = [(d, r, s) for d, r, s in zip(sizes, results, strides) if isinstance(d, int) and isinstance(r, int)]
        if any(-(-d // s) != r for d, r, s in known):
            raise Decline("the result has another size than such pads give it")
        return tuple(out)
    for i, (size, result) in enumerate(zip(sizes, results)):
        reach = (kernel[i] - 1) * dilations[i] + 1
        if ceil_mode:
            if not isinstance(size, int) or not isinstance(result, int):
                raise Decline("the sizes are not known, and it rounds up")
            used = (result - 1) * strides[i] + reach
            out[2 * i + 1] += max(0, used - size - out[2 * i] - out[2 * i + 1])
        if isinstance(size, int) and size + out[2 * i] + out[2 * i + 1] < reach:
            raise Decline("a window is larger than the padded input")
    return tuple(out)


def meant_pads(
    pad_type: str,
    pad: Sequence[int] | None,
    sizes: Sequence[Dim],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """The pads of a mil window operator, in ONNX's order.

    Raises:
        Decline: only the runtime can know them.
    """
    n = len(kernel)
    match pad_type.lower():
        case "valid":
            return (0,) * (2 * n)
        case "custom":
            return separated(pad) if pad is not None else (0,) * (2 * n)
        case "same" | "same_lower":
            if not all(isinstance(d, int) or s == 1 for d, s in zip(sizes, strides)):
                raise Decline("the pads depend on a size that is not known")
            auto = "SAME_UPPER" if pad_type.lower() == "same" else "SAME_LOWER"
            return separated(explicit_pads(auto, None, sizes, kernel, strides, dilations))
    raise Decline(f"pads are {pad_type}")


def meant_window_pads(
    pad_type: str,
    ceil_mode: bool,
    pad: Sequence[int] | None,
    sizes: Sequence[Dim],
    kernel: Sequence[int],
    strides: Sequence[int],
) -> tuple[int, ...]:
    """The pads of a mil pooling operator in ONNX's order; where it rounds up, with what the last window needs.

    Raises:
        Decline: only the runtime can know them.
    """
    n = len(kernel)
    pads = list(meant_pads(pad_type, pad, sizes, kernel, strides, (1,) * n))
    if ceil_mode:
        for i, size in enumerate(sizes):
            if not isinstance(size, int):
                raise Decline("a size is not known, and it rounds up")
            head, tail = pads[i], pads[n + i]
            out = -(-(size + head + tail - kernel[i]) // strides[i]) + 1
            if (out - 1) * strides[i] >= size + head and head + tail > 0:
                out -= 1
            pads[n + i] += max(0, (out - 1) * strides[i] + kernel[i] - size - head - tail)
    return tuple(pads)
