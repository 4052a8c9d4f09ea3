"""The store: adding, finding, naming and dropping artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compiler.errors import UserError
from compiler.ir import suggest
from compiler.store import check, sources
from compiler.store.names import Names
from compiler.store.objects import Folder, copy_out, hash_of
from compiler.store.records import Artifact, Kind, Stored, checked_tag, is_id, like_id

_MARK = "planish-store"
_FORMAT = "1\n"


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection of garbage dropped: artifacts by identifier, objects, drafts of dead processes, bytes."""

    artifacts: tuple[str, ...]
    objects: int
    drafts: int
    bytes: int


class Store:
    """A folder of artifacts.

    Attributes:
        folder: where its files lie.
        names: tags and channels.
    """

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        self.names = Names(self.folder)
        self._records = root / "artifacts"

    @staticmethod
    def open(root: str | Path, make: bool = True) -> Store:
        """The store in a folder, which is made if it is not there.

        Raises:
            UserError: the folder is something else, cannot be written, or is missing and not to be made.
        """
        path = Path(os.path.abspath(root))
        mark = path / _MARK
        if not mark.exists():
            if path.exists() and (not path.is_dir() or any(path.iterdir())) and not _half_made(path):
                raise UserError(f"{path} is no store, and not empty", "--store DIR with another folder")
            if not make:
                raise UserError(f"there is no store in {path}", "planish store add, or --store DIR")
        elif mark.read_text(encoding="utf-8") != _FORMAT:
            raise UserError(f"the store {path} is of a format that this version does not know", "a newer version")
        store = Store(path)
        try:
            store.folder.make()
            for folder in (store._records, *store.names.folders):
                folder.mkdir(exist_ok=True)
            if not mark.exists():
                store.folder.write(mark, _FORMAT)
        except OSError as e:
            raise UserError(f"cannot write to {path}: {e.strerror}", "--store DIR with another folder") from e
        return store

    def add(
        self,
        path: str | Path,
        *,
        parent: str | None = None,
        report: str | Path | None = None,
        metrics: Mapping[str, float] | None = None,
        recipe: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
    ) -> Artifact:
        """Keeps a model, a package or kernels. Adding the same again changes nothing.

        Args:
            parent: what it was made of; found by its hash where it is not said.
            report: what ``compile --json`` wrote.
            metrics: how good it is.
            recipe: how it was made, besides what the report says.
            tags: names that shall point to it.

        Raises:
            UserError: there is nothing to add, it contradicts what the store knows, or a tag is no name.
        """
        source = Path(path)
        found = sources.look_at(source)
        options, compressed, facts = sources.report_facts(Path(report)) if report is not None else ({}, {}, {})
        for tag in tags:
            checked_tag(tag)
        with self.folder.locked():
            of = self._find(parent) if parent is not None else self._parent_of(found)
            kind: Kind = "model" if found.kind == "original" and of is not None else found.kind
            self._refuse_confusion(source, kind)
            artifact = Artifact(
                kind=kind,
                name=source.name,
                files={name: Stored(*self.folder.put(file)) for name, file in found.files.items()},
                source=found.source,
                parent=of.id if of is not None else None,
                rules=found.rules,
                compiler=found.compiler,
                options=options,
                recipe={**compressed, **(recipe or {})},
                metrics=dict(metrics or {}),
                facts=facts,
                added=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
            if self._record(artifact.id).is_file():
                artifact = self._read(artifact.id)
            else:
                self.folder.write(self._record(artifact.id), artifact.to_json())
            for tag in tags:
                self.names.tag(tag, artifact.id)
        return artifact

    def get(self, reference: str) -> Artifact:
        """The artifact that an identifier, the beginning of one, a tag or ``@channel`` stands for.

        Raises:
            UserError: it stands for none, or for several.
        """
        with self.folder.locked():
            return self._find(reference)

    def all(self) -> list[Artifact]:
        """All artifacts, the oldest first."""
        with self.folder.locked():
            return self._all()

    def _find(self, reference: str) -> Artifact:
        id_ = reference if is_id(reference) else self.names.find(reference)
        if id_ is None and like_id(reference):
            bare = reference.removeprefix("o-").removeprefix("d-")
            fits = [i for i in self._ids() if i.startswith(reference) or (bare == reference and i[2:].startswith(bare))]
            if len(fits) > 1:
                raise UserError(f"'{reference}' could be {' or '.join(i[:14] for i in fits)}", "more of its digits")
            id_ = fits[0] if fits else None
        if id_ is None or not self._record(id_).is_file():
            near = suggest(reference, self.names.all())
            raise UserError(f"the store has no artifact '{reference}'{near}", "planish store list")
        return self._read(id_)

    def tag(self, reference: str, name: str) -> None:
        """Lets a tag point to an artifact, whatever it pointed to before."""
        with self.folder.locked():
            self.names.tag(name, self._find(reference).id)

    def promote(self, reference: str, channel: str, note: str = "", unproven: bool = False) -> Artifact:
        """Puts an artifact at the head of a channel, such as ``production``, which keeps what was there before.

        Args:
            note: why, for whoever reads the channel's history.
            unproven: promote it even if no report says that it was proven.

        Raises:
            UserError: it is an original, which no device runs, or nothing says that it was proven.
        """
        with self.folder.locked(alone=True):
            artifact = self._find(reference)
            if not artifact.derived:
                raise UserError(
                    f"{artifact.name} is an original model, which no device runs", "promote what is compiled"
                )
            if not (artifact.proven or unproven):
                raise UserError(
                    f"nothing says that {artifact.name} was proven",
                    "compile … --json FILE, planish store add PKG --report FILE, or promote --unproven",
                )
            self.names.promote(channel, artifact.id, note)
        return artifact

    def check_out(self, reference: str, target: str | Path) -> Path:
        """Writes an artifact to a path where nothing stands.

        Raises:
            UserError: something stands there, or it cannot be written.
        """
        from compiler.output import Output

        path = Path(os.path.abspath(target))
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} exists and is left as it is", "-o with another path")
        with self.folder.locked(), Output(path) as out:
            artifact = self._find(reference)
            is_folder = artifact.kind in ("package", "kernels") or len(artifact.files) > 1
            for name, file in artifact.files.items():
                copy_out(self.folder.object(file.sha256), out.draft / name if is_folder else out.draft)
            out.publish()
        return path

    def remove(self, reference: str) -> Artifact:
        """Drops an artifact; its files go with the next collection.

        Raises:
            UserError: a name points to it, or another artifact was made of it.
        """
        with self.folder.locked(alone=True):
            artifact = self._find(reference)
            held = self.names.of(artifact.id)
            children = [a.name for a in self._all() if a.parent == artifact.id]
            if held or children:
                why = f"'{held[0]}' points to it" if held else f"{children[0]} was made of it"
                raise UserError(f"{artifact.name} stays: {why}", "planish store gc drops what nothing needs")
            self._record(artifact.id).unlink()
        return artifact

    def collect(self, untagged: bool = False, older_than: float = 0.0) -> Collected:
        """Drops what no artifact needs: objects, and drafts of processes that died.

        Args:
            untagged: drop artifacts too that were derived and to which no name leads, directly or by descent.
            older_than: only those that are older than that many days.
        """
        with self.folder.locked(alone=True):
            dropped = self._drop_untagged(older_than) if untagged else ()
            kept = {f.sha256 for id_ in self._ids() for f in self._read(id_).files.values()}
            objects = size = 0
            for sha256, path in self.folder.objects():
                if sha256 not in kept:
                    size += path.stat().st_size
                    path.unlink()
                    objects += 1
            return Collected(tuple(dropped), objects, self.folder.drop_drafts(), size)

    def verify(self) -> list[check.Problem]:
        """Reads everything again and compares it with its hashes; gives what is wrong."""
        with self.folder.locked(alone=True):
            return list(check.problems(self.folder, self._records, self.names))

    def _drop_untagged(self, older_than: float) -> list[str]:
        now = datetime.now(UTC)
        artifacts = {a.id: a for a in self._all()}
        needed: set[str] = set()
        for id_, artifact in artifacts.items():
            young = (now - datetime.fromisoformat(artifact.added)).total_seconds() < older_than * 86400
            if not artifact.derived or young or self.names.of(id_):
                at: str | None = id_
                while at is not None and at not in needed:
                    needed.add(at)
                    at = artifacts[at].parent if at in artifacts else None
        dropped = [id_ for id_ in artifacts if id_ not in needed]
        for id_ in dropped:
            self._record(id_).unlink()
        return dropped

    def _parent_of(self, found: sources.Found) -> Artifact | None:
        """The model in the store that something says it was compiled from."""
        sha256 = found.source.get("sha256")
        if sha256 is None:
            return None
        models = (a for a in self._all() if a.kind in ("original", "model"))
        return next((a for a in models if any(f.sha256 == sha256 for f in a.files.values())), None)

    def _refuse_confusion(self, source: Path, kind: str) -> None:
        """What the store has as an original must not come in as something derived, nor the other way round."""
        if source.is_dir() or kind not in ("original", "model"):
            return
        sha256 = hash_of(source)
        for artifact in self._all():
            other = artifact.kind in ("original", "model") and artifact.kind != kind
            if other and any(f.sha256 == sha256 for f in artifact.files.values()):
                is_, as_ = ("derived", "an original") if artifact.derived else ("an original", "derived")
                raise UserError(f"the store has {source.name} as {is_} ({artifact.id[:14]}), not as {as_}")

    def _all(self) -> list[Artifact]:
        return sorted(map(self._read, self._ids()), key=lambda a: (a.added, a.id))

    def _ids(self) -> Iterable[str]:
        return sorted(p.stem for p in self._records.glob("*.json"))

    def _record(self, id_: str) -> Path:
        return self._records / f"{id_}.json"

    def _read(self, id_: str) -> Artifact:
        try:
            return Artifact.from_json(self._record(id_).read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise UserError(f"the record of {id_[:14]} in the store is damaged: {e}", "planish store verify") from e


def _half_made(path: Path) -> bool:
    """Whether only what a store has stands in a folder: its making was interrupted, or goes on elsewhere."""
    return {p.name for p in path.iterdir()} <= {"drafts", "objects", "artifacts", "tags", "channels", "lock"}
