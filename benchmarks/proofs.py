"""How many of the library's rules hold, stage by stage, on how many instances, and held to whom.

    python -m benchmarks.proofs [--count 200] [--jobs 2] [--seed 0] [--stage meaning …]

Prints a table, and each rule that does not hold with why; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from compiler.proving.library import library_of, prover_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", nargs="+")
    options = parser.parse_args()
    library = library_of(())
    prover = prover_of(library)
    stages = options.stage or list(dict.fromkeys(r.stage for r in library.rules.values()))
    print(f"{'stage':14} {'rules':>6} {'proved':>7} {'instances':>10} {'fewest':>7}  held to")
    failed = []
    for stage in stages:
        rules = [r for r in library.rules.values() if r.stage == stage]
        proofs = list(prover.prove_all(rules, options.count, options.seed, options.jobs))
        oracles: Counter[str] = Counter()
        for p in proofs:
            oracles.update(p.oracles)
        oracles["onnxruntime"] += sum(p.instances for p in proofs) - oracles.total()
        held = ", ".join(f"{name} {n}" for name, n in oracles.most_common() if n)
        good, fewest = sum(p.holds for p in proofs), min((p.instances for p in proofs), default=0)
        print(
            f"{stage:14} {len(rules):6} {good:7} {sum(p.instances for p in proofs):10} {fewest:7}  {held}", flush=True
        )
        failed += [f"{stage}: {p.rule}: {p.wrong or p.stuck}" for p in proofs if not p.holds]
    print("\n".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
