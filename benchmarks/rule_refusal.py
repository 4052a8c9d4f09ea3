"""Measures how long the command line takes to refuse rules that do not terminate, from its start to its exit.

    python -m benchmarks.rule_refusal

A rule that feeds itself (x + y → y + x) and two that undo each other, each given to ``planish rules check`` and to a
compile. Prints processor seconds, the start of Python included, of the best of five runs. Exits with 1 beyond a
second, or if a rule is not named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

RULES = {
    "swap": (
        "rule swap { match { y = Add(a, b) } rewrite { y = Add(b, a) } }",
        ("'swap'",),
    ),
    "ping-pong": (
        "rule ping { match { y = Add(a, b) } rewrite { y = Sub(a, Neg(b)) } }\n"
        "rule pong { match { y = Sub(a, Neg(b)) } rewrite { y = Add(a, b) } }",
        ("ping", "pong"),
    ),
}
#: Seconds, and runs of which the best counts: others may be using the machine.
LIMIT, RUNS = 1.0, 5


def seconds(command: list[str], names: tuple[str, ...]) -> float:
    """Processor seconds of a command that must fail with 2 and name the rules.

    Raises:
        SystemExit: it does not.
    """
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = os.times()
    said = done.stdout + done.stderr
    if done.returncode != 2 or not all(name in said for name in names):
        sys.exit(f"{' '.join(command)} was not refused with the rules named: {done.returncode}\n{said}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def model(path: Path) -> None:
    """Writes a sum and what follows it."""
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "aby"]
    graph = helper.make_graph(nodes, "sum", values[:2], values[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def main() -> int:
    worst = 0.0
    bin_ = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        model(at / "sum.onnx")
        print("| rules | command | processor |\n|---|---|---:|")
        for name, (text, named) in RULES.items():
            rules = at / f"{name}.rules"
            rules.write_text(f"stage fuse\nuse onnx\n{text}\n", encoding="utf-8")
            for shown, command in {
                "planish rules check": [str(bin_ / "planish"), "rules", "check", str(rules)],
                "compile --rules": [str(bin_ / "compile"), str(at / "sum.onnx"), "--rules", str(rules)],
            }.items():
                found = min(seconds(command, named) for _ in range(RUNS))
                worst = max(worst, found)
                print(f"| {name} | `{shown}` | {found:.2f} s |")
    return worst > LIMIT


if __name__ == "__main__":
    sys.exit(main())
