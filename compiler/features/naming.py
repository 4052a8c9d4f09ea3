"""``--rename OLD=NEW`` and ``--describe NAME=TEXT``: what inputs and outputs are called, and what is said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from compiler.errors import UserError
from compiler.features.base import Arrays, Feature
from compiler.ir import Module, suggest

#: Core ML takes names that are identifiers in its programs; coremltools changes others.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_pairs(option: str, texts: list[str], placeholder: str) -> dict[str, str]:
    """``A=B`` texts as a mapping. The first ``=`` parts them unless a name holds one, which no name to give may.

    Raises:
        UserError: one has no ``=``, or two give the same key.
    """
    out: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=") if option != "--rename" else text.rpartition("=")
        if not equals or not key or not value:
            raise UserError(f"{option} {text} is not of the form {placeholder}", f"{option} {placeholder}")
        if key in out:
            raise UserError(f"{option} says '{key}' twice", f"{option} {placeholder} once for each")
        out[key] = value
    return out


@dataclass(frozen=True, slots=True)
class Naming(Feature):
    """New names and descriptions of inputs and outputs, by the names that the model gives them."""

    names: Mapping[str, str]
    texts: Mapping[str, str]
    #: Outputs that other features make when the module is sealed.
    also: tuple[str, ...] = ()

    def prepare(self, module: Module) -> None:
        main = module.main
        known = [*(a.name for a in main.inputs), *main.output_names, *self.also]
        for option, given in (("--rename", self.names), ("--describe", self.texts)):
            for name in given:
                if name not in known:
                    raise UserError(
                        f"{option} names '{name}', which is no input or output{suggest(name, known)}",
                        f"one of {', '.join(known)}",
                    )
        for name in self.names.values():
            if not _NAME.fullmatch(name):
                raise UserError(
                    f"--rename gives the name '{name}', which Core ML does not take", "letters, digits and _"
                )
        renamed = [self.names.get(n, n) for n in dict.fromkeys(known)]
        if twice := next((n for i, n in enumerate(renamed) if n in renamed[:i]), None):
            raise UserError(f"--rename gives two inputs or outputs the name '{twice}'", "a name of its own for each")

    def seal(self, module: Module) -> None:
        main = module.main
        left = {*(a.name for a in main.inputs), *main.output_names}
        if gone := sorted({*self.names, *self.texts} - left):
            raise UserError(
                f"--rename or --describe names '{gone[0]}', in whose place others have come",
                f"one of {', '.join(sorted(left))}",
            )
        for name, text in self.texts.items():
            main.attributes[f"doc.{name}"] = text
        for argument in main.inputs:
            argument.name = self.names.get(argument.name, argument.name)
        main.output_names = [self.names.get(n, n) for n in main.output_names]
        attributes = {}
        for key, value in main.attributes.items():
            what, dot, name = key.partition(".")
            attributes[f"{what}{dot}{self.names.get(name, name)}"] = value
        main.attributes = attributes

    def package_inputs(self, inputs: Arrays) -> Arrays:
        return {self.names.get(n, n): a for n, a in inputs.items()}

    def package_outputs(self, outputs: Arrays) -> Arrays:
        return {self.names.get(n, n): a for n, a in outputs.items()}
