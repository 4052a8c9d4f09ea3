"""How many wrong variants of the library's rules are caught: by the checks at load time, or by the proof.

    python -m benchmarks.mutation [--mutants 200 | --every] [--count 200] [--jobs 2] [--seed 0] [--stage fuse …]
                                  [--kind "condition dropped" …]

With --every all variants of the stages are judged, in an order by the seed, not a sample of them. Prints each
variant as it is judged; then, by kind of mistake, how many are caught, and of each that is not with its place what it
does on graphs that are looked for to tell it from the rule (see mutation_equivalence.py). Exit code 1 below 99 % of
those that are not equivalent. Only rules that hold themselves are mutated.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from benchmarks.mutation_equivalence import judged
from compiler.proving.library import library_of, prover_of
from compiler.rewrite.library import Library
from compiler.rewrite.mutate import Mutant, caught, mutants, sample


def child(sender: Any, prover: Any, mutant: Mutant, count: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    original = prover.library.rules[mutant.rule.name]
    if not prover.prove(original, 20, seed).holds:
        sender.send(None)
    else:
        said = caught(prover, mutant, count, seed)
        if not said:
            found = judged(prover, mutant, count, seed)
            said = f"{'equivalent' if found.harmless else 'survives'}: {found.why}"
        sender.send(said)
    sender.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", action="store_true", help="all variants, not a sample")
    parser.add_argument("--kind", nargs="+", default=[], help="only these kinds of mistake")
    parser.add_argument("--stage", nargs="+", default=["upgrade", "canonicalize", "fuse", "lower"])
    options = parser.parse_args()
    library = library_of(())
    prover = prover_of(library)
    prover.warm([r for r in library.rules.values() if r.stage in options.stage])
    stream = drawn(library, options)
    context = multiprocessing.get_context("fork")
    running: dict[Any, tuple[Any, Mutant]] = {}
    results: list[tuple[Mutant, str]] = []
    skipped = crashed = 0
    ended = False
    while (options.every or len(results) < options.mutants) and not (ended and not running):
        while not ended and len(running) < options.jobs:
            mutant = next(stream, None)
            if mutant is None:
                ended = True
                break
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(sender, prover, mutant, options.count, options.seed))
            process.start()
            sender.close()
            running[receiver] = (process, mutant)
        for receiver in wait(list(running)):
            process, mutant = running.pop(receiver)
            try:
                said = receiver.recv()
            except EOFError:
                process.join()
                if process.exitcode is None or process.exitcode >= 0:
                    raise RuntimeError(f"judging a variant of rule {mutant.rule.name} failed") from None
                crashed += 1  # onnx's own inference brought the process down
                continue
            process.join()
            if said is None:
                skipped += 1
            else:
                results.append((mutant, said))
                place = f"{mutant.rule.file}:{mutant.what} {mutant.rule.name}"
                print(f"{len(results):4} {place}: {mutant.kind}: {said.splitlines()[0]}", flush=True)
    for process, _ in running.values():
        process.terminate()
        process.join()
    return report(results, skipped, crashed)


def drawn(library: Library, options: argparse.Namespace) -> Iterator[Mutant]:
    """The variants to judge: a sample without end, or all."""
    rng = random.Random(options.seed)
    if options.every:
        rules = [r for r in library.rules.values() if r.stage in options.stage]
        every = [m for r in rules for m in mutants(r)]
        rng.shuffle(every)
        stream = iter(every)
    else:
        stream = sample(library, tuple(options.stage), rng)
    return (m for m in stream if not options.kind or m.kind in options.kind)


def report(results: list[tuple[Mutant, str]], skipped: int, crashed: int) -> int:
    """Prints the tables of docs/measured.md; the exit code."""
    how = Counter(said.partition(":")[0] for _, said in results)
    every = Counter(m.kind for m, _ in results)
    equal = Counter(m.kind for m, said in results if said.startswith("equivalent"))
    alive = Counter(m.kind for m, said in results if said.startswith("survives"))
    print("\n| mistake | variants | equivalent | caught | missed |\n|---|---:|---:|---:|---:|")
    for kind, n in every.most_common():
        print(f"| {kind} | {n} | {equal[kind]} | {n - equal[kind] - alive[kind]} | {alive[kind]} |")
    wrong = len(results) - how["equivalent"]
    print(f"| all | {len(results)} | {how['equivalent']} | {wrong - how['survives']} | {how['survives']} |")
    print("\n| not caught | mistake | why |\n|---|---|---|")
    for m, said in sorted(results, key=lambda r: (r[0].rule.file, r[0].rule.name)):
        if said.startswith(("equivalent", "survives")):
            print(f"| `{m.rule.name}` {m.what} | {m.kind} | {said.splitlines()[0].replace('|', chr(92) + '|')} |")
    share = 1 - how["survives"] / wrong
    print(f"\ncaught at load {how['load']}, as wrong {how['wrong']}, as not to be instantiated {how['stuck']}")
    print(f"not mutated, as the rule itself does not hold: {skipped}; lost to a crash of onnx: {crashed}")
    print(f"caught {share:.1%} of {wrong} that are not equivalent")
    return 0 if share >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
