"""Torments a store: writers that add, drop and collect at once, killed with ``kill -9`` at random. Prints Markdown.

    python -m benchmarks.store [--cycles 1000] [--writers 4] [--seed 0]

A cycle is the life of a writer: it adds, drops and collects garbage until it is killed, up to half a second later. A
writer notes what it is about to do and what it was told was done. In the end everything whose adding was confirmed and
whose removal was not begun must be there, everything whose removal was confirmed must be gone, nothing may dangle, and
no garbage may be left behind a last collection.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compiler.store import Store

#: How long a writer lives at most, in seconds.
LONGEST_LIFE = 0.5


@dataclass(slots=True)
class Outcome:
    """What became of the store.

    Attributes:
        done: how many operations were confirmed, by kind.
        killed: how many writers were killed.
        lost: artifacts that were confirmed and are not there.
        undead: artifacts whose removal was confirmed and that are there.
        problems: what ``verify`` found.
        garbage: files that the last collection but one had left.
    """

    done: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    lost: list[str] = field(default_factory=list)
    undead: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    garbage: int = 0

    @property
    def sound(self) -> bool:
        return not (self.lost or self.undead or self.problems or self.garbage)


def torment(folder: Path, cycles: int, writers: int, seed: int) -> Outcome:
    """Runs ``cycles`` writers on a store in ``folder``, so many at a time, each until it is killed."""
    root = folder / "store"
    Store.open(root)
    rng = random.Random(seed)
    outcome = Outcome()
    logs: list[Path] = []
    running: list[tuple[float, BaseProcess]] = []
    forks = multiprocessing.get_context("fork")
    while len(logs) < cycles or running:
        while len(running) < writers and len(logs) < cycles:
            life = folder / f"life_{len(logs)}"
            life.mkdir()
            logs.append(life / "log")
            writer = forks.Process(target=write_forever, args=(root, life, seed * 100_000 + len(logs)))
            writer.start()
            running.append((time.monotonic() + rng.uniform(0.0, LONGEST_LIFE), writer))
        running.sort(key=lambda entry: entry[0])
        end, writer = running.pop(0)
        time.sleep(max(0.0, end - time.monotonic()))
        if not writer.is_alive():
            raise RuntimeError(f"a writer ended by itself with code {writer.exitcode}: see above")
        writer.kill()
        writer.join()
        outcome.killed += 1

    store = Store.open(root)
    store.collect()
    again = store.collect()
    outcome.garbage = again.objects + again.drafts
    outcome.problems = [f"{p.where}: {p.what}" for p in store.verify()]
    there = {a.id for a in store.all()}
    added = {line for log in logs for line in _lines(log, "added")}
    begun = {line for log in logs for line in _lines(log, "begin rm")}
    gone = {line for log in logs for line in _lines(log, "removed")}
    outcome.lost = sorted(added - begun - there)
    outcome.undead = sorted(gone & there)
    for kind in ("added", "removed", "collected"):
        outcome.done[kind] = sum(len(_lines(log, kind)) for log in logs)
    outcome.done["begun"] = sum(len(_lines(log, "begin")) for log in logs)
    return outcome


def write_forever(root: Path, life: Path, seed: int) -> None:
    """What a writer does until it is killed; ``life`` is a folder of its own."""
    rng = np.random.default_rng(seed)
    store = Store.open(root)
    mine: list[str] = []
    with open(life / "log", "w", encoding="utf-8") as notes:

        def note(text: str) -> None:
            notes.write(text + "\n")
            notes.flush()

        for i in itertools.count():
            what = rng.random()
            if what < 0.7 or not mine:
                model = life / f"model_{i}.onnx"
                _model(model, rng)
                note("begin add")
                mine.append(store.add(model).id)
                note(f"added {mine[-1]}")
            elif what < 0.85:
                victim = mine.pop(int(rng.integers(len(mine))))
                note(f"begin rm {victim}")
                store.remove(victim)
                note(f"removed {victim}")
            else:
                note("begin gc")
                store.collect()
                note("collected -")


def _model(path: Path, rng: np.random.Generator) -> None:
    """A model whose weights lie in a second file, of which a few are shared between models."""
    shared = int(rng.integers(5))
    weights = np.full((64, 64), shared, np.float32)
    bias = rng.standard_normal(64).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(
        helper.make_model(graph),
        path,
        save_as_external_data=True,
        location=f"shared_{shared}.bin",
        size_threshold=1024,
    )


def _lines(log: Path, kind: str) -> list[str]:
    """What follows ``kind`` in the whole lines of a log."""
    if not log.exists():
        return []
    whole = log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return [line[len(kind) :].strip() for line in whole if line.startswith(kind)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = torment(Path(folder), given.cycles, given.writers, given.seed)
    print(f"`python -m benchmarks.store --cycles {given.cycles} --writers {given.writers} --seed {given.seed}`\n")
    print("| operations begun | added | removed | collections | writers killed | lost | undead | dangling | garbage |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    counts = [found.done[k] for k in ("begun", "added", "removed", "collected")]
    ends = [found.killed, len(found.lost), len(found.undead), len(found.problems), found.garbage]
    print("| " + " | ".join(map(str, counts + ends)) + " |")
    for line in [*found.lost, *found.undead, *found.problems]:
        print(f"- {line}", file=sys.stderr)
    return 0 if found.sound else 1


if __name__ == "__main__":
    sys.exit(main())
