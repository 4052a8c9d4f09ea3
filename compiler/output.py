"""Writing beside, then renaming: at the place asked for stands a whole package or what stood there before.

That holds whenever a process is interrupted. Folders of drafts are known before they exist, so that :func:`clean_up`
finds all of them, wherever the interruption fell; between the two renames of a publication none is let through.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from compiler.errors import UserError

#: What tells a package of ours from a folder of the user's: one that every package has, of Core ML, kernels or Swift.
_MARKS = ("Manifest.json", "plan.json", "planish.json")

#: The folders of drafts that may exist.
_drafts: set[Path] = set()
#: The packages that this process has put in place.
published: list[Path] = []


def clean_up() -> None:
    """Removes the drafts that are still there."""
    for folder in list(_drafts):
        shutil.rmtree(folder, ignore_errors=True)
        _drafts.discard(folder)


class Output:
    """The place where a package will stand. Used as a context: what is not published when it ends is removed.

    Attributes:
        path: where the package goes.
        draft: a path in a fresh folder beside it, for the writer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self._folder = self.path.parent / f".{self.path.name}.{secrets.token_hex(4)}"
        self.draft = self._folder / self.path.name

    def __enter__(self) -> Output:
        """Makes the folder of drafts.

        Raises:
            UserError: nothing can be written there, or something stands there that is no package.
        """
        if self.path.exists() and not any((self.path / name).is_file() for name in _MARKS):
            kind = "folder" if self.path.is_dir() else "file"
            raise UserError(f"{self.path} is a {kind}, not a package, and is left alone", "-o NAME.mlpackage")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drafts.add(self._folder)
            self._folder.mkdir(mode=0o700)
        except OSError as e:
            _drafts.discard(self._folder)
            raise UserError(f"cannot write to {self.path.parent}: {e.strerror}", "another folder, with -o") from e
        return self

    def publish(self) -> None:
        """Puts the draft in place of what stood there.

        Raises:
            UserError: it cannot be moved there.
        """
        old = self._folder / "old"
        try:
            with _undisturbed():
                if self.path.exists():
                    os.rename(self.path, old)
                os.rename(self.draft, self.path)
                published.append(self.path)
        except OSError as e:
            if old.exists() and not self.path.exists():
                os.rename(old, self.path)
            raise UserError(f"cannot write {self.path}: {e.strerror}", "another folder, with -o") from e

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        _drafts.discard(self._folder)
        if isinstance(error, UserError) and str(self.draft) in error.message:
            # The writer knows the draft alone.
            message = error.message.replace(str(self.draft), str(self.path))
            raise UserError(message, error.remedy or "more room, or another folder, with -o") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds back requests to stop until the end. Only the main thread gets them."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
