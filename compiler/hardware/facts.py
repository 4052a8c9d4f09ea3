"""Public facts on Apple's chips as Python objects: the TOML files of this folder, each row with its sources."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from compiler.errors import UserError
from compiler.ir import suggest

#: Generations of the ANE, oldest first: the columns of the capability tables.
TIERS = ("A12", "A13", "A14", "A15", "A16", "A17", "A18")

DEFAULT_CHIP = "A17"


@dataclass(frozen=True, slots=True)
class Chip:
    """What scales estimates from one chip to another; see the comments of ``chips.toml``.

    Attributes:
        tier: the generation of its ANE, one of :data:`TIERS`.
        ane_tflops: half-precision operations a second as stated, in 10^12.
        gpu_tflops: FP32 operations a second, in 10^12.
        cpu_gops: performance cores times clock in GHz.
        memory_gb_s: bandwidth of the memory, in 10^9 bytes a second.
        weights_gb_s: at which the ANE streams weights, where somebody measured it.
        dispatch_ms: the least time of one call of the ANE.
        sources: the source of each figure.
    """

    name: str
    tier: str
    ane_tflops: float
    gpu_tflops: float
    cpu_gops: float
    memory_gb_s: float
    dispatch_ms: float
    weights_gb_s: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        return f"{self.name} Pro" if self.name == "A17" else self.name


@dataclass(frozen=True, slots=True)
class OperatorFact:
    """From which ANE generation on an operator is taken: a tier, or ``never``."""

    operator: str
    since: str
    source: str
    note: str = ""
    remedy: str = ""

    def on(self, tier: str) -> bool:
        """Whether the generation takes it."""
        return self.since != "never" and TIERS.index(tier) >= TIERS.index(self.since)


@dataclass(frozen=True, slots=True)
class Limit:
    """A form of an operator that the ANE does not take, or takes badly.

    Attributes:
        check: the name of the function that finds it.
        operators: to which it applies; empty for all.
        facts: the numbers that the check needs.
        text: the reason, with places for what the check found.
    """

    id: str
    check: str
    text: str
    remedy: str
    source: str
    operators: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def number(self, key: str, tier: str) -> Any:
        """A fact, for one generation where it differs by generation."""
        value = self.facts[key]
        return value[tier] if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class Source:
    """Where facts come from, and by which route they were found."""

    key: str
    title: str
    route: str


def chip(name: str) -> Chip:
    """The chip of that name.

    Raises:
        UserError: none is called so.
    """
    known, name = chips(), name.upper()
    if name not in known:
        raise UserError(f"no chip is called '{name}'{suggest(name, list(known))}", f"one of {', '.join(known)}")
    return known[name]


@cache
def chips() -> Mapping[str, Chip]:
    """All chips by name, in the order of the table."""
    return {name: Chip(name, **row) for name, row in _read("chips").items()}


@cache
def operators() -> Mapping[str, OperatorFact]:
    """What is known of each operator, by its name without dialect; where rows disagree, the later generation counts."""
    order = (*TIERS, "never")
    found: dict[str, OperatorFact] = {}
    for row in _read("operators")["row"]:
        for name in row["operators"]:
            fact = OperatorFact(name, row["from"], row["source"], row.get("note", ""), row.get("remedy", ""))
            if name not in found or order.index(fact.since) > order.index(found[name].since):
                found[name] = fact
    return found


@cache
def limits() -> tuple[Limit, ...]:
    """What keeps an operator off the ANE though its name is taken."""
    return tuple(_limit(row) for row in _read("limits")["limit"])


@cache
def advice() -> tuple[Limit, ...]:
    """What the ANE takes but does badly."""
    return tuple(_limit(row) for row in _read("limits")["advice"])


@cache
def sources() -> Mapping[str, Source]:
    """The sources by the letter that rows name them by."""
    return {key: Source(key, row["title"], row["route"]) for key, row in _read("sources").items()}


@cache
def costs() -> Mapping[str, Any]:
    """The constants of the cost model: ``costs.toml``."""
    return _read("costs")


def _limit(row: Mapping[str, Any]) -> Limit:
    known = ("id", "check", "text", "remedy", "source", "operators")
    facts = {k: v for k, v in row.items() if k not in known}
    operators_ = frozenset(row.get("operators", ()))
    return Limit(row["id"], row["check"], row["text"], row["remedy"], row["source"], operators_, facts)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))
