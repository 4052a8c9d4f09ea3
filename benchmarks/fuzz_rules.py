"""Feeds the parser, the resolver and the checker broken rule files; only rule errors may come out, and soon.

    python -m benchmarks.fuzz_rules [--count 100000] [--seed 0] [--seconds 5]

Half of the inputs are the library's own rules with a few bytes, tokens or lines changed, half are random sequences of
tokens. Whatever parses is resolved, checked for types and ranks, and its matchers are compiled. Prints what went wrong
with the input that did it, and exits with 1 if anything did.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
from collections import Counter

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler.rewrite import Library, RuleError
from compiler.rewrite.check_kinds import ill_typed_expressions
from compiler.rewrite.check_types import ill_typed
from compiler.rewrite.format import format_rules
from compiler.rewrite.load import LIBRARY
from compiler.rewrite.parse import parse

TOKENS = re.compile(r'"[^"\n]*"|[A-Za-z_][\w.]*(?:@\d+)?|\d+(?:\.\d+)?|[=!<>]=|\*\*|\.\.|\?\?|\s+|.')
HEAD = "stage fuse\nuse onnx, mil\n"


def pieces() -> tuple[list[str], list[str]]:
    """The library's rules one by one, and the tokens that occur in them."""
    rules: list[str] = []
    for path in sorted(LIBRARY.glob("*.rules")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        rules += ["\n".join(lines[r.pos.line - 1 : r.pos.end_line]) for r in parse(source).rules]
    tokens = sorted({t for r in rules for t in TOKENS.findall(r) if not t.isspace()})
    return rules, tokens


def mutated(rng: random.Random, rules: list[str], tokens: list[str]) -> str:
    """A rule with one to four changes."""
    parts = TOKENS.findall(rng.choice(rules))
    names = [t for t in tokens if t[0].isalpha()]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(parts)) if parts else 0
        words = [i for i, t in enumerate(parts) if t[:1].isalnum()]
        match rng.randrange(14):
            case 0:
                parts[at : at + 1] = []
            case 1:
                parts.insert(at, rng.choice(tokens))
            case 2:
                parts[at : at + 1] = [rng.choice(tokens)]
            case 3:
                parts[at : at + 1] = parts[at : at + 1] * 2
            case 4:
                other = rng.randrange(len(parts) + 1)
                parts[at:at] = parts[other : other + rng.randint(1, 12)]
            case 5:
                parts[at : at + rng.randint(1, 12)] = []
            case k if k > 6 and words:  # a word for a word: most of these parse
                at = rng.choice(words)
                numeric = parts[at][0].isdigit()
                parts[at] = (
                    rng.choice(("0", "1", "2", "-1", "1e400", "99999999999999999999")) if numeric else rng.choice(names)
                )
            case _:
                text = list("".join(parts)) or [" "]
                text[rng.randrange(len(text))] = chr(
                    rng.choice((rng.randrange(32, 127), rng.randrange(0x110000 - 0x800)))
                )
                parts = TOKENS.findall("".join(c for c in text if not 0xD800 <= ord(c) < 0xE000))
    return HEAD + "".join(parts)


def generated(rng: random.Random, tokens: list[str]) -> str:
    """Tokens at random, in the frame of a rule more often than not."""

    def some(n: int) -> str:
        return " ".join(rng.choice(tokens) for _ in range(rng.randint(1, n)))

    if rng.random() < 0.2:
        return some(40)
    return f"{HEAD}rule r {{ match {{ y = {some(8)} }} where {{ {some(6)} }} rewrite {{ y = {some(8)} }} }}"


def tried(source: str) -> str:
    """How far an input got: the kind of error, or ``sound``.

    Raises:
        Exception: what should not come out.
    """
    try:
        file = parse(source, "f.rules")
        format_rules(source)
        library = Library([file])
        for stage in library.stages:
            for entry in library.stage(stage).entries:
                ill_typed(entry.variant)
                ill_typed_expressions(entry.variant)
    except RuleError as e:
        return e.diagnostics[0].code or "rule"
    return "sound"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=5.0, help="longest time for one input")
    given = options.parse_args()
    rng = random.Random(given.seed)
    rules, tokens = pieces()
    outcomes: Counter[str] = Counter()
    failures, slowest, started = 0, 0.0, time.perf_counter()
    for i in range(given.count):
        source = mutated(rng, rules, tokens) if i % 2 else generated(rng, tokens)
        begun = time.perf_counter()
        try:
            outcomes[tried(source)] += 1
        except Exception:
            failures += 1
            if failures <= 5:
                print(f"--- input {i}\n{source}\n{traceback.format_exc()}")
        took = time.perf_counter() - begun
        slowest = max(slowest, took)
        if took > given.seconds:
            failures += 1
            print(f"--- input {i} took {took:.1f} s\n{source}")
    print(f"{given.count} inputs in {time.perf_counter() - started:.0f} s, slowest {slowest:.2f} s: {dict(outcomes)}")
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
