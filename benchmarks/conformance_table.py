"""docs/conformance.md from what benchmarks.conformance found.

python -m benchmarks.conformance --kind node --json found.json [--peer NAME=PYTHON]…
python -m benchmarks.conformance_table found.json > docs/conformance.md
"""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.conformance import VERDICTS

Record = dict[str, Any]

#: What counts as passed: within the tolerance, or beyond it only by the rounding of the stored output.
PASSED = ("right", "rounding")

#: As many reasons for refusals are given of an operator, the most frequent first.
_MOST_REASONS = 3

HEAD = """# ONNX's conformance suite

Made by the commands below from what the cases did; no line is written by hand.

    python -m benchmarks.conformance --kind node --json found.json \\
        --peer onnx2coreml=VENV/bin/python --peer coreai_onnx=VENV/bin/python
    python -m benchmarks.conformance_table found.json > docs/conformance.md

Each of the {cases} cases of `onnx.backend.test` with operators of ai.onnx becomes a package on disk, is read back, runs
in onnxruntime and is judged by the outputs that ship with it and the suite's own tolerances. `rounding` is a case whose
stored output is what is off, `disputed` one that onnxruntime reads as the package does. A case that takes its axes,
sizes or scales as inputs is tried again with them as constants, as real models hold them.
"""

PEERS = """
onnx2coreml is judged by its packages, at fp32 for iOS 18, in this project's reader and meanings, since Core ML does not
run on Linux: what is wrong there may be a meaning of ours. Packages of coreai-onnx, for iOS 27 only, ran in
coreai-core's runtime on Linux.
"""

#: How :func:`benchmarks.exact.only_rounded` tells.
_MEANT = "and the package is no farther from what the model gives in double precision, or within its last digit"

OPERATORS = """
## Operators

What passed of the cases with an operator, for the newest release; the first release with as many; how many more pass
with parameters as constants; and why others are refused, the most frequent reasons first. A case counts for each of its
operators, so that what one cannot do is a reason with the others as well. Opsets are those of the cases.

| operator | opset | passed | since | as constants | refused because |
|---|---|---:|---|---:|---|
"""


def main() -> int:
    records: list[Record] = json.loads(Path(sys.argv[1]).read_text())
    print(HEAD.format(cases=len(records)), end="")
    print(totals(records), end="")
    print(OPERATORS, end="")
    for name in sorted({o for r in records for o in r["operators"]}):
        print(row(name, [r for r in records if name in r["operators"]]))
    return 0


def totals(records: Sequence[Record]) -> str:
    """The verdicts of this compiler by release, and of its peers."""
    lines = ["", f"| | {' | '.join(VERDICTS)} |", f"|---|{'---:|' * len(VERDICTS)}"]

    def line(name: str, verdicts: Sequence[str]) -> None:
        counts = collections.Counter(verdicts)
        lines.append(f"| {name} | {' | '.join(str(counts[v]) for v in VERDICTS)} |")

    for release in records[0]["releases"]:
        line(f"planish, iOS {release.removeprefix('ios')}", [r["releases"][release] for r in records])
    line("the refused, with constants", [r["with_constants"] for r in records if "with_constants" in r])
    for peer in records[0].get("peers", {}):
        line(peer.replace("_", "-"), [r["peers"][peer]["verdict"] for r in records])
    off = [r["name"] for r in records if "rounding" in (r["verdict"], r.get("with_constants"))]
    if off:
        lines.append(f"\nOf {', '.join(off)} the stored output is what rounding left, {_MEANT}.")
    return "\n".join(lines) + "\n" + (PEERS if "peers" in records[0] else "")


def row(name: str, records: Sequence[Record]) -> str:
    """The line of one operator."""
    releases = list(records[0]["releases"])
    passed = {o: sum(r["releases"][o] in PASSED for r in records) for o in releases}
    most = passed[releases[-1]]
    since = next(o for o in releases if passed[o] >= most) if most else ""
    opsets = sorted({r["opset"] for r in records})
    span = f"{opsets[0]}" if len(opsets) == 1 else f"{opsets[0]}–{opsets[-1]}"
    more = sum(r.get("with_constants") in PASSED for r in records)
    refused = collections.Counter(reason(r["why"]) for r in records if r["verdict"] == "refused")
    why = "; ".join(text for text, _ in refused.most_common(_MOST_REASONS))
    ios = since.replace("ios", "iOS ")
    return f"| {name} | {span} | {most} of {len(records)} | {ios} | {more or ''} | {why} |"


def reason(why: str) -> str:
    """The reason in the sentence of a refusal, without names and numbers of the case."""
    first = why.splitlines()[0] if why else ""
    _, cut, rest = first.partition(" cannot be compiled: ")
    text = re.sub(r"'[^']*'", "'…'", rest if cut else first)
    return re.sub(r"\(?\b\d+( × \d+)+\b\)?", "(…)", text).replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
