"""Whether a store is whole: every hash, every record, every name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compiler.errors import UserError
from compiler.store.names import Names
from compiler.store.objects import Folder, hash_of
from compiler.store.records import Artifact


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be: where, and what."""

    where: str
    what: str


def problems(folder: Folder, records: Path, names: Names) -> Iterator[Problem]:
    """Reads everything in a store, which nobody else writes to meanwhile.

    Objects that no record names, and drafts of processes that died, are garbage and no problem.
    """
    hashes = {}
    for sha256, path in folder.objects():
        hashes[sha256] = path.stat().st_size
        if hash_of(path) != sha256:
            yield Problem(f"objects/{sha256[:12]}", "its content is not what its name says: add it again, or drop it")
    artifacts: dict[str, Artifact] = {}
    for path in sorted(records.iterdir()):
        try:
            artifact = Artifact.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            yield Problem(f"artifacts/{path.name}", f"no record: {e}")
            continue
        artifacts[path.stem] = artifact
        if artifact.id != path.stem:
            yield Problem(f"artifacts/{path.name}", "its content is not what its name says")
        for name, file in artifact.files.items():
            if file.sha256 not in hashes:
                yield Problem(f"{artifact.name} ({path.stem[:14]})", f"its file {name} is missing")
            elif hashes[file.sha256] != file.bytes:
                yield Problem(f"{artifact.name} ({path.stem[:14]})", f"its file {name} has another size")
    for id_, artifact in artifacts.items():
        if artifact.parent is not None and artifact.parent not in artifacts:
            yield Problem(f"{artifact.name} ({id_[:14]})", f"what it was made of, {artifact.parent[:14]}, is missing")
    try:
        for name, id_ in names.pointers():
            if id_ not in artifacts:
                yield Problem(name, f"points to {id_[:14]}, which is missing")
    except UserError as e:
        yield Problem("channels", e.message)
