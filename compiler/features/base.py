"""How a wish about inputs and outputs takes part in a compile, and in its proof.

The proof compares with the original model, untouched. A feature changes the module where it sees fit and says what that
does to values: between what the package takes and gives, what the module takes and gives before it is sealed, and what
the model takes and gives. These functions on arrays are written for themselves, in NumPy, and share nothing with the
operators that they are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UserError
from compiler.ir import Function, Module, suggest
from compiler.proof import Reference

if TYPE_CHECKING:
    import onnx

    from compiler.features.batch import Batch
    from compiler.rewrite import Library
    from compiler.target import Target

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Sets = list[Arrays]
#: Runs the model on what the unsealed module takes; gives what that module should give.
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True, slots=True)
class Draft:
    """A package that is being proven.

    Attributes:
        package: where it lies.
        given: the inputs that it was given.
        due: what the module should give for each of them before it is sealed.
        library: the rules that give it its meaning.
        finish: what features behind the one that is asked make of outputs: names, rounding.
    """

    package: Path
    given: Sets
    due: Sets
    library: Library
    finish: Callable[[Arrays], Arrays] = lambda outputs: outputs


class Feature:
    """One wish. Every hook does nothing unless a subclass says otherwise."""

    def check(self, target: Target) -> None:
        """Raises UserError if the target cannot have it."""

    def prepare(self, module: Module) -> None:
        """Changes the module of onnx.* operators as it was imported.

        Raises:
            UserError: the model has no such input or output, or none that it could be done to.
        """

    def imported(self, module: Module) -> None:
        """Looks at the module when it has been brought to the newest operators and folded."""

    def draw(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        """Made-up inputs of the prepared module → such as an app would give."""
        return sets

    def split(self, given: Arrays, function: Function) -> list[Arrays]:
        """Arrays that a user gives to prove on → sets of inputs of the prepared module."""
        return [given]

    def chain(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        """Sets of inputs → the same, with what one set takes from what came of the one before."""
        return sets

    def around(self, run: Run) -> Run:
        """How the model is run, in place of ``run``, which takes and gives what the model does."""
        return run

    def own_inputs(self) -> set[str]:
        """Inputs of the prepared module that it sees to itself."""
        return set()

    def to_model(self, inputs: Arrays) -> Arrays:
        """What the prepared module takes → what the model takes."""
        return inputs

    def from_model(self, outputs: Arrays) -> Arrays:
        """What the model gives → what the prepared module should give."""
        return outputs

    def seal(self, module: Module) -> None:
        """Changes the finished module of mil.* operators, in place, just before it is written."""

    def package_inputs(self, inputs: Arrays) -> Arrays:
        """What the prepared module takes → what the package takes, in the order of its inputs."""
        return inputs

    def package_outputs(self, outputs: Arrays) -> Arrays:
        """What the prepared module should give → what the package should."""
        return outputs

    def compared(self, ours: Sets, wanted: Sets, proof: Draft) -> tuple[Sets, Sets]:
        """What the package gave for each set of inputs, and what it should have, as they are compared."""
        return ours, wanted

    def accuracy(self, precision: str) -> str:
        """The precision whose limits the proof applies."""
        return precision


@dataclass(frozen=True, slots=True)
class Interface:
    """All wishes of a compile, applied in order on the way in and out."""

    features: tuple[Feature, ...] = ()

    def check(self, target: Target) -> None:
        for f in self.features:
            f.check(target)

    def prepare(self, module: Module) -> None:
        for f in self.features:
            f.prepare(module)

    @property
    def batch(self) -> Batch | None:
        """What opens the batch, if that is wished for."""
        from compiler.features.batch import Batch

        return next((f for f in self.features if isinstance(f, Batch)), None)

    def imported(self, module: Module) -> None:
        for f in self.features:
            f.imported(module)

    def seal(self, module: Module) -> None:
        from passes import dce

        for f in self.features:
            f.seal(module)
        dce.run(module)

    def draw(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        for f in self.features:
            sets = f.draw(sets, run)
        return sets

    def split(self, given: Mapping[str, Array], function: Function) -> list[Arrays]:
        sets = [dict(given)]
        for f in self.features:
            sets = [one for before in sets for one in f.split(before, function)]
        return sets

    def chain(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        for f in self.features:
            sets = f.chain(sets, run)
        return sets

    def not_given(self) -> set[str]:
        """Inputs of the prepared module that no user gives."""
        return {name for f in self.features for name in f.own_inputs()}

    def package_inputs(self, inputs: Mapping[str, Array]) -> Arrays:
        out = dict(inputs)
        for f in self.features:
            out = f.package_inputs(out)
        return out

    def package_outputs(self, names: Sequence[str], outputs: Sequence[Array]) -> Arrays:
        return self.finished(dict(zip(names, outputs, strict=True)))

    def compared(self, ours: Sets, wanted: Sets, proof: Draft) -> tuple[Sets, Sets]:
        for i, f in enumerate(self.features):
            behind = Interface(self.features[i + 1 :])
            ours, wanted = f.compared(ours, wanted, replace(proof, finish=behind.finished))
        return ours, wanted

    def finished(self, outputs: Arrays) -> Arrays:
        """:meth:`Feature.package_outputs` of all features in turn."""
        for f in self.features:
            outputs = f.package_outputs(outputs)
        return outputs

    def accuracy(self, precision: str) -> str:
        for f in self.features:
            precision = f.accuracy(precision)
        return precision

    def reference(self, model: str | Path | onnx.ModelProto, outputs: Sequence[str]) -> Reference:
        """The original model, run on what the prepared module takes.

        Args:
            outputs: the prepared module's outputs, in order.
        """
        return _Adapted(model, self.features, outputs) if self.features else Reference(model)


class _Adapted(Reference):
    def __init__(
        self,
        source: str | Path | onnx.ModelProto,
        features: Sequence[Feature],
        outputs: Sequence[str],
        level: str = "ORT_ENABLE_BASIC",
    ) -> None:
        super().__init__(source, level)
        self._features = features
        self._wanted = list(outputs)

    def at(self, level: str) -> Reference:
        return _Adapted(self.source, self._features, self._wanted, level)

    def _inputs(self, inputs: Mapping[str, Array]) -> Arrays:
        out = dict(inputs)
        # What was prepared last stands nearest to the app.
        for f in reversed(self._features):
            out = f.to_model(out)
        return out

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        run: Run = self._plain
        for f in self._features:
            run = f.around(run)
        out = run(self._inputs(inputs))
        for f in self._features:
            out = f.from_model(out)
        return [out[name] for name in self._wanted]

    def _plain(self, inputs: Arrays) -> Arrays:
        return dict(zip(self.output_names, super().run(inputs), strict=True))

    def values(self, inputs: Mapping[str, Array], wanted: Iterable[str]) -> dict[str, Array]:
        return super().values(self._inputs(inputs), wanted)


def input_index(function: Function, name: str, option: str) -> int:
    """Which input is called ``name``.

    Raises:
        UserError: none is.
    """
    names = [a.name for a in function.inputs]
    if name not in names:
        raise UserError(
            f"{option} names '{name}', which is no input{suggest(name, names)}", f"one of {', '.join(names)}"
        )
    return names.index(name)


def output_index(function: Function, name: str, option: str) -> int:
    """Which output is called ``name``.

    Raises:
        UserError: none is.
    """
    names = list(function.output_names)
    if name not in names:
        near = suggest(name, names)
        raise UserError(f"{option} names '{name}', which is no output{near}", f"one of {', '.join(names)}")
    return names.index(name)
