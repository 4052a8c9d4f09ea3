"""Functions and modules: what a compilation unit is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compiler.ir.core import Block, BlockArgument, Op, Value
from compiler.ir.types import Type


class Function:
    """A named block whose arguments are the inputs and whose terminator's operands are the outputs.

    The names of inputs and outputs are the function's own, not the values': an input may be returned as it is, and one
    value may be returned under two names.
    """

    __slots__ = ("attributes", "block", "name", "output_names")

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Type] | Sequence[tuple[str, Type]] = (),
        output_names: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        pairs = list(inputs.items()) if isinstance(inputs, Mapping) else list(inputs)
        self.name = name
        self.block = Block([t for _, t in pairs], [n for n, _ in pairs])
        self.output_names = list(output_names)
        self.attributes: dict[str, Any] = dict(attributes or {})

    @property
    def inputs(self) -> list[BlockArgument]:
        return self.block.arguments

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values that leave the function, in the order of ``output_names``.

        Raises:
            ValueError: the function has no terminator yet.
        """
        end = self.block.terminator
        if end is None:
            raise ValueError(f"function @{self.name} has no ir.return")
        return tuple(v for v in end.operands if v is not None)

    def set_outputs(self, values: Sequence[Value], names: Sequence[str] | None = None) -> None:
        """Ends the function with ``values``, in place of what it returned before."""
        end = self.block.terminator
        if end is None:
            self.block.append(Op("ir.return", values))
        else:
            end.operands = tuple(values)
        if names is not None:
            self.output_names = list(names)

    def walk(self) -> Iterator[Op]:
        """All operators, those inside regions included."""
        return self.block.walk()


class Module:
    """Functions by name, and what is known of the whole: opset, producer, metadata (``attributes``)."""

    __slots__ = ("attributes", "functions", "name")

    def __init__(self, name: str = "module", attributes: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.functions: dict[str, Function] = {}
        self.attributes: dict[str, Any] = dict(attributes or {})

    @property
    def main(self) -> Function:
        """The function called ``main``, or the only one.

        Raises:
            ValueError: there are several, none of them called ``main``, or none at all.
        """
        if "main" in self.functions:
            return self.functions["main"]
        if len(self.functions) != 1:
            raise ValueError(f"module @{self.name} has {len(self.functions)} functions and no @main")
        return next(iter(self.functions.values()))

    def add(self, function: Function) -> Function:
        if function.name in self.functions:
            raise ValueError(f"module @{self.name} already has a function @{function.name}")
        self.functions[function.name] = function
        return function

    def walk(self) -> Iterator[Op]:
        for function in self.functions.values():
            yield from function.walk()
