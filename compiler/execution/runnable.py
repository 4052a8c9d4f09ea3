"""Anything that computes outputs from inputs on this machine: a package, kernels, or an ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compiler.ir import Function, Module, StateType, TensorType, dtype

if TYPE_CHECKING:
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Runnable:
    """Something loaded once, to be run many times.

    Attributes:
        path: where it lies.
        kind: what it is.
        signature: a function whose inputs are what an app gives, states left out; it has no operators.
        output_names: in order.
        states: whether a run depends on those before it.
        module: the mil module of a package, which is not consumed by runs; None for anything else.
        run: the outputs by name for one set of inputs; raises UserError where an array is missing or does not fit.
    """

    path: Path
    kind: Literal["package", "kernels", "model"]
    signature: Function
    output_names: tuple[str, ...]
    states: bool
    module: Module | None
    run: Callable[[Mapping[str, Array]], dict[str, Array]]


def load(path: str | Path, library: Library, function: str | None = None) -> Runnable:
    """Opens what lies at a path.

    Args:
        library: the rules that give a package's operators meaning.
        function: which function of a package; its default when None.

    Raises:
        UserError: there is nothing that can be run.
        UnsupportedError: an operator of a package has no meaning here, or there is no compiler for kernels.
    """
    from codegen.metal import package as kernels

    path = Path(path)
    if kernels.is_package(path):
        return _kernels(path)
    return _package(path, library, function) if path.is_dir() else _model(path)


def _package(path: Path, library: Library, name: str | None) -> Runnable:
    from compiler.execution import calls, samples
    from compiler.execution.running import MilSession, read_package
    from compiler.ir import clone_module

    module = calls.select(read_package(path), name, path)
    main = module.main
    given = [(a.name, a.type) for a in main.inputs if not isinstance(a.type, StateType)]
    names = tuple(main.output_names)
    session = MilSession(clone_module(module), library)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        fed = samples.fitted(inputs, main, [n for n, _ in given])
        return dict(zip(names, session.run(list(fed.values())), strict=True))

    signature = Function("main", given, names, main.attributes)
    return Runnable(path, "package", signature, names, len(given) < len(main.inputs), module, run)


def _kernels(path: Path) -> Runnable:
    from codegen.metal import executor
    from codegen.metal import package as kernels

    program = kernels.read(path)
    session = executor.Session(program)
    inputs, outputs = ([program.buffers[i] for i in program.of_kind(kind)] for kind in ("input", "output"))
    names = tuple(b.name for b in outputs)
    signature = Function("main", [(b.name, TensorType(dtype(b.declared), b.shape)) for b in inputs], names)
    return Runnable(path, "kernels", signature, names, False, None, session.run)


def _model(path: Path) -> Runnable:
    from compiler.execution import samples
    from compiler.frontend import load as import_model
    from compiler.proof import Reference

    main = import_model(path).main
    reference = Reference(path)
    names = tuple(reference.output_names)
    signature = Function("main", [(a.name, a.type) for a in main.inputs], names)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, reference.run(samples.fitted(inputs, signature)), strict=True))

    return Runnable(path, "model", signature, names, False, None, run)
