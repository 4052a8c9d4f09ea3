"""Running a mil module on this machine: given meaning by rules, evaluated by onnxruntime, half precision emulated."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.execution import description, packets
from compiler.execution.batch_invariance import Rows
from compiler.ir import F16, Module, TensorType, Value, clone_module

if TYPE_CHECKING:
    from compiler.execution.evaluate import Session
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]
Shapes = tuple[tuple[int, ...], ...]

#: How often folding and giving meaning take turns for a program whose shapes are computed: each turn makes known the
#: shapes that the next operator waits for, and programs compute few shapes from shapes that are computed themselves.
_TURNS = 8

#: For how many combinations of input shapes a session stays loaded; the one that was used longest ago goes first.
_KEPT = 32


def read_package(path: str | Path) -> Module:
    """The mil module of a package on disk."""
    from codegen import mil

    module: Module = mil.read(path)
    return module


class MilSession:
    """A mil module ready to run.

    A module with open dimensions is given meaning for each combination of input shapes that it is run on, all sizes
    known: so does Core ML, and what an operator means can depend on them.

    States are zeros at first and stay between runs, which so are calls in a row; ``states`` holds them by name and may
    be set, to go on from others. Of a classifier's dictionary the values are given, in the order of its classes.

    Each row of a package whose rows do not mix gets the same bits, however many share a call
    (:mod:`compiler.execution.batch_invariance`).
    """

    def __init__(
        self,
        module: Module,
        library: Library,
        probes: Sequence[Value] | None = None,
        *,
        known: Sequence[Value] = (),
        optimize: bool = False,
        threads: int | None = None,
    ) -> None:
        """Takes the module over: afterwards it holds onnx operators.

        Args:
            probes: values to give out in place of the function's outputs.
            known: values that the module's own constants make, to be found in ``known`` as far as they are constants
                once the module has been given meaning; nothing is known of a module with open dimensions.
            optimize: let onnxruntime fuse operators, which no proof may: it is faster, and the last digits are others.
            threads: how many threads an operator may use; onnxruntime's choice when None.
        """
        from passes import dce, emulate, unclassify, unstate

        function = module.main
        rows = description.rows_of(module) if probes is None else None
        names = [a.name for a in function.inputs]
        self._rows = None if rows is None else Rows({names.index(n) for n in rows.inputs}, self._call, self.apart)
        self._lock = threading.Lock()
        self._apart: dict[Shapes, str | None] = {}
        self._prepared: dict[Shapes, Module] = {}
        self.classifiers = unclassify.run(function) if probes is None else []
        states = unstate.run(function)
        if probes is not None:
            function.set_outputs(probes, [f"probe_{i}" for i in range(len(probes))])
            dce.run(module)  # what comes behind them is not computed
        if any(isinstance(v.type, TensorType) and v.type.dtype is F16 for v in _values(module)):
            emulate.run(module)
        self.states: dict[str, Array] = {
            a.name: np.zeros(a.type.static_shape, np.float32)
            for a in function.inputs
            if a.name in states and isinstance(a.type, TensorType)
        }
        self._types = [(a.name, a.type) for a in function.inputs]
        self._module, self._library = module, library
        self._optimize, self._threads = optimize, threads
        self._open = any(not t.is_static for _, t in self._types if isinstance(t, TensorType))
        self._sessions: dict[Shapes, Session] = {}
        self.known: list[Array | None] = [None] * len(known)
        if not self._open:
            from compiler.execution import evaluate

            own = len(function.outputs)
            function.set_outputs([*function.outputs, *known])
            give_meaning(module, library)
            self.known = [v.constant for v in function.outputs[own:]]
            function.set_outputs(function.outputs[:own])
            if known:
                dce.run(module)  # onnxruntime takes no constants that nothing uses
            self._sessions[()] = evaluate.Session(module, optimize=optimize, threads=threads)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs for ``inputs``, which stand in the order of the function's and are cast to their types."""
        return self._call(inputs) if self._rows is None else self._rows.run(inputs)

    def apart(self, shapes: Shapes) -> str | None:
        """The operator for whose sake no rows share a call on inputs of such shapes, if there is one."""
        if self._rows is None:
            return None
        two, three = self._rows.shapes(shapes, 2), self._rows.shapes(shapes, 3)
        if two not in self._apart:
            module = self._prepared[two] = self._meaning(two)
            self._apart[two] = packets.depends_on_place(module, lambda: self._meaning(three))
        return self._apart[two]

    def _fed(self, inputs: Sequence[Array]) -> dict[str, Array]:
        fed: dict[str, Array] = {}
        given = iter(inputs)
        for name, type_ in self._types:
            assert isinstance(type_, TensorType)
            array = self.states[name] if name in self.states else next(given)
            fed[name] = np.asarray(array).astype(type_.dtype.numpy, copy=False)
        assert next(given, None) is None, "more arrays than inputs"
        return fed

    def _call(self, inputs: Sequence[Array]) -> list[Array]:
        fed = self._fed(inputs)
        results = list(self._session(tuple(a.shape for a in fed.values())).run(fed))
        if self.states:
            kept = results[len(results) - len(self.states) :]
            self.states = dict(zip(self.states, kept, strict=True))
            results = results[: len(results) - len(kept)]
        for classifier in self.classifiers:
            results = classifier.restore(results)
        return results

    def _session(self, shapes: Shapes) -> Session:
        from compiler.execution import evaluate

        key = shapes if self._open else ()
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                module = self._prepared.pop(key, None) or self._meaning(shapes)
                together = self._rows is not None and self.apart(shapes) is None
                threads = 1 if together else self._threads
                session = evaluate.Session(module, optimize=self._optimize, threads=threads)
                if len(self._sessions) >= _KEPT:
                    self._sessions.pop(next(iter(self._sessions)))
            self._sessions[key] = session
            return session

    def _meaning(self, shapes: Shapes) -> Module:
        """The module in onnx operators, for inputs of such shapes."""
        module = clone_module(self._module)
        for argument, shape in zip(module.main.inputs, shapes, strict=True):
            assert isinstance(argument.type, TensorType)
            argument.type = argument.type.with_shape(shape)
        give_meaning(module, self._library)
        return module


def run_mil(
    module: Module, inputs: Sequence[Sequence[Array]], library: Library, probes: Sequence[Value] | None = None
) -> list[list[Array]]:
    """What a mil module, which is consumed, computes on each set of inputs. See :class:`MilSession`."""
    session = MilSession(module, library, probes)
    return [session.run(one) for one in inputs]


def give_meaning(module: Module, library: Library) -> None:
    """Makes onnx.* operators of mil.* ones, in place; operators that have no meaning in ONNX stay.

    Raises:
        EvaluationError: onnxruntime cannot compute what shapes depend on.
    """
    from passes import fold

    library.rewrite(module, "meaning")
    for _ in range(_TURNS):
        if not any(op.defn.dialect == "mil" for op in module.walk()) or not fold.run(module):
            break
        library.rewrite(module, "meaning")


def _values(module: Module) -> Iterable[Value]:
    for function in module.functions.values():
        yield from function.inputs
    for op in module.walk():
        yield from op.results
