"""Running a package on arrays that an app would give: one call, or several in a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.execution import samples
from compiler.execution.running import MilSession
from compiler.features.state import split_calls
from compiler.ir import Function, Module, StateType, TensorType

if TYPE_CHECKING:
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]


def inputs_of(function: Function) -> list[str]:
    """The names of what an app gives; states are Core ML's own."""
    return [a.name for a in function.inputs if not isinstance(a.type, StateType)]


def classes(function: Function) -> dict[str, tuple[str | int, ...]]:
    """The classes of each output that is a classifier's dictionary, in the order of the values that a run gives."""
    out = {}
    for name, value in zip(function.output_names, function.outputs, strict=True):
        if value.op is not None and value.op.name == "mil.classify" and value is value.op.results[1]:
            out[name] = tuple(value.op.attributes["classes"])
    return out


def run_calls(module: Module, library: Library, given: Mapping[str, Array]) -> dict[str, Array]:
    """Runs the main function of a package that was read, which is consumed.

    Args:
        given: an array for each input; pictures may be uint8. With an axis of calls in front of all its others, an
            array has an entry for each of several calls in a row, between which states are kept; an array without is
            the same at each.

    Returns:
        The outputs by name, with an axis of calls in front if an input had one.

    Raises:
        UserError: an array is missing or does not fit, or two are for different numbers of calls.
    """
    main = module.main
    names = inputs_of(main)
    ranks = {a.name: _rank(main, a.name, given) for a in main.inputs if a.name in names}
    calls = split_calls({n: np.asarray(given[n]) for n in names if n in given}, ranks)
    several = any(n in given and np.ndim(given[n]) == (ranks[n] or 0) + 1 for n in names)
    fed = [list(samples.fitted(one, main, names).values()) for one in calls]
    outputs = list(main.output_names)
    session = MilSession(module, library)
    results = [session.run(one) for one in fed]
    if not several:
        return dict(zip(outputs, results[0], strict=True))
    return {name: np.stack([r[i] for r in results]) for i, name in enumerate(outputs)}


def _rank(function: Function, name: str, given: Mapping[str, Array]) -> int | None:
    """The axes of an array for one call: the input's, or those of a picture."""
    argument = next(a for a in function.inputs if a.name == name)
    rank = argument.type.rank if isinstance(argument.type, TensorType) else None
    array = given.get(name)
    if array is None or f"image.{name}" not in function.attributes or array.dtype != np.uint8:
        return rank
    # height × width × planes, or height × width where there is one plane; four axes may be calls of pictures.
    planes = 1 if function.attributes[f"image.{name}"].startswith("GRAY") else 3
    if array.ndim == 4 and array.shape[-1] == planes and array.shape[1] != planes:
        return 3
    return rank if array.ndim >= 4 else array.ndim


def select(module: Module, name: str | None, package: Path) -> Module:
    """The module with one of its functions only: the one called ``name``, or the package's default.

    Raises:
        UserError: the package has no such function.
    """
    from compiler.errors import UserError
    from compiler.ir import suggest

    functions = module.functions
    chosen = name or module.attributes.get("default_function")
    if chosen is None or (name is None and chosen not in functions):
        chosen = "main" if "main" in functions else next(iter(functions))
    if chosen not in functions:
        raise UserError(
            f"{package} has no function '{chosen}'{suggest(chosen, functions)}", f"one of {', '.join(functions)}"
        )
    alone = Module(module.name, module.attributes)
    alone.add(functions[chosen])
    return alone
