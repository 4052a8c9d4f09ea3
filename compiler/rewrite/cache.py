"""What takes long to make and is the same in every run: parsed rules, the parser's tables. Kept in the user's cache."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def kept(name: str, make: Callable[[], T]) -> T:
    """What ``make`` gives, made in the first run only.

    Args:
        name: of the file in the user's cache; what the result depends on must be part of it, as a hash or a version.
            Python's own version is added.
    """
    import platformdirs

    path = Path(platformdirs.user_cache_dir("planish")) / f"{name}-py{sys.version_info.minor}.pickle"
    try:
        found: T = pickle.loads(path.read_bytes())
    except Exception:  # a missing, stale or damaged cache is no error: it is made again
        found = make()
        _store(path, pickle.dumps(found))
    return found


def _store(path: Path, content: bytes) -> None:
    """Writes a cache file whole or not at all; without a place to write, nothing is cached."""
    temporary = path.with_suffix(f".{hash(content) & 0xFFFFFF:x}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
