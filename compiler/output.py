"""Writing beside, then renaming: at the place asked for stands a whole package or what stood there before."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from compiler.errors import UserError

#: What tells a package of ours from a folder of the user's: a file that every package has, of Core ML or of kernels.
_MARKS = ("Manifest.json", "plan.json")


class Output:
    """The place where a package will stand. Used as a context: what is not published when it ends is removed.

    Attributes:
        path: where the package goes.
        draft: a path in a fresh folder beside it, for the writer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.draft = self.path
        self._folder: Path | None = None

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
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        except OSError as e:
            raise UserError(f"cannot write to {self.path.parent}: {e.strerror}", "another folder, with -o") from e
        self.draft = self._folder / self.path.name
        return self

    def publish(self) -> None:
        """Puts the draft in place of what stood there.

        Raises:
            UserError: it cannot be moved there.
        """
        assert self._folder is not None
        old = self._folder / "old"
        try:
            if self.path.exists():
                os.rename(self.path, old)
            os.rename(self.draft, self.path)
        except OSError as e:
            if old.exists() and not self.path.exists():
                os.rename(old, self.path)
            raise UserError(f"cannot write {self.path}: {e.strerror}", "another folder, with -o") from e

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
