"""What the ladder tries, from mild to strong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compiler.errors import UserError
from compiler.ir import suggest


@dataclass(frozen=True, slots=True)
class Step:
    """One way to compile a model.

    Attributes:
        name: what the table calls it.
        quantize: as ``compile --quantize`` takes it.
        prune: the share of channels to cut out.
        share: with ``mixed``, the size asked for as a share of the smallest package kept so far.
        since: the first iOS release that has what it needs.
        distil: let what is left after ``prune`` learn from the original.
    """

    name: str
    quantize: str | None = None
    prune: float | None = None
    share: float | None = None
    since: int = 16
    distil: bool = False

    def after(self, kept: Step, smallest: int) -> dict[str, Any]:
        """Options of ``compile`` for this step upon one that was kept, whose package has ``smallest`` bytes; ``distil``
        in place of ``prune`` is the share of channels without which a student learns.

        A step that prunes keeps the weights' form, one that says a form keeps what was pruned.
        """
        both = self.upon(kept)
        options: dict[str, Any] = {"quantize": both.quantize, "distil" if both.distil else "prune": both.prune}
        if both.quantize == "mixed":
            options["budget"] = int(smallest * (self.share or 1.0))
        return {key: value for key, value in options.items() if value is not None}

    def upon(self, kept: Step) -> Step:
        """This step with what it keeps of another."""
        quantize = self.quantize if self.quantize is not None or self.prune is None else kept.quantize
        distil = self.distil or (kept.distil and self.prune is None)
        return replace(self, quantize=quantize, prune=self.prune or kept.prune, distil=distil)

    def is_idle(self, kept: Step) -> bool:
        """Whether nothing can be gained by it: so many channels are gone already."""
        return self.distil and (kept.prune or 0.0) >= (self.prune or 0.0)


def bits(quantize: str | None) -> int | None:
    """To how many bits the weights of a student are rounded as it learns, for what they become afterwards."""
    return {"int8": 8, "w8a8": 8, "int4": 4}.get(quantize or "")


def key(options: Mapping[str, Any]) -> str:
    """What tells measurements apart: the same step gives other packages upon other ones that were kept."""
    return json.dumps({"options": dict(options)}, sort_keys=True)


def package_name(step: Step, options: Mapping[str, Any]) -> str:
    """The name of a trial's package, its own for every combination of options."""
    words = step.name.replace("%", "percent").replace(" ", "_")
    return f"{words}-{hashlib.sha256(key(options).encode()).hexdigest()[:8]}.mlpackage"


#: From mild to strong: half precision, eight bits, fewer bits, fewer bits where it costs least, fewer channels, and
#: fewer ones yet where what is left may learn.
STEPS = (
    Step("half"),
    Step("int8", "int8"),
    Step("w8a8", "w8a8", since=17),
    Step("palette6", "palette6"),
    Step("mixed 80 %", "mixed", share=0.8),
    Step("palette4", "palette4-group16", since=18),
    Step("mixed 60 %", "mixed", share=0.6),
    Step("prune 10 %", prune=0.1),
    Step("prune 20 %", prune=0.2),
    Step("prune 30 %", prune=0.3),
    Step("distil 20 %", prune=0.2, distil=True),
    Step("distil 40 %", prune=0.4, distil=True),
)


def chosen(names: Sequence[str], ios: int) -> list[Step]:
    """The steps with these names, or all, that a release can take.

    Raises:
        UserError: there is no such step, or the release cannot take it.
    """
    known = {s.name: s for s in STEPS}
    for name in names:
        if name not in known:
            raise UserError(f"the ladder has no step '{name}'{suggest(name, known)}", f"some of {', '.join(known)}")
        if known[name].since > ios:
            raise UserError(f"the step '{name}' needs iOS {known[name].since}", f"--os ios{known[name].since}")
    return [s for s in STEPS if s.since <= ios and (not names or s.name in names)]
