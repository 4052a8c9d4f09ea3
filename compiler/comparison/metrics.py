"""How good outputs are, sample by sample: built-in measures, and functions of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import suggest
from compiler.proof import compare as distance

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of one sample.

    Attributes:
        score: from what something computed, what the original computed (in the same order), and the sample's arrays,
            labels included.
        higher_is_better: which of two scores is the better one.
        relative: whether scores say how near outputs are to the original's.
    """

    name: str
    score: Callable[[Outputs, Outputs, Mapping[str, Array]], float]
    higher_is_better: bool = True
    relative: bool = False


def _agreement(ours: Outputs, theirs: Outputs, sample: Mapping[str, Array]) -> float:
    """The share of positions at which both choose the same class: argmax along the last axis of the first output."""
    a, b = next(iter(ours.values())), next(iter(theirs.values()))
    if a.shape != b.shape:
        return 0.0
    if a.dtype.kind != "f" or a.ndim == 0 or a.shape[-1] == 1:
        return float(np.mean(a == b))
    return float(np.mean(a.argmax(-1) == b.argmax(-1)))


def _error(ours: Outputs, theirs: Outputs, sample: Mapping[str, Array]) -> float:
    """The greatest relative L2 error of an output."""
    return max(distance(a, b).badness for a, b in zip(ours.values(), theirs.values(), strict=True))


def _accuracy(ours: Outputs, theirs: Outputs, sample: Mapping[str, Array]) -> float:
    """The share of positions at which the class chosen is that of the array ``label``."""
    if "label" not in sample:
        raise UserError("the metric 'accuracy' needs an array 'label' among the data", "--metric agreement")
    chosen = next(iter(ours.values())).argmax(-1)
    label = np.asarray(sample["label"])
    if chosen.size != label.size:
        raise UserError(f"a sample has {label.size} labels, and {chosen.size} classes are chosen for it")
    return float(np.mean(chosen.ravel() == label.ravel()))


BUILT_IN = {
    "agreement": Metric("agreement", _agreement, relative=True),
    "error": Metric("error", _error, higher_is_better=False, relative=True),
    "accuracy": Metric("accuracy", _accuracy),
}


def find(name: str, higher_is_better: bool | None = None) -> Metric:
    """A metric by its name, or ``FILE.py:FUNCTION`` for one of the user's.

    A function of the user's takes the outputs by name and the arrays of the sample by name, and gives a number.

    Raises:
        UserError: there is no such metric, or the file cannot be used.
    """
    file, colon, function = name.rpartition(":")
    if not colon:
        if name not in BUILT_IN:
            raise UserError(
                f"no metric is called '{name}'{suggest(name, BUILT_IN)}", f"{', '.join(BUILT_IN)} or FILE.py:FUNCTION"
            )
        return BUILT_IN[name]
    call = function_of(Path(file), function, "metric")

    def score(ours: Outputs, theirs: Outputs, sample: Mapping[str, Array]) -> float:
        try:
            found = float(call(dict(ours), dict(sample)))
        except Exception as e:
            raise UserError(f"the metric {function} of {file} failed: {type(e).__name__}: {e}") from e
        if not np.isfinite(found):
            raise UserError(f"the metric {function} of {file} gave {found}, which is no number to judge by")
        return found

    return Metric(function, score, higher_is_better is not False)


def function_of(file: Path, name: str, what: str) -> Callable[..., Any]:
    """A function of the user's.

    Args:
        what: what it is for, as errors call it.

    Raises:
        UserError: the file cannot be loaded, or has no such function.
    """
    import runpy

    try:
        found = runpy.run_path(str(file)).get(name)
    except OSError as e:
        raise UserError(f"cannot read the {what}'s file {file}: {e.strerror}") from e
    except Exception as e:
        raise UserError(f"the {what}'s file {file} cannot be loaded: {type(e).__name__}: {e}") from e
    if not callable(found):
        raise UserError(f"{file} has no function '{name}'")
    return found  # type: ignore[no-any-return]  # it is callable, and what it gives is checked when it is called
