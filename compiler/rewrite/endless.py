"""Rules that do not terminate: how that is seen while they run, and which of them it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.ir import Op
from compiler.rewrite.diagnostics import RewriteError

#: From this length on a descent is watched for circles: an operator that came back to the same operands so many times.
WATCHED = 8
_RECURRENCES = 4
#: How many ancestors at most are watched.
MOST_WATCHED = 64


@dataclass(frozen=True, slots=True)
class Descent:
    """How an operator came to be, within one stage: the rule that built it, and the descent of what it matched.

    ``look`` is what the operator looked like, in descents long enough to be worth the question if they go in circles.
    """

    rule: str
    parent: Descent | None
    depth: int
    look: Any = None

    def recurs(self) -> bool:
        """Whether the ancestors looked like this one again and again."""
        count, at = 0, self.parent
        while at is not None and at.look is not None and count < _RECURRENCES:
            count += at.look == self.look
            at = at.parent
        return count == _RECURRENCES


class Endless(RewriteError):  # noqa: N818 (what the rules are, not what failed)
    """Rules do not terminate. ``cycle`` names them, in the order in which they fire where that is known."""

    def __init__(self, message: str, cycle: Sequence[str]) -> None:
        super().__init__(message, "switch one of them off with --disable-rule, or add a condition")
        self.cycle = tuple(cycle)


def endless(stage: str, fires: Mapping[str, int], step: Descent) -> Endless:
    """The error for rules of a stage that do not terminate; ``fires`` says how often each has fired so far."""
    chain: list[str] = []
    at: Descent | None = step
    while at is not None and len(chain) < 400:
        chain.append(at.rule)
        at = at.parent
    cycle = _period(chain)
    if cycle is None:
        most = Counter(fires).most_common(3)
        names = ", ".join(f"{n} ({c}×)" for n, c in most if c)
        message = f"the rules of stage {stage} do not terminate; the most active are {names}"
        return Endless(message, [n for n, _ in most])
    cycle.reverse()
    names = " → ".join([*cycle, cycle[0]])
    return Endless(f"the rules of stage {stage} do not terminate: {names}", cycle)


def look(op: Op) -> Any:
    """What an operator is and works on, to be compared with what it was before."""
    operands: list[Any] = []
    for v in op.operands:
        array = v.constant if v is not None else None
        operands.append(
            v if array is None else (array.dtype.str, array.shape, array.tobytes() if array.size < 64 else v)
        )
    return op.name, operands, [(k, str(a)) for k, a in op.attributes.items()]


def _period(chain: Sequence[str]) -> list[str] | None:
    """The shortest sequence of which ``chain`` is a repetition, over three periods at least."""
    for p in range(1, len(chain) // 3 + 1):
        if all(chain[i] == chain[i + p] for i in range(2 * p)):
            return list(chain[:p])
    return None
