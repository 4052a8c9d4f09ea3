"""What a package says of its origin: the source's hash, the rules' hash, the compiler's version."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from compiler.rewrite import Library


def metadata(model: str | Path | onnx.ModelProto, library: Library) -> dict[str, str]:
    """Keys and values for the package's user-defined metadata. The same input gives the same values."""
    if isinstance(model, (str, Path)):
        with open(model, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = Path(model).name
    else:
        digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        name = model.graph.name
    return {
        "planish.version": version("planish"),
        "planish.source": name,
        "planish.source.sha256": digest,
        "planish.rules.sha256": library.digest,
    }
