"""By what to judge channels: what pruning costs, without training, by each measure of importance and by chance.

    python -m benchmarks.prune_importance [--models DIR] [--amount 0.1]… [--learn 24] [--judge 100]

prints, for pages of text that pplcnet_orientation tells apart, how far outputs are from the original's and how many
pages are told right. Needs JAX (the extra ``distill``), Pillow and a font.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.compression_learn import SIZE, turned
from compiler import driver, ir
from compiler.compression import importance
from compiler.execution import evaluate
from compiler.options import Options
from passes import prune
from passes.prune.importance import IMPORTANCES, Scores

CHANCES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--amount", type=float, action="append")
    parser.add_argument("--learn", type=int, default=24)
    parser.add_argument("--judge", type=int, default=100)
    asked = parser.parse_args()

    model = asked.models / "pplcnet_orientation" / "model.onnx"
    module = driver.at_stage(model, "fuse", Options(shapes={"x": (1, 3, SIZE, SIZE)}))
    learn, (tests, turns) = turned(asked.learn, seed=1)[0], turned(asked.judge, seed=2)
    ways: dict[str, list[Scores]] = {}
    for by in IMPORTANCES:
        start = perf_counter()
        ways[by] = [importance.scores(by, module, [[p] for p in learn])]
        print(f"{by}: {perf_counter() - start:.1f} s")
    numbers = ways["magnitude"][0]
    draws = [np.random.default_rng(i).random(len(numbers)) for i in range(CHANCES)]
    ways[f"chance, mean of {CHANCES}"] = [dict(zip(numbers, d.tolist(), strict=True)) for d in draws]

    def outputs(of: ir.Module) -> np.ndarray:
        session = evaluate.Session(of)
        return np.concatenate([session.run({"x": p})[0] for p in tests])

    whole = outputs(module)
    print(f"\n| pruned | importance | distance | told right, of {len(tests)} |\n|---|---|--:|--:|")
    print(f"| 0 % | | 0 | {100 * np.mean(whole.argmax(1) == turns):.0f} % |")
    for amount in asked.amount or (0.1, 0.2):
        for name, several in ways.items():
            found = []
            for scores in several:
                smaller = ir.clone_module(module)
                prune.run(smaller, amount, scores)
                made = outputs(smaller)
                found.append((np.linalg.norm(made - whole) / np.linalg.norm(whole), np.mean(made.argmax(1) == turns)))
            distance, right = np.mean(found, axis=0)
            print(f"| {100 * amount:.0f} % | {name} | {distance:.3f} | {100 * right:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
