"""How good the cost model is: against Core ML's own estimates for 119 operators, and against published latencies.

    python -m benchmarks.cost_model [--fit] [--models] [--json FILE]

The constants of compiler/hardware/costs.toml are fitted on the 119 operators, so their error is reported leave-one-out:
each operator is estimated by constants fitted on the other 118; and leave-one-shape-out, which leaves out all that have
the same work, since blocks repeat. ``--fit`` prints the constants. ``--models`` also compiles published networks, and
compares placement with what Core ML was seen to choose.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import mobilenet_edgetpu
from compiler import hardware
from compiler.hardware import Work

#: An operator and Core ML's estimate of it in milliseconds.
Sample = tuple[Work, float]


def fitted(samples: Sequence[Sample]) -> dict[str, float]:
    """Rates by kind: the geometric mean of what the estimates imply, which is least squares in logarithms."""
    implied: dict[str, list[float]] = {}
    for work, ms in samples:
        kind = "vector" if work.flops and work.reuse == 1 else work.kind
        implied.setdefault(kind, []).append((work.flops or work.moved) / ms / 1e6)
    return {k: math.exp(statistics.fmean(math.log(r) for r in v)) for k, v in implied.items()}


def estimated(work: Work, rates: dict[str, float]) -> float | None:
    """Milliseconds by the roofline with these rates; None where no rate of the kind was fitted."""
    if not work.flops:
        return work.moved / rates[work.kind] / 1e6 if work.kind in rates else None
    known = [rates[k] * f for k, f in ((work.kind, 1), ("vector", work.reuse)) if k in rates]
    return work.flops / min(known) / 1e6 if known else None


def left_out(samples: Sequence[Sample], by_shape: bool) -> list[float | None]:
    """Each operator's estimate by constants that were fitted without it, or without all of the same work."""
    result = []
    for i, (work, _) in enumerate(samples):
        rest = [s for j, s in enumerate(samples) if (s[0] != work if by_shape else j != i)]
        result.append(estimated(work, fitted(rest)))
    return result


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, ties given their mean rank."""

    def ranks(x: Sequence[float]) -> np.ndarray:
        _, inverse, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def operators(unit: str, by_shape: bool = False) -> dict[str, object]:
    """The error of one unit: median and worst relative error, rank correlation, and each miss above 15 %."""
    net, reference = mobilenet_edgetpu.build(), mobilenet_edgetpu.estimates()
    rows = [(op, e) for op, e in zip(net.ops, reference, strict=True) if unit in e.ms]
    samples = [(hardware.work(op), e.ms[unit]) for op, e in rows]
    guesses = left_out(samples, by_shape)
    known = [(e, g, ms) for (_, e), g, (_, ms) in zip(rows, guesses, samples, strict=True) if g is not None]
    errors = [abs(g / ms - 1) for _, g, ms in known]
    return {
        "operators": len(samples),
        "estimated": len(known),
        "median": statistics.median(errors),
        "worst": max(errors),
        "within 15 %": sum(e <= 0.15 for e in errors),
        "rank correlation": rank_correlation([g for _, g, _ in known], [ms for *_, ms in known]),
        "misses": [f"{e.name} {e.output}: {g / ms - 1:+.0%}" for e, g, ms in known if abs(g / ms - 1) > 0.15],
    }


def constants() -> str:
    """The tables ``[rate.UNIT]`` of costs.toml, fitted on all operators."""
    net, reference = mobilenet_edgetpu.build(), mobilenet_edgetpu.estimates()
    lines = []
    for unit in ("ane", "gpu", "cpu"):
        pairs = [(hardware.work(op), e.ms[unit]) for op, e in zip(net.ops, reference, strict=True) if unit in e.ms]
        lines.append(f"[rate.{unit}]")
        rates = fitted(pairs)
        lines += [f"{kind} = {rates[kind]:.4g}" for kind in ("window", "dense", "vector", "unary", "binary", "copy")]
    return "\n".join(lines)


def choices() -> tuple[int, int]:
    """On how many of the 119 operators the tables agree with Core ML about whether the ANE takes them."""
    net, reference = mobilenet_edgetpu.build(), mobilenet_edgetpu.estimates()
    chip = hardware.chip("M1")
    agree = sum(
        (hardware.refusal(op, chip, 17) is None) == ("ane" in e.ms) for op, e in zip(net.ops, reference, strict=True)
    )
    return agree, len(reference)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.fit:
        print(constants())
        return 0
    report: dict[str, object] = {}
    print("unit  left out  operators  median error  worst  within 15 %  rank correlation")
    for unit in ("ane", "cpu", "gpu"):
        for by_shape in (False, True):
            row = operators(unit, by_shape)
            report[f"{unit}, leave one {'shape' if by_shape else 'operator'} out"] = row
            counts = f"{unit:<5} {'shape' if by_shape else 'operator':<9} {row['estimated']:>3} of {row['operators']}"
            errors = f"{row['median']:>10.2%}  {row['worst']:>6.0%} {row['within 15 %']:>9}"
            print(f"{counts}   {errors}  {row['rank correlation']:>12.4f}")
        for miss in report[f"{unit}, leave one operator out"]["misses"]:  # type: ignore[index]
            print(f"      {miss}")
    agree, of = choices()
    report["taken by the ANE"] = [agree, of]
    print(f"the tables agree with Core ML on what the ANE takes: {agree} of {of} operators")
    if arguments.models:
        from benchmarks import observed, published

        report["models"] = published.compare()
        report["placement"] = observed.compare()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
