"""ONNX's backend tests through this compiler.

Each case becomes a package on disk, is read back, runs in onnxruntime and is judged by the outputs that ship with it
and the suite's own tolerances:

    python -m benchmarks.conformance [PART OF A NAME …] [--os ios16,ios17,ios18,ios26] [--kind node]… [--json FILE]
        [--peer NAME=PYTHON]… [--verbose] [--sentences] [--operators]

A case is ``right``, ``refused`` (with a sentence), ``wrong`` or a ``crash``. What is outside the tolerance is not wrong
where the stored output is what is off (``rounding``), or where onnxruntime reads the standard otherwise than the stored
output (``disputed``); see benchmarks/exact.py. What counts is the release ios18, unless ``--os`` does not name it; the
other releases say which one a case needs. A case that is refused is tried again with those inputs as constants that
look like parameters (axes, bounds, scales), which real models hold as constants.

Peers run in environments of their own: ``--peer onnx2coreml=VENV/bin/python``, ``--peer coreai_onnx=VENV/bin/python``.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import exact, suite, workers
from benchmarks.peers import protocol
from benchmarks.suite import Case

ROOT = Path(__file__).parents[1]
VERDICTS = ("right", "rounding", "disputed", "refused", "wrong", "crash")
RELEASES = ("ios16", "ios17", "ios18", "ios26")

#: The release that counts.
OURS = "ios18"

Record = dict[str, Any]
Verdict = tuple[str, str]


class Run:
    """Cases on disk, and workers to judge compilers by them."""

    def __init__(self, cases: Sequence[Case], folder: Path, processes: int, timeout: float) -> None:
        self.cases = list(cases)
        self._places = [suite.write(c, folder) for c in self.cases]
        self._out = folder / "out"
        self._processes = processes
        self._timeout = timeout
        self._asked = 0

    def judge(self, adapter: str, python: str, which: Sequence[int], **request: Any) -> dict[int, Verdict]:
        """What the compiler behind ``benchmarks.peers.ADAPTER`` makes of the cases with these numbers."""
        verdicts: dict[int, Verdict] = {}
        requests = [
            self._request(i, {k: v[i] if isinstance(v, dict) else v for k, v in request.items()}) for i in which
        ]

        def done(i: int, answer: workers.Answer) -> None:
            verdicts[which[i]] = _verdict(self.cases[which[i]], answer, Path(requests[i]["out"]))

        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [python, "-m", f"benchmarks.peers.{adapter}"]
        workers.each(requests, lambda: workers.Worker(command, self._timeout, environment), self._processes, done)
        return verdicts

    def onnx2coreml(self, python: str, which: Sequence[int]) -> dict[int, Verdict]:
        """That converter's packages are read and run here: Core ML is not to be had on Linux."""
        first = self._asked
        verdicts = self.judge("onnx2coreml", python, which)
        packages = {i: str(self._out / f"{first + n}.mlpackage") for n, i in enumerate(which)}
        converted = [i for i in which if Path(packages[i]).exists()]
        return verdicts | self.judge("planish", sys.executable, converted, package=packages)

    def _request(self, i: int, more: dict[str, Any]) -> dict[str, Any]:
        out = self._out / str(self._asked)
        self._asked += 1
        return {"folder": str(self._places[i]), "out": str(out), **more}


def _verdict(case: Case, answer: workers.Answer, out: Path) -> Verdict:
    if answer["status"] != "done":
        return answer["status"], answer["why"]
    for n, (inputs, want) in enumerate(case.sets):
        got = protocol.read(out / str(n), "output")
        why = suite.differs(got, want, case)
        if why is not None:
            if exact.only_rounded(case.model, inputs, got, want):
                return "rounding", why
            other = exact.as_onnxruntime(case.model, inputs)
            agrees = other is not None and suite.differs(got, other, case) is None
            return ("disputed" if agrees else "wrong"), why
    return "right", ""


def measure(cases: Sequence[Case], releases: Sequence[str], peers: dict[str, str], arguments: Any) -> list[Record]:
    """The record of each case: verdicts by release, the sentence of a refusal, verdicts of peers."""
    ours = OURS if OURS in releases else releases[-1]
    retries = [(i, c) for i, c in enumerate(map(suite.with_constants, cases)) if c is not None]
    everything = [*cases, *(c for _, c in retries)]
    again = {i: len(cases) + n for n, (i, _) in enumerate(retries)}
    with suite.Folder() as folder:
        run = Run(everything, folder, arguments.processes, arguments.timeout)
        plain = list(range(len(cases)))
        by_release: dict[str, dict[int, Verdict]] = {}
        for release in releases:
            found = run.judge("planish", sys.executable, plain, os=release)
            left = [again[i] for i in plain if found[i][0] == "refused" and i in again]
            by_release[release] = found | run.judge("planish", sys.executable, left, os=release)
            print(f"{release}: {_counted(found[i][0] for i in plain)}", file=sys.stderr, flush=True)
        by_peer = {}
        for peer, python in peers.items():
            found = run.onnx2coreml(python, plain) if peer == "onnx2coreml" else run.judge(peer, python, plain)
            by_peer[peer] = found
            print(f"{peer}: {_counted(found[i][0] for i in plain)}", file=sys.stderr, flush=True)
    records = []
    for i, case in enumerate(cases):
        verdict, why = by_release[ours][i]
        record: Record = {
            "name": case.name,
            "kind": case.kind,
            "opset": case.opset,
            "operators": case.operators,
            "verdict": verdict,
            "why": why,
            "releases": {r: v[i][0] for r, v in by_release.items()},
        }
        if i in again and again[i] in by_release[ours]:
            record["with_constants"], record["why_with_constants"] = by_release[ours][again[i]]
            record["releases_with_constants"] = {r: v.get(again[i], v[i])[0] for r, v in by_release.items()}
        if by_peer:
            record["peers"] = {p: {"verdict": v[i][0], "why": v[i][1][:300]} for p, v in by_peer.items()}
        records.append(record)
    return records


def _counted(verdicts: Any) -> str:
    counts = collections.Counter(verdicts)
    return ", ".join(f"{counts[v]} {v}" for v in VERDICTS)


def sentence(why: str) -> str:
    """A refusal without the names of nodes and the numbers of its case, so that equal reasons are equal."""
    first = why.splitlines()[0] if why else ""
    first = re.sub(r"'[^']*'", "'…'", first)
    return re.sub(r"\(?\b\d+( × \d+)+\b\)?", "(…)", first)


def summary(records: Sequence[Record]) -> list[str]:
    """The lines of the report on all cases."""
    lines = []
    for kind in dict.fromkeys(r["kind"] for r in records):
        of_kind = [r for r in records if r["kind"] == kind]
        lines.append(f"{kind}: {len(of_kind)} cases")
        lines.append(f"  planish      {_counted(r['verdict'] for r in of_kind)}")
        more = [r["with_constants"] for r in of_kind if "with_constants" in r]
        lines.append(f"    of the refused, with parameters as constants: {_counted(more)}")
        for release in of_kind[0]["releases"]:
            lines.append(f"    {release}      {_counted(r['releases'][release] for r in of_kind)}")
        for peer in of_kind[0].get("peers", {}):
            lines.append(f"  {peer:12} {_counted(r['peers'][peer]['verdict'] for r in of_kind)}")
    return lines


def bad(record: Record) -> list[str]:
    """Each wrong result and crash of this compiler in a record, at any release."""
    out = [f"{r}: {v}" for r, v in record["releases"].items() if v in ("wrong", "crash")]
    more = record.get("releases_with_constants", {})
    return out + [f"{r} with constants: {v}" for r, v in more.items() if v in ("wrong", "crash")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--os", default=",".join(RELEASES), help="releases, separated by commas")
    parser.add_argument("--kind", action="append", choices=suite.KINDS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that a case may take")
    parser.add_argument("--verbose", action="store_true", help="say why each case is refused")
    parser.add_argument("--sentences", action="store_true", help="count refusals by sentence")
    parser.add_argument("--operators", action="store_true", help="count by operator")
    arguments = parser.parse_args()
    started = time.perf_counter()
    peers = dict(p.split("=", 1) for p in arguments.peer)
    cases = list(suite.cases(arguments.parts, arguments.kind or suite.KINDS))
    records = measure(cases, arguments.os.split(","), peers, arguments)
    for record in records:
        if bad(record) or (arguments.verbose and record["verdict"] == "refused"):
            why = record["why"] or record.get("why_with_constants", "")
            print(f"{record['name']:60} {'; '.join(bad(record)) or 'refused'}  {' '.join(why.split())[:300]}")
    if arguments.sentences:
        refused = collections.Counter(sentence(r["why"]) for r in records if r["verdict"] == "refused")
        for text, count in refused.most_common():
            print(f"{count:5} {text}")
    if arguments.operators:
        for name in sorted({o for r in records for o in r["operators"]}):
            print(f"{name:32} {_counted(r['verdict'] for r in records if name in r['operators'])}")
    print("\n".join(summary(records)))
    print(f"{time.perf_counter() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=0))
    return 1 if any(map(bad, records)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
