"""A package that stays loaded: described once, run as often as asked, with any number of states side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import UserError
from compiler.execution import description, parts, samples
from compiler.execution.description import Description, Feature
from compiler.execution.running import MilSession
from compiler.ir import Function, dtype, suggest

Array = np.ndarray[Any, Any]

#: How many states may be open at once.
MOST_STATES = 4096


class Loaded:
    """A package, ready to run. ``planish run`` computes the same from the same inputs.

    Attributes:
        description: what it takes and gives.
        apart: the operator for whose sake no rows share a call, though they do not mix.
    """

    def __init__(self, package: Path, function: str | None = None) -> None:
        """Loads a package.

        Raises:
            UserError, UnsupportedError: there is none, it is broken, or it cannot be run here.
        """
        from codegen.metal import package as kernels

        self.description: Description
        self._states: dict[int, dict[str, Array]] = {}
        self._next = 1
        self._mil: MilSession | None = None
        self.apart: str | None = None
        self._run: Callable[[Mapping[str, Array]], dict[str, Array]]
        if kernels.is_package(package):
            from codegen.metal import executor

            program = kernels.read(package)
            self.description = description.of_program(program)
            self._run = executor.Session(program).run
        elif parts.is_package(package):
            from compiler.driver import Options, load_library

            self.description, _ = parts.describe(package)
            self._run = parts.Session(package, load_library(Options())).run
        else:
            from compiler.driver import Options, load_library
            from compiler.execution import calls
            from compiler.execution.running import read_package

            module = calls.select(read_package(package), function, package)
            self.description = description.of_module(module)
            self._main = _shell(module.main)
            self._mil = MilSession(module, load_library(Options()))
            self._zeros = {n: a.copy() for n, a in self._mil.states.items()}
            shapes = tuple(tuple(d or 1 for d in f.shape) for f in self.description.inputs)
            self.apart = self._mil.apart(shapes)
            if self.apart is not None:
                self.description = dataclasses.replace(self.description, rows=None)

    def open_state(self) -> int:
        """A new state, zeros as before the first call.

        Raises:
            UserError: the package keeps none, or too many are open.
        """
        if not self.description.states:
            raise UserError("the package keeps no state", "a request without 'state'")
        if len(self._states) >= MOST_STATES:
            raise UserError(f"{MOST_STATES} states are open already", "close_state for those that are done")
        number = self._next
        self._next += 1
        self._states[number] = self._zeros
        return number

    def close_state(self, number: int) -> None:
        """Forgets a state.

        Raises:
            UserError: it is not open.
        """
        self._known(number)
        del self._states[number]

    def run(self, tensors: Mapping[str, Array], state: int | None = None) -> dict[str, Array]:
        """One call: the outputs by name, of the element types that the description says.

        Args:
            state: which state the call goes on from and changes; without, a package with states starts from zeros.

        Raises:
            UserError: a tensor is missing, unknown, or of another type or shape than the description allows; or the
                state is not open.
            EvaluationError: onnxruntime fails.
        """
        if state is not None:
            self._known(state)
        self._check(tensors)
        if self._mil is None:
            made = self._run(tensors)
            return {f.name: _declared(f, made[f.name]) for f in self.description.outputs}
        fed = samples.fitted(tensors, self._main, [f.name for f in self.description.inputs])
        if self.description.states:
            self._mil.states = self._zeros if state is None else self._states[state]
        results = self._mil.run(list(fed.values()))
        if state is not None:
            self._states[state] = self._mil.states
        return {f.name: _declared(f, a) for f, a in zip(self.description.outputs, results, strict=True)}

    def _known(self, number: int) -> None:
        if not self.description.states:
            raise UserError("the package keeps no state", "a request without 'state'")
        if number not in self._states:
            raise UserError(f"no state {number} is open", "open_state gives the number of a new one")

    def _check(self, tensors: Mapping[str, Array]) -> None:
        features = {f.name: f for f in self.description.inputs}
        for name in tensors:
            if name not in features:
                raise UserError(f"the package has no input '{name}'{suggest(name, features)}")
        for name, feature in features.items():
            if name not in tensors:
                raise UserError(f"there is no tensor for input '{name}'")
            array = tensors[name]
            if feature.kind == "image" and array.dtype == np.uint8 and array.ndim in (2, 3):
                planes = samples.pixels(array, feature.color)
                shape = planes.shape
            else:
                shape = array.shape
                if array.dtype != dtype(feature.dtype).numpy:
                    raise UserError(f"input '{name}' is {feature.dtype}, and the tensor given is of {array.dtype}")
            if not feature.takes(shape):
                raise UserError(f"input '{name}' takes {_spelled(feature)}, and the tensor given has {shape}")
        self._check_rows(tensors)

    def _check_rows(self, tensors: Mapping[str, Array]) -> None:
        rows = self.description.rows
        counts = {tensors[n].shape[0] for n in rows.inputs} if rows is not None else set()
        if len(counts) > 1:
            raise UserError(f"inputs have different numbers of rows: {', '.join(map(str, sorted(counts)))}")


def _shell(main: Function) -> Function:
    """A function with the inputs of another and nothing inside: what fitting arrays looks at."""
    shell = Function(main.name, [(a.name, a.type) for a in main.inputs])
    shell.attributes = dict(main.attributes)
    return shell


def _declared(feature: Feature, array: Array) -> Array:
    if feature.kind == "label":
        return np.asarray(array)
    return np.asarray(array).astype(dtype(feature.dtype).numpy, copy=False)


def _spelled(feature: Feature) -> str:
    if feature.shapes:
        return "shapes " + " or ".join(map(str, feature.shapes))
    if feature.low:
        sides = [str(a) if a == b else f"{a}..{b if b >= 0 else ''}" for a, b in zip(feature.low, feature.high)]
        return f"shape ({', '.join(sides)})"
    return f"shape {feature.shape}"
