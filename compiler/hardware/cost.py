"""What an operator costs on a unit of a chip: time, energy, memory. All of it estimates; see docs/cost-model.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from compiler.hardware.facts import Chip, chip, costs
from compiler.hardware.values import is_parameter, short_name
from compiler.hardware.work import Work, inner, kinds, size, trips, work
from compiler.ir import Op, TensorType, Value

UNITS = ("ane", "gpu", "cpu")


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate.

    Attributes:
        ms: milliseconds, the unit's step to the operator included, without the start of a call.
        mj: millijoules.
        memory: bytes of its activations and weights while it runs, on the ANE with rows padded to 64 bytes.
    """

    ms: float
    mj: float
    memory: int


def cost(op: Op, unit: str, on: Chip) -> Cost:
    """What ``op`` costs on ``unit`` ("ane", "gpu" or "cpu") of chip ``on``; the unit need not take it."""
    done = work(op)
    ms = operator_ms(op, done, unit, on) + step_ms(unit)
    return Cost(ms, millijoules(done, unit), _memory(op, unit) + done.weights)


def operator_ms(op: Op, done: Work, unit: str, on: Chip) -> float:
    """The time of an operator whose work is known, without the unit's step to it, as Core ML's own estimates have it;
    of one with regions, that of the operators inside."""
    if op.regions:
        return trips(op) * sum(cost(o, unit, on).ms for o in inner(op))
    return milliseconds(done, unit, on)


def step_ms(unit: str) -> float:
    """What a unit takes for each operator of a program besides its work, on every chip."""
    nanoseconds: float = costs()["step_ns"][unit]
    return nanoseconds / 1e6


def milliseconds(done: Work, unit: str, on: Chip) -> float:
    """The time of some work: the roofline of ``costs.toml``, scaled to the chip.

    Operations run at the rate of their kind, or at the rate of vector work times the reuse where that is less. Bytes
    count for what has no operations, and for tensors that do not fit on chip.
    """
    rate: dict[str, float] = costs()["rate"][unit]
    faster = speed(unit, on)
    if not done.flops:
        return done.moved / (rate[done.kind] * faster) / 1e6
    gflops = min(rate[done.kind], rate["vector"] * done.reuse)
    if done.eight_bit:
        gflops *= costs()["eight_bit"][unit]
    compute = done.flops / (gflops * faster) / 1e6
    if done.moved <= costs()["on_chip_mb"][unit] * 1e6:
        return compute
    return max(compute, done.moved / (rate["copy"] * _memory_speed(on)) / 1e6)


def millijoules(done: Work, unit: str) -> float:
    """The energy of some work, on every chip the same: of operations and bytes from memory, or power times time."""
    table: dict[str, float] = costs()["energy"][unit]
    fits = done.moved <= costs()["on_chip_mb"][unit] * 1e6
    fetched = done.weights + (0 if fits else done.moved)
    picojoules = done.flops * table["pj_flop"] + fetched * table["pj_byte"]
    if done.flops and table["pj_flop"]:
        return picojoules / 1e9
    return picojoules / 1e9 + milliseconds(done, unit, chip(costs()["reference"])) * table["watts"]


def transfer_ms(nbytes: int, on: Chip) -> float:
    """What a value of so many bytes costs to hand to another unit, without the start of a call."""
    rate: float = costs()["transfer"]["gb_s"]
    return nbytes / (rate * _memory_speed(on)) / 1e6


def weights_ms(nbytes: int, unit: str, on: Chip) -> float:
    """How long a unit takes to stream so many bytes of weights from memory."""
    gb_s = on.weights_gb_s if unit == "ane" and on.weights_gb_s is not None else on.memory_gb_s * _STREAMED
    return nbytes / gb_s / 1e6


#: The part of the memory's bandwidth that the ANE reaches where it was not measured: that of the M1, 51 of 68.25 (D).
_STREAMED = 0.75


@cache
def speed(unit: str, on: Chip) -> float:
    """How many times faster a unit is than the M1's."""
    base = chip(costs()["reference"])
    if unit == "ane":
        return on.ane_tflops / base.ane_tflops
    if unit == "gpu":
        return on.gpu_tflops / base.gpu_tflops
    return on.cpu_gops / base.cpu_gops


def _memory_speed(on: Chip) -> float:
    return on.memory_gb_s / chip(costs()["reference"]).memory_gb_s


def _memory(op: Op, unit: str) -> int:
    values = {v for v in (*op.operands, *op.results) if v is not None and not is_parameter(v)}
    return sum(footprint(v, unit) for v in values)


def footprint(value: Value, unit: str) -> int:
    """The bytes that an activation takes in memory; on the ANE its last axis is padded to 64 bytes (source A)."""
    if not isinstance(value.type, TensorType):
        return 0
    plain = size(value.type)
    shape = value.type.shape
    if unit != "ane" or not shape or not plain:
        return plain
    width = (shape[-1] if isinstance(shape[-1], int) else 1) * max(value.type.dtype.bits, 8) // 8
    return plain // width * (-(-width // 64) * 64)


def is_free_after(op: Op, unit: str) -> bool:
    """Whether a unit does an operator while it writes what comes before it, or reads for what comes behind.

    That is so for an activation function behind a convolution, matrix product or norm whose result nothing else needs;
    and for the steps to 8 bits and back. A layer of the Neural Engine, be it a product, a pool or arithmetic on two
    tensors, ends in an activation; a product before that in a scale and an offset for each channel (source D, chapter
    22).
    """
    name = short_name(op)
    kind, source = kinds().get(name), op.operands[0].op if op.operands and op.operands[0] is not None else None
    if kind == "dequantize":
        return True
    if source is None or source.results[0].use_count != 1:
        return False
    if kind == "quantize":
        return True
    product = kinds().get(short_name(source)) in _PRODUCTS
    if unit == "ane" and name in _AFFINE:
        return product and _channelwise(op)
    ends = unit == "ane" and (kinds().get(short_name(source)) == "binary" or short_name(source) in _POOLS)
    return kind == "unary" and (product or ends)


_PRODUCTS = frozenset({"conv", "matmul", "attention", "recurrent"})
_AFFINE = frozenset({"add", "sub", "mul", "real_div", "batch_norm"})
_POOLS = frozenset({"avg_pool", "max_pool", "l2_pool"})


def _channelwise(op: Op) -> bool:
    """Whether one tensor flows into an operator, and its constants have one element, or one for each channel."""
    shape = op.results[0].shape or ()
    allowed = {1, shape[-3] if len(shape) == 4 else 1}
    given = [v for v in op.operands if v is not None and is_parameter(v)]
    sizes = {v.type.size for v in given if isinstance(v.type, TensorType)}
    return len(op.operands) - len(given) - op.operands.count(None) == 1 and sizes <= allowed
