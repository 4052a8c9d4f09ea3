"""Apple's chips as data: what their Neural Engines take, how fast their units are, and what that makes of an operator.

``refusal(op, chip, ios)`` says why an operator stays off the ANE; ``cost(op, unit, chip)`` estimates its time, energy
and memory. The data lie in the TOML files of this folder, each row with its source.
"""

from compiler.hardware.capability import Refusal, hints, refusal
from compiler.hardware.cost import (
    UNITS,
    Cost,
    cost,
    footprint,
    millijoules,
    milliseconds,
    speed,
    transfer_ms,
    weights_ms,
)
from compiler.hardware.facts import DEFAULT_CHIP, TIERS, Chip, chip, chips, costs, limits, operators, sources
from compiler.hardware.values import is_parameter, short_name
from compiler.hardware.work import Work, work

__all__ = [
    "DEFAULT_CHIP",
    "TIERS",
    "UNITS",
    "Chip",
    "Cost",
    "Refusal",
    "Work",
    "chip",
    "chips",
    "cost",
    "costs",
    "footprint",
    "hints",
    "is_parameter",
    "limits",
    "millijoules",
    "milliseconds",
    "operators",
    "refusal",
    "short_name",
    "sources",
    "speed",
    "transfer_ms",
    "weights_ms",
    "work",
]
