"""What changed between two artifacts: how they were made, their graph, their size, their accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.store.records import Artifact

if TYPE_CHECKING:
    from compiler.ir import Module
    from compiler.store.store import Store

Sides = tuple[Any, Any]


def difference(store: Store, before: Artifact, after: Artifact, graph: bool = False) -> dict[str, Any]:
    """What differs, as JSON: each entry a pair of before and after, and nothing that is the same.

    Args:
        graph: compare the programs line by line too, as ``graph``; that reads both packages.

    Returns:
        ``made`` (kind, name, rules, options, recipe …), ``ops`` by type, ``bytes`` with what both share, ``estimates``,
        ``errors`` (relative L2 error of each output in the proof), ``metrics``; and with ``graph`` a list of lines.
    """
    made = {key: (getattr(before, key), getattr(after, key)) for key in ("kind", "name", "parent", "rules", "compiler")}
    for key in ("source", "options", "recipe"):
        flat = _pairs(_flat(getattr(before, key)), _flat(getattr(after, key)))
        made |= {f"{key}.{name}": pair for name, pair in flat}
    old, new = _read(store, before), _read(store, after)
    ops = dict(_pairs(_ops(old, before), _ops(new, after), missing=0))
    ours = {f.sha256: f.bytes for f in before.files.values()}
    shared = sum(ours.get(f.sha256, 0) for f in after.files.values())
    found = {
        "made": {key: pair for key, pair in made.items() if pair[0] != pair[1]},
        "ops": {key: pair for key, pair in ops.items() if pair[0] != pair[1]},
        "bytes": {"total": (before.size, after.size), "shared": shared},
        "estimates": dict(_pairs(before.facts.get("estimates", {}), after.facts.get("estimates", {}))),
        "errors": dict(_pairs(_errors(before), _errors(after))),
        "metrics": dict(_pairs(before.metrics, after.metrics)),
    }
    if graph:
        found["graph"] = list(_lines(old, new, before.name, after.name))
    return found


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any], missing: Any = None) -> Iterator[tuple[str, Sides]]:
    for key in dict.fromkeys([*a, *b]):
        yield key, (a.get(key, missing), b.get(key, missing))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _errors(artifact: Artifact) -> dict[str, float]:
    return {n: e["rel_l2"] for n, e in artifact.facts.get("verify", {}).get("outputs", {}).items()}


def _read(store: Store, artifact: Artifact) -> Module | None:
    """The program of a package or of a model; None for kernels, which have none."""
    from compiler.frontend import load
    from compiler.ir import clone_module
    from compiler.proof import read_package

    if artifact.kind == "kernels":
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = store.check_out(artifact.id, Path(folder) / artifact.name)
        if artifact.kind == "package":
            return clone_module(read_package(path))
        if path.is_dir():
            path = next(p for p in path.iterdir() if p.name == artifact.name)
        return load(path)


def _ops(module: Module | None, artifact: Artifact) -> dict[str, int]:
    from compiler.report import count_ops

    return count_ops(module) if module is not None else dict(artifact.facts.get("ops", {}))


def _lines(old: Module | None, new: Module | None, before: str, after: str) -> Iterator[str]:
    yield from unified_diff(_printed(old), _printed(new), before, after, lineterm="", n=2)


def _printed(module: Module | None) -> list[str]:
    from compiler.ir import print_module

    return print_module(module).splitlines() if module is not None else []
