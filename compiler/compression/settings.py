"""What a user asks of compression, checked before anything is compiled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import suggest
from compiler.target import known
from passes.compress.activations import METHODS, Method, read_ranges
from passes.compress.schemes import NAMES, Linear, Palette, Scheme, parse
from passes.prune.importance import IMPORTANCES, Importance

Array = np.ndarray[Any, Any]
#: Calibration inputs: one set or several, or an .npz file of them.
Data = Mapping[str, Array] | Sequence[Mapping[str, Array]] | str | Path

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]?)B?")
_UNITS = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, slots=True)
class Settings:
    """How to compress.

    Attributes:
        scheme: what every weight becomes; None to leave weights alone, or to choose for each.
        mixed: choose the scheme of each weight, within ``budget`` or ``max_error``.
        activations: quantize what layers take to eight bits.
        data: calibration inputs; without, weights are compressed by themselves alone.
        budget: the most bytes that the package may have.
        max_error: how far, as relative L2 error, an output may be from the original's.
        ranges: the file that keeps the ranges of activations: read if it is there, written if not.
        method: how ranges are found.
        prune: the share of channels to cut out of each layer whose channels can go.
        importance: by what channels are judged.
    """

    scheme: Scheme | None = None
    mixed: bool = False
    activations: bool = False
    data: Data | None = None
    budget: int | None = None
    max_error: float | None = None
    ranges: Path | None = None
    method: Method = "mse"
    prune: float | None = None
    importance: Importance | None = None

    @property
    def judged_by(self) -> Importance:
        """By what channels are judged: what was asked for, or the best that needs nothing more than what is there."""
        return self.importance or ("magnitude" if self.data is None else "activation")

    @property
    def compresses(self) -> bool:
        """Whether weights or activations are to be compressed, besides pruning."""
        return self.scheme is not None or self.mixed

    @property
    def corrects_biases(self) -> bool:
        """Whether biases are corrected without data: where weights become palettes, or integers other than those that
        coremltools makes."""
        if isinstance(self.scheme, Linear):
            return self.scheme.rounding == "balanced"
        return isinstance(self.scheme, Palette) and self.scheme.mode != "unique"

    @staticmethod
    def of(
        quantize: str | None,
        ios: int,
        *,
        data: Data | None = None,
        budget: str | int | None = None,
        max_error: float | None = None,
        ranges: str | Path | None = None,
        method: str = "mse",
        prune: float | None = None,
        importance: str | None = None,
    ) -> Settings | None:
        """The settings that options stand for; None if nothing is to be compressed.

        Args:
            quantize: ``int8``, ``palette4-group16`` and so on (see :func:`passes.compress.schemes.parse`), ``w8a8`` or
                ``mixed``.
            ios: the oldest release that the package must run on.
            budget: bytes, or text such as ``4MB``.
            prune: the share of channels to cut out, as 0.3.
            importance: ``magnitude``, ``activation`` or ``taylor``.

        Raises:
            UserError: a value is none of those known, or does not go with the others.
        """
        if prune is not None and not 0 < prune < 1:
            raise UserError(f"--prune {prune:g} is no share of channels between 0 and 1", "--prune 0.3")
        if max_error is not None and not 0 < max_error < 1:
            raise UserError(f"--max-error {max_error:g} is no relative error between 0 and 1", "--max-error 0.02")
        judged = _importance(importance, prune, data)
        if quantize is None:
            needless = [("--budget", budget), ("--ranges", ranges)]
            for option, given in (
                needless if prune is not None else [*needless, ("--calibrate", data), ("--max-error", max_error)]
            ):
                if given is not None:
                    raise UserError(f"{option} says how to compress, but not what", f"--quantize mixed {option} …")
            return None if prune is None else Settings(data=data, max_error=max_error, prune=prune, importance=judged)
        mixed, activations = quantize == "mixed", quantize == "w8a8"
        if mixed and budget is None and max_error is None:
            raise UserError("--quantize mixed needs to know when to stop", "--budget 4MB or --max-error 0.02")
        if budget is not None and not mixed:
            raise UserError(f"--budget chooses between schemes, and --quantize {quantize} is one", "--quantize mixed")
        if activations and ios < 17:
            raise UserError("quantized activations need iOS 17 or later", "--os ios17")
        if activations and data is None and (ranges is None or not Path(ranges).exists()):
            raise UserError("--quantize w8a8 needs inputs to find the ranges of activations on", "--calibrate data.npz")
        if ranges is not None and not activations:
            raise UserError("--ranges holds the ranges of activations, which stay floats", "--quantize w8a8")
        if ranges is not None:
            _check_ranges(Path(ranges))
        if method not in METHODS:
            raise UserError(f"no way to find ranges is called '{method}'", f"one of {', '.join(METHODS)}")
        scheme = None if mixed else parse("int8", ios) if activations else _scheme(quantize, ios)
        return Settings(
            scheme,
            mixed,
            activations,
            data,
            _bytes(budget),
            max_error,
            None if ranges is None else Path(ranges),
            method,
            prune,
            judged,
        )

    def __str__(self) -> str:
        if self.mixed:
            return "mixed"
        return f"{self.scheme} weights and activations" if self.activations else str(self.scheme)


def _importance(text: str | None, prune: float | None, data: Data | None) -> Importance | None:
    if text is None:
        return None
    by: Importance = known("importance", text, IMPORTANCES)  # type: ignore[assignment]  # it is one of them
    if prune is None:
        raise UserError("--importance says which channels go, but not how many", f"--prune 0.3 --importance {by}")
    if by != "magnitude" and data is None:
        raise UserError(f"--importance {by} is found on inputs that the model is made for", "--calibrate data.npz")
    if by == "taylor" and find_spec("jax") is None:
        raise UserError("--importance taylor needs JAX", "pip install 'planish[distill]'")
    return by


def _check_ranges(path: Path) -> None:
    """What is wrong with the file is said before the model is compiled, not after."""
    if path.exists():
        read_ranges(path)
    elif not path.absolute().parent.is_dir():
        raise UserError(
            f"{path} is no file that the ranges could be written to", "--ranges FILE in a folder that exists"
        )


def _scheme(text: str, ios: int) -> Scheme:
    try:
        return parse(text, ios)
    except UserError as e:
        names = (*NAMES, "w8a8", "mixed")
        if "is called" in e.message and "sparse" not in text:
            near = suggest(text, names)
            raise UserError(f"--quantize knows no '{text}'{near}", f"one of {', '.join(names)}") from None
        raise


def _bytes(budget: str | int | None) -> int | None:
    if budget is None:
        return None
    found = _SIZE.fullmatch(str(budget).strip())
    size = int(float(found[1]) * _UNITS[found[2]]) if found is not None else 0
    if size <= 0:
        raise UserError(f"--budget {budget} is no size", "--budget 4MB")
    return size
