"""Files by the hash of their content: written beside and renamed, so that each stands whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from compiler.errors import UserError

#: How much of a file is held in memory at once, in bytes.
_CHUNK = 1 << 20


class Folder:
    """The folder of a store: its objects, and the ways to write into it that leave nothing half-written.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drafts = root / "drafts"
        self._objects = root / "objects"

    def make(self) -> None:
        """Makes the folders that are missing."""
        for folder in (self._drafts, self._objects):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, alone: bool = False) -> Iterator[None]:
        """Holds the store's lock: together with others that add, or alone. The system frees it when a process dies."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def object(self, sha256: str) -> Path:
        """Where the file with a hash stands."""
        return self._objects / sha256[:2] / sha256[2:]

    def objects(self) -> Iterator[tuple[str, Path]]:
        """The hash that each object is filed under, and where it stands."""
        for path in sorted(self._objects.glob("??/*")):
            yield path.parent.name + path.name, path

    def put(self, source: Path) -> tuple[str, int]:
        """Keeps a file; gives its hash and its size in bytes. The caller holds the lock.

        Raises:
            UserError: the file cannot be read, or the store has no room for it.
        """
        draft = self._draft()
        digest, size = hashlib.sha256(), 0
        try:
            with _reading(source) as given, open(draft, "xb") as kept:
                while chunk := given.read(_CHUNK):
                    digest.update(chunk)
                    size += kept.write(chunk)
                os.fsync(kept.fileno())
            sha256 = digest.hexdigest()
            place = self.object(sha256)
            place.parent.mkdir(exist_ok=True)
            os.chmod(draft, 0o444)
            os.replace(draft, place)  # also where it stands already: what is damaged is mended so
            _folder_to_disk(place.parent)
        except OSError as e:
            raise UserError(f"cannot write to the store {self.root}: {e.strerror}", "more room, or --store DIR") from e
        finally:
            draft.unlink(missing_ok=True)
        return sha256, size

    def write(self, path: Path, text: str) -> None:
        """Writes a small file in place of what stood there.

        Raises:
            UserError: the store has no room for it.
        """
        draft = self._draft()
        try:
            path.parent.mkdir(exist_ok=True)
            with open(draft, "x", encoding="utf-8") as kept:
                kept.write(text)
                kept.flush()
                os.fsync(kept.fileno())
            os.replace(draft, path)
            _folder_to_disk(path.parent)
        except OSError as e:
            raise UserError(f"cannot write to the store {self.root}: {e.strerror}", "more room, or --store DIR") from e
        finally:
            draft.unlink(missing_ok=True)

    def drop_drafts(self) -> int:
        """Removes what processes left that died; gives how many files. The caller is alone."""
        left = list(self._drafts.iterdir())
        for path in left:
            path.unlink()
        return len(left)

    def _draft(self) -> Path:
        return self._drafts / secrets.token_hex(8)


def hash_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_out(source: Path, target: Path) -> None:
    """Copies an object to where a user may change it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except OSError as e:
            raise UserError(f"cannot read {path}: {e.strerror}") from e
        yield file


def _folder_to_disk(folder: Path) -> None:
    """A rename outlives a loss of power once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
