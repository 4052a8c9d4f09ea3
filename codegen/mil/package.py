"""A model package on disk: its folder, its manifest, and how it comes to stand there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiler.errors import UserError

MODEL = "com.apple.CoreML/model.mlmodel"
WEIGHTS = "com.apple.CoreML/weights"
WEIGHT_FILE = "weight.bin"
#: How the program names the folder that the model file lies in.
MODEL_PATH = "@model_path"

_AUTHOR = "com.apple.CoreML"


def write_manifest(folder: Path, content: bytes, has_weights: bool) -> None:
    """Writes ``Manifest.json``.

    Args:
        content: a digest of the package's content, from which the identifiers follow.
    """
    entries = [("model.mlmodel", MODEL, "CoreML Model Specification")]
    if has_weights:
        entries.append(("weights", WEIGHTS, "CoreML Model Weights"))
    items = {}
    for name, path, description in entries:
        # Version 4 in form, so that nothing takes it for a time or a name; its bits come from the content.
        key = str(uuid.UUID(bytes=hashlib.sha256(content + path.encode()).digest()[:16], version=4))
        items[key] = {"author": _AUTHOR, "description": description, "name": name, "path": path}
    root = next(k for k, v in items.items() if v["path"] == MODEL)
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": dict(sorted(items.items())),
        "rootModelIdentifier": root,
    }
    (folder / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to fill; it takes the place of ``path`` when all went well, and vanishes otherwise.

    Raises:
        UserError: the folder cannot be made, filled or moved, or ``path`` is something other than a package.
    """
    if (path.exists() or path.is_symlink()) and not (path.is_dir() and _is_package(path)):
        raise UserError(f"'{path}' exists and is not a model package", "another output path")
    folder = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir()
    except OSError as e:
        raise UserError(f"cannot write '{path}': {e.strerror}", "another output path") from e
    try:
        yield folder
        _swap(folder, path)
    except OSError as e:
        raise UserError(f"cannot write '{path}': {e.strerror or e}") from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_package(path: Path) -> bool:
    return (path / "Manifest.json").is_file() or not any(path.iterdir())


def _swap(folder: Path, path: Path) -> None:
    if not path.exists():
        folder.rename(path)
        return
    # A folder cannot be renamed onto a full one, so the old one steps aside, and back if the new one does not come.
    old = folder.with_suffix(".old")
    try:
        path.rename(old)
        folder.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def model_file(path: Path) -> Path:
    """The model file of a package, or ``path`` itself if it is a bare model file.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"there is no model package at '{path}'")
    try:
        manifest = json.loads((path / "Manifest.json").read_text(encoding="utf-8"))
        relative = str(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
        found = path / "Data" / relative
        inside = found.resolve().is_relative_to(path.resolve())
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"'{path}' is not a model package: its Manifest.json names no model") from e
    if not inside or not found.is_file():
        raise UserError(f"'{path}' is not a model package: its Manifest.json names a model that is not in it")
    return found


def weight_path(model: Path, name: str) -> Path:
    """The weight file that a program names ``name``, as in ``@model_path/weights/weight.bin``.

    Raises:
        UserError: the name leads out of the package.
    """
    folder = model.parent.resolve()
    found = (folder / name.removeprefix(MODEL_PATH).lstrip("/")).resolve()
    if not found.is_relative_to(folder):
        raise UserError(f"the package is broken: its weights lie outside of it ('{name}')")
    return found
