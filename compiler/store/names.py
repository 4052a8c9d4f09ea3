"""Names that point to artifacts: tags, which move, and channels, which remember what they pointed to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from compiler.errors import UserError
from compiler.store.objects import Folder
from compiler.store.records import checked_tag


class Promotion(TypedDict):
    """One entry of a channel: the artifact, when it was promoted in ISO 8601, and what was said."""

    artifact: str
    when: str
    note: str


class Names:
    """The tags and channels of a store. Whoever tags holds the store's lock, whoever promotes holds it alone."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._tags, self._channels = folder.root / "tags", folder.root / "channels"

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where tags and channels lie."""
        return self._tags, self._channels

    def tags(self) -> dict[str, str]:
        """Tag → artifact."""
        return {p.name: p.read_text(encoding="utf-8").strip() for p in sorted(self._tags.iterdir())}

    def channels(self) -> dict[str, list[Promotion]]:
        """Channel → its promotions, the newest last."""
        return {p.stem: self._history(p.stem) for p in sorted(self._channels.glob("*.json"))}

    def all(self) -> list[str]:
        """What :meth:`find` knows."""
        return [*self.tags(), *(f"@{c}" for c in self.channels())]

    def find(self, name: str) -> str | None:
        """The artifact that a tag or ``@channel`` points to."""
        if name.startswith("@"):
            history = self._history(name[1:])
            return history[-1]["artifact"] if history else None
        path = self._tags / name
        return path.read_text(encoding="utf-8").strip() if "/" not in name and path.is_file() else None

    def of(self, artifact: str) -> list[str]:
        """The names that keep an artifact: tags, and channels that point or pointed to it."""
        tags = [tag for tag, id_ in self.tags().items() if id_ == artifact]
        return tags + [f"@{c}" for c, h in self.channels().items() if any(p["artifact"] == artifact for p in h)]

    def tag(self, name: str, artifact: str) -> None:
        self._folder.write(self._tags / checked_tag(name), artifact + "\n")

    def promote(self, channel: str, artifact: str, note: str) -> None:
        history = self._history(checked_tag(channel))
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        history.append({"artifact": artifact, "when": now, "note": note})
        self._folder.write(self._channels / f"{channel}.json", json.dumps(history, indent=2) + "\n")

    def pointers(self) -> Iterator[tuple[str, str]]:
        """Every name with each artifact that it points or pointed to."""
        yield from self.tags().items()
        for channel, history in self.channels().items():
            for promotion in history:
                yield f"@{channel}", promotion["artifact"]

    def _history(self, channel: str) -> list[Promotion]:
        path = self._channels / f"{channel}.json"
        if "/" in channel or not path.is_file():
            return []
        try:
            history: list[Promotion] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise UserError(f"the channel '{channel}' of the store is damaged: {e}", "planish store verify") from e
        return history
