"""``--state IN:OUT``: what an output gives comes back as an input at the next call, and Core ML keeps it in between.

Core ML keeps states in half precision only (coremltools' backend, ``mil/load.py``: "State only support fp16 dtype"),
from iOS 18 on, and zeros before the first call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from compiler.errors import UserError
from compiler.features.base import Array, Arrays, Feature, Run, input_index, output_index
from compiler.ir import F16, Function, Module, Op, StateType, TensorType, Value

if TYPE_CHECKING:
    from compiler.target import Target

#: How many calls in a row a proof makes: errors that come back have time to grow.
CALLS = 8


def parse(texts: list[str]) -> States:
    """The feature that all ``--state`` options ask for. A name may hold colons if the pair still has one middle.

    Raises:
        UserError: one is not a pair of names, or names come twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        parts = text.split(":")
        half = len(parts) // 2
        if len(parts) % 2 or not (source := ":".join(parts[:half])) or not (result := ":".join(parts[half:])):
            raise UserError(f"--state {text} is not of the form IN:OUT", "--state h_in:h_out, an input and an output")
        if source in pairs or result in pairs.values():
            raise UserError(f"--state {text} names an input or output that another --state names", "one pair for each")
        pairs[source] = result
    return States(pairs)


@dataclass(slots=True)
class States(Feature):
    """Pairs of an input and the output that feeds it."""

    pairs: Mapping[str, str]
    _types: dict[str, TensorType] = field(default_factory=dict)

    def check(self, target: Target) -> None:
        if target.ios < 18:
            raise UserError(f"states need iOS 18, and the package is for iOS {target.ios}", "--os ios18")

    def accuracy(self, precision: str) -> str:
        """Half's: what comes back has been rounded to half, whatever the program computes in."""
        return "fp16"

    def prepare(self, module: Module) -> None:
        main = module.main
        for source, result in self.pairs.items():
            given = main.inputs[input_index(main, source, "--state")].type
            back = main.outputs[output_index(main, result, "--state")].type
            if not isinstance(given, TensorType) or not given.dtype.is_float or given.dtype.bits > 32:
                raise UserError(f"'{source}' is a {given}; Core ML keeps states in half precision", "a float input")
            if not given.is_static or not given.rank:
                raise UserError(f"'{source}' is a {given}; a state's sizes must be known", f"--shape {source}=…")
            fits = not isinstance(back, TensorType) or back.shape is None or _fits(back.shape, given.static_shape)
            if not fits:
                raise UserError(
                    f"'{result}' is a {back} and cannot come back as '{source}', a {given}", "a pair that fits"
                )
            self._types[source] = given
        if len(self.pairs) == len(main.output_names):
            raise UserError("--state takes every output, and a package must give something", "keep one output")
        notes = module.attributes.get("notes", ())
        said = "states are kept in half precision, as Core ML has them: the proof's limit is that of half precision"
        module.attributes["notes"] = (*notes, said)

    def own_inputs(self) -> set[str]:
        return set(self.pairs)

    def split(self, given: Arrays, function: Function) -> list[Arrays]:
        """Arrays that an app gives for one call, or with a leading axis of calls; states start as zeros."""
        ranks = {a.name: a.type.rank for a in function.inputs if isinstance(a.type, TensorType)}
        calls = split_calls({n: a for n, a in given.items() if n not in self.pairs}, ranks)
        return [{**one, **self._zeros()} for one in calls]

    def _zeros(self) -> Arrays:
        return {n: np.zeros(t.static_shape, t.dtype.numpy) for n, t in self._types.items()}

    def draw(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        """Enough calls, no two alike: made-up inputs, turned along their last axis, every other round at a tenth.

        Gates of a recurrent cell are open or shut on loud inputs, and only quiet ones show what they do in between.
        """
        out = []
        for call in range(max(CALLS, len(sets))):
            turn = call // len(sets)
            out.append({n: _varied(a, turn) for n, a in sets[call % len(sets)].items()})
        return out

    def chain(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        """The sets as calls in a row: zeros first, then what the model gave at the call before."""
        held = self._zeros()
        out = []
        for one in sets:
            out.append({**one, **held})
            results = run(out[-1])
            for source, result in self.pairs.items():
                held[source] = results[result].astype(held[source].dtype)
                if held[source].shape != self._types[source].static_shape:
                    raise UserError(
                        f"'{result}' has shape {held[source].shape} and cannot come back as '{source}', "
                        f"{self._types[source].static_shape}",
                        "a pair that fits, or other shapes",
                    )
        return out

    def package_inputs(self, inputs: Arrays) -> Arrays:
        return {n: a for n, a in inputs.items() if n not in self.pairs}

    def package_outputs(self, outputs: Arrays) -> Arrays:
        return {n: a for n, a in outputs.items() if n not in self.pairs.values()}

    def seal(self, module: Module) -> None:
        main = module.main
        end = main.block.terminator
        assert end is not None
        given = dict(zip(main.output_names, main.outputs, strict=True))
        for source, result in self.pairs.items():
            argument = main.inputs[input_index(main, source, "--state")]
            declared = argument.type
            assert isinstance(declared, TensorType)
            half = declared.with_dtype(F16)
            users = list(argument.users)
            read = Op("mil.read_state", [argument], [half])
            main.block.insert_before(main.block.first, read)
            read.result.name = f"{source}_read"
            now = _as(read.result, declared, main.block.first, after=read)
            for user in users:
                if user.name == "mil.cast" and user.result.type is half:
                    user.result.replace_all_uses_with(read.result)
                    user.erase()
                else:
                    user.operands = tuple(now if v is argument else v for v in user.operands)
            argument.type = StateType(half)
            value = given[result]
            value = now if value is argument else value
            kept = value.op.operands[0] if value.op is not None and value.op.name == "mil.cast" else None
            if kept is None or kept.type is not half:
                kept = _as(value, half, end)
            main.block.insert_before(end, Op("mil.coreml_update_state", [argument, kept], [half]))
        left = [n for n in main.output_names if n not in self.pairs.values()]
        main.set_outputs([given[n] for n in left], left)


def _varied(array: Array, turn: int) -> Array:
    if not array.ndim or array.dtype.kind == "b":
        return array
    turned = np.roll(array, turn, -1)
    quiet = turn % 2 == 1 and array.dtype.kind == "f" and array.size and array.min() != array.max()
    return np.asarray(turned * array.dtype.type(0.1)) if quiet else turned


def _as(value: Value, type_: TensorType, before: Op | None, after: Op | None = None) -> Value:
    if value.type is type_:
        return value
    made = Op("mil.cast", [value], [type_], {"dtype": "fp16" if type_.dtype is F16 else "fp32"})
    anchor = after if after is not None else before
    assert anchor is not None
    assert anchor.block is not None
    if after is not None:
        anchor.block.insert_after(after, made)
    else:
        anchor.block.insert_before(before, made)
    return made.result


def _fits(shape: tuple[int | str, ...], want: tuple[int, ...]) -> bool:
    return len(shape) == len(want) and all(not isinstance(d, int) or d == w for d, w in zip(shape, want))


def split_calls(given: Mapping[str, Array], ranks: Mapping[str, int | None]) -> list[Arrays]:
    """Arrays for calls in a row. One with an axis more than its input has an entry for each call; others stay the same.

    Raises:
        UserError: two arrays are for different numbers of calls.
    """
    counts = {n: len(a) for n, a in given.items() if n in ranks and a.ndim == (ranks[n] or 0) + 1}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"'{n}' for {c}" for n, c in counts.items())
        raise UserError(f"the arrays are for different numbers of calls: {said}", "the same leading axis in each")
    total = next(iter(counts.values()), 1)
    return [{n: a[i] if n in counts else a for n, a in given.items()} for i in range(total)]
