"""What a store knows of an artifact: its files, where it comes from, how it was made, how good it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from compiler.errors import UserError

#: ``original``: a model that somebody trained. What is made of one is ``derived``: a model, a package or kernels.
Kind = Literal["original", "model", "package", "kernels"]

#: Identifiers say at a glance which of both an artifact is.
_PREFIX = {"original": "o-", "model": "d-", "package": "d-", "kernels": "d-"}

_ID = re.compile(r"[od]-[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: What could be the beginning of an identifier, or one without its prefix.
_LIKE_ID = re.compile(r"([od]-)?[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of an artifact: the hash of its content, and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of something. Its identifier follows from all of this but the time it was added.

    Attributes:
        kind: what it is.
        name: what it was called when it was added.
        files: by path inside it; for a model of one file, by that file's name.
        source: the model that it was compiled from: ``name`` and ``sha256``, as the artifact itself says.
        parent: the artifact that it was made of, if that is in the store.
        rules: the hash of the rules that compiled it.
        compiler: the version of the compiler.
        options: what the compile was asked for: target, OS, precision.
        recipe: how it was compressed.
        metrics: how good it is, by the measures of whoever added it.
        facts: what the compile found out: operators, proof, estimates.
        added: when, in ISO 8601; not part of the identity.
    """

    kind: Kind
    name: str
    files: Mapping[str, Stored]
    source: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    rules: str | None = None
    compiler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    added: str = ""

    @property
    def id(self) -> str:
        """``o-`` for originals or ``d-`` for what was derived, and a SHA-256."""
        content = {key: value for key, value in asdict(self).items() if key != "added"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return _PREFIX[self.kind] + hashlib.sha256(text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(f.bytes for f in self.files.values())

    @property
    def derived(self) -> bool:
        """Whether it was made of another model."""
        return self.kind != "original"

    @property
    def proven(self) -> bool:
        """Whether the report that came with it says so."""
        return bool(self.facts.get("verify", {}).get("status") == "passed")

    def to_json(self) -> str:
        return json.dumps({"format": 1, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Artifact:
        """The artifact that :meth:`to_json` wrote.

        Raises:
            ValueError: the text is no record, or one of another format.
        """
        found = json.loads(text)
        if not isinstance(found, dict) or found.pop("format", None) != 1:
            raise ValueError("no record of format 1")
        try:
            found["files"] = {path: Stored(**f) for path, f in found["files"].items()}
            return Artifact(**found)
        except (TypeError, KeyError, AttributeError) as e:
            raise ValueError(f"not a record: {e}") from e


def is_id(text: str) -> bool:
    """Whether a text is a whole identifier."""
    return _ID.fullmatch(text) is not None


def like_id(text: str) -> bool:
    """Whether a text could stand for an identifier: at least six of its digits, with or without the letter."""
    return _LIKE_ID.fullmatch(text) is not None


def checked_tag(name: str) -> str:
    """The name of a tag or a channel.

    Raises:
        UserError: it would be taken for an identifier, or could not be a file's name.
    """
    if _TAG.fullmatch(name) is None:
        raise UserError(
            f"'{name}' is no name for a tag", "letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    if like_id(name):
        raise UserError(f"the tag '{name}' would be taken for an artifact's identifier", "a name that is no hex number")
    return name
