"""What the stage of compression is given by the compile, and the names that it gives to weights and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.ir import Module, Op, TensorType, Type, Value, clone_function
from compiler.proof import MilSession, run_mil
from compiler.report import Report
from passes import emulate
from passes.compress import weights
from passes.compress.activations import layers

if TYPE_CHECKING:
    from compiler.features import Interface
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Road:
    """How far the compile has come.

    Attributes:
        lowered: the mil module in f32.
        keep: its operators that must compute in f32 where the package computes in half.
        tries: what the proof runs on, as inputs of ``lowered``; empty if nothing is proven.
        given, wanted: the same as inputs of the package, and what the original model gives there as its outputs.
        plain: the package that was proven, without compression, as it was read back.
        written: what it was read back from.
        stored: makes the module as it is stored, but for compression.
        write: writes a module where the package goes.
        made_up: inputs of ``lowered`` that were made up to correct biases by.
    """

    lowered: Module
    keep: dict[Op, str]
    tries: Sequence[Mapping[str, Array]]
    given: Sequence[Mapping[str, Array]]
    wanted: Sequence[Mapping[str, Array]]
    interface: Interface
    library: Library
    report: Report
    draft: Path
    plain: Module
    written: Module
    stored: Callable[[], Module]
    write: Callable[[Module], None]
    made_up: Sequence[Mapping[str, Array]] = ()

    @property
    def names(self) -> list[str]:
        """The outputs of the package, by the names that the user knows."""
        return list(self.wanted[0])

    def run_lowered(self, module: Module) -> list[list[Array]]:
        """What a module with the lowered one's inputs and outputs gives, as outputs of the package.

        States are what the module itself gave at the call before.
        """
        names = self.lowered.main.output_names
        session = MilSession(module, self.library)

        def run(one: dict[str, Array]) -> dict[str, Array]:
            return dict(zip(names, session.run(list(one.values())), strict=True))

        outputs = [run(one) for one in self.interface.chain([dict(t) for t in self.tries], run)]
        return [list(self.interface.package_outputs(names, list(o.values())).values()) for o in outputs]

    def run_package(self, package: Module) -> tuple[list[list[Array]], dict[Value, Array]]:
        """What a package that was read back gives, and what its compressed weights stand for, as far as that is
        known."""
        twins: dict[Value, Value] = {}
        copy = Module(package.name, package.attributes)
        for function in package.functions.values():
            copy.add(clone_function(function, values=twins))
        parts = [r for op in package.main.block.ops if emulate.is_compressed(op) for r in op.results]
        parts = [r for r in parts if not all(map(emulate.is_compressed, r.users))]
        session = MilSession(copy, self.library, known=[twins[v] for v in parts])
        found = zip(parts, session.known, strict=True)
        return [session.run(list(g.values())) for g in self.given], {v: a for v, a in found if a is not None}

    def run_stored(self, module: Module) -> list[list[Array]]:
        """What a module with the package's inputs and outputs gives."""
        return run_mil(module, [list(g.values()) for g in self.given], self.library)


def named_alike(plain: Module, stored: Module) -> None:
    """Gives weights and layers of a module that was read back the names of those that it was written from."""
    pairs = [
        *zip([w.op for w in weights(plain)], [w.op for w in weights(stored)], strict=True),
        *zip(layers(plain), layers(stored), strict=True),
    ]
    for read, written in pairs:
        assert read.name == written.name
        assert same_but_for_symbols(read.results[0].type, written.results[0].type)
        read.results[0].name = written.results[0].name


def same_but_for_symbols(a: Type, b: Type) -> bool:
    """Whether types are the same, open sizes aside: what these are called does not come back from disk."""
    if not isinstance(a, TensorType) or not isinstance(b, TensorType) or a.shape is None or b.shape is None:
        return a is b
    known = [tuple(d if isinstance(d, int) else -1 for d in t.shape or ()) for t in (a, b)]
    return a.dtype is b.dtype and known[0] == known[1]


def unique_names(module: Module) -> None:
    """Gives each weight and each layer a name of its own: files and plans speak of them by name."""
    taken: set[str] = set()
    for op in [*(w.op for w in weights(module)), *layers(module)]:
        value = op.results[0]
        base = value.name or (op.loc.nodes[0] if op.loc.nodes else op.name.removeprefix("mil."))
        name, count = base, 1
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        taken.add(name)
        value.name = name
