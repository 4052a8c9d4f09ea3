"""How to compile: what the command line's options say, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compiler.shapes import Shape
from compiler.target import Target

Array = np.ndarray[Any, Any]
Verify = Literal["full", "fast", "off"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile: what the command line's options say.

    Attributes:
        shapes: the shape of an input by its name; a dimension is a size, a span or a choice of sizes.
        rules: files of rules besides the library's own.
        disabled: names of rules that must not fire.
        inputs: what to prove on in place of made-up inputs: arrays by input name, or an .npz file of them.
    """

    target: Target = field(default_factory=Target)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    rules: Sequence[str | Path] = ()
    disabled: Sequence[str] = ()
    verify: Verify = "full"
    inputs: Mapping[str, Array] | str | Path | None = None
