"""How to compile: what the command line's options say, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compiler.features.base import Interface
from compiler.shapes import Shape
from compiler.target import Target

if TYPE_CHECKING:
    from compiler.compression.settings import Settings
    from compiler.metadata import Metadata

Array = np.ndarray[Any, Any]
Emitted = Literal["package", "stubs"]
Verify = Literal["full", "fast", "off"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile: what the command line's options say.

    Attributes:
        shapes: the shape of an input by its name; a dimension is a size, a span or a choice of sizes.
        rules: files of rules besides the library's own.
        disabled: names of rules that must not fire.
        inputs: what to prove on in place of made-up inputs: arrays by input name, or an .npz file of them.
        interface: what an app wants of inputs and outputs.
        metadata: what the package says of itself, besides where it comes from.
        page: where an HTML page about the compile goes, if one is wanted.
        compression: what to make smaller, and how.
        emit: what to write: the package, or stubs of the Metal kernels that rules name.
        kernels: a Metal file with kernels that take the place of those.
        hybrid: whether operators that Core ML cannot express become Metal kernels between Core ML packages.
    """

    target: Target = field(default_factory=Target)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    rules: Sequence[str | Path] = ()
    disabled: Sequence[str] = ()
    verify: Verify = "full"
    inputs: Mapping[str, Array] | str | Path | None = None
    interface: Interface = field(default_factory=Interface)
    metadata: Metadata | None = None
    page: str | Path | None = None
    compression: Settings | None = None
    hybrid: bool = False
    emit: Emitted = "package"
    kernels: str | Path | None = None
