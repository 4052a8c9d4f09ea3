"""What a student learns from: an .npz file, a folder of them, or a generator of the user's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compiler.compression import calibration
from compiler.errors import UserError
from compiler.ir import Function

Array = np.ndarray[Any, Any]
Sample = dict[str, Array]


def samples(source: str | Path | Mapping[str, Array], function: Function, most: int) -> list[Sample]:
    """Samples by input name, other arrays with them.

    Args:
        source: an .npz file with an axis of samples in front; a folder of .npz files, each of one or several samples;
            ``FILE.py:FUNCTION``, a generator of samples as arrays by name; or arrays.
        most: how many to take at the most.

    Raises:
        UserError: it cannot be read, or what it holds does not fit the inputs.
    """
    if isinstance(source, Mapping):
        return calibration.labelled(source, function)[:most]
    text = str(source)
    if ".py:" in text:
        return _generated(text, function, most)
    parts = files(source)
    if not parts:
        raise UserError(f"the folder {source} holds no .npz file", "numpy.savez(FILE, NAME=array, …) for each sample")
    found: list[Sample] = []
    for file in parts:
        if len(found) >= most:
            break
        found += calibration.labelled(calibration.load(file), function, str(file))
    return found[:most]


def files(source: str | Path) -> list[Path]:
    """The files that samples come from: .npz files, or that of a generator."""
    text = str(source)
    path = Path(text.rpartition(":")[0] if ".py:" in text else text)
    return sorted(path.glob("*.npz")) if path.is_dir() else [path]


def _generated(text: str, function: Function, most: int) -> list[Sample]:
    from compiler.comparison.metrics import function_of

    file, _, name = text.rpartition(":")
    make = function_of(Path(file), name, "generator")
    try:
        given = list(itertools.islice(make(), most))
    except Exception as e:
        raise UserError(f"the generator {name} of {file} failed: {type(e).__name__}: {e}") from e
    for one in given:
        if not isinstance(one, Mapping):
            raise UserError(
                f"the generator {name} of {file} gave a {type(one).__name__}, where arrays by input name are needed",
                "yield {NAME: array}",
            )
    return [sample for one in given for sample in calibration.labelled(one, function, f"what {name} of {file} gave")]


def divided(given: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from and samples to judge by, the same at each call.

    Raises:
        UserError: there are fewer than two.
    """
    if len(given) < 2:
        raise UserError(f"there are {len(given)} samples to learn from, and two are the least", "more data")
    order = np.random.default_rng(seed).permutation(len(given))
    held = max(1, math.ceil(share * len(given)))
    return [given[i] for i in order[held:]], [given[i] for i in order[:held]]
