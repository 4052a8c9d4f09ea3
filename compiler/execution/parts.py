"""A package of parts (``compile --hybrid``): what stands in its plan, what the whole takes and gives, running it.

Parts run one after the other. Each takes by name what the caller gives and what earlier parts made; where a name is
made twice, the latest counts. ``HybridEngine`` of the Swift package does the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UserError
from compiler.execution import description, runnable
from compiler.execution.description import Description, Feature
from compiler.ir import dtype

if TYPE_CHECKING:
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a folder of parts says of itself.

    Attributes:
        inputs, outputs: of the whole, in order.
        parts: the packages, and what each takes.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parts: tuple[tuple[Path, tuple[str, ...]], ...]


def is_package(folder: str | Path) -> bool:
    """Whether a folder looks like one that ``compile --hybrid`` made."""
    plan = Path(folder) / PLAN
    return plan.is_file() and not (Path(folder) / "kernels.metal").exists()


def read_plan(folder: str | Path) -> Plan:
    """The plan of a folder of parts.

    Raises:
        UserError: there is none, or it is broken.
    """
    folder = Path(folder)
    try:
        said = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        parts = tuple((folder / p["package"], tuple(p["inputs"])) for p in said["parts"])
        return Plan(str(said["name"]), tuple(said["inputs"]), tuple(said["outputs"]), parts)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{folder} is not a package of parts: {e}", "compile it again") from e


def describe(folder: str | Path) -> tuple[Description, list[Description]]:
    """The whole, and each part.

    Raises:
        UserError, UnsupportedError: a part is missing or broken, or parts do not fit together.
    """
    from codegen.metal import package as kernels
    from compiler.execution.running import read_package

    plan = read_plan(folder)
    parts = [
        description.of_program(kernels.read(p)) if kernels.is_package(p) else description.of_module(read_package(p))
        for p, _ in plan.parts
    ]
    return join(plan.name, parts, plan.outputs), parts


def join(name: str, parts: Sequence[Description], outputs: Sequence[str] | None = None) -> Description:
    """What parts are together: what no part makes is an input.

    Args:
        outputs: what the whole gives; what no later part takes where None.

    Raises:
        UserError: a part keeps a state, or takes what an earlier one makes in another kind of elements or shape; or no
            part makes an output.
    """
    inputs: dict[str, Feature] = {}
    made: dict[str, tuple[Feature, bool]] = {}
    for part in parts:
        if part.states:
            raise UserError(f"'{part.name}' keeps a state, and the parts of a hybrid cannot", "--state of no part")
        for feature in part.inputs:
            before = made[feature.name][0] if feature.name in made else inputs.get(feature.name)
            if before is not None:
                _fits(before, feature, part.name)
            if feature.name in made:
                made[feature.name] = (before or feature, True)
            else:
                inputs.setdefault(feature.name, feature)
        for feature in part.outputs:
            made.pop(feature.name, None)
            made[feature.name] = (feature, False)
    wanted = [n for n, (_, taken) in made.items() if not taken] if outputs is None else outputs
    missing = [n for n in wanted if n not in made]
    if missing:
        raise UserError(f"no part of '{name}' makes '{missing[0]}'", "compile it again")
    os = max((p.os for p in parts), default="")
    return Description(name, "hybrid", tuple(inputs.values()), tuple(made[n][0] for n in wanted), os=os)


def _fits(made: Feature, taken: Feature, part: str) -> None:
    shape = tuple(d for d in made.shape if d is not None)
    alike = made.dtype == taken.dtype or _family(made) == _family(taken) != "other"
    if not alike or (len(shape) == len(made.shape) and not taken.takes(shape)):
        raise UserError(
            f"'{made.name}' is {_spelled(made)} where it is made, and part '{part}' takes {_spelled(taken)}",
            "compile the parts with the same shapes and --io",
        )


def _family(feature: Feature) -> str:
    """Elements of one family are turned into another's of it on the way: Core ML has 32 bits where ONNX has 64."""
    if feature.kind != "tensor":
        return "other"
    type_ = dtype(feature.dtype)
    return "float" if type_.is_float else "integer" if type_.is_integer else "other"


def _spelled(feature: Feature) -> str:
    return f"{feature.dtype}[{', '.join('?' if d is None else str(d) for d in feature.shape)}]"


class Session:
    """The parts of a package, ready to run one after another."""

    def __init__(self, folder: str | Path, library: Library) -> None:
        """Reads all parts.

        Raises:
            UserError: the folder is no package of parts, or a part is missing.
        """
        self.plan = read_plan(folder)
        self._parts = [(runnable.load(path, library), names) for path, names in self.plan.parts]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            UserError: an input is missing or does not fit.
        """
        known = dict(inputs)
        for part, names in self._parts:
            missing = [n for n in names if n not in known]
            if missing:
                raise UserError(f"there is no array for input '{missing[0]}'", f"one of {', '.join(self.plan.inputs)}")
            known.update(part.run({n: known[n] for n in names}))
        return {name: known[name] for name in self.plan.outputs}
