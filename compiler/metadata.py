"""What a package says of itself, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.ir import Module


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a package says of itself. ``user`` holds any further keys, such as the hash of the source model."""

    author: str = ""
    license: str = ""
    description: str = ""
    version: str = ""
    user: Mapping[str, str] = field(default_factory=dict)

    _OWN = ("author", "license", "description", "version")

    @staticmethod
    def of(module: Module) -> Metadata:
        """The metadata among a module's attributes: the four fields by name, the rest as ``metadata.KEY``."""
        own = {k: str(module.attributes[k]) for k in Metadata._OWN if k in module.attributes}
        prefix = "metadata."
        user = {k.removeprefix(prefix): str(v) for k, v in module.attributes.items() if k.startswith(prefix)}
        return Metadata(**own, user=user)

    def attributes(self) -> dict[str, str]:
        """The inverse of :meth:`of`; empty fields are left out."""
        own = {k: getattr(self, k) for k in Metadata._OWN if getattr(self, k)}
        return own | {f"metadata.{k}": v for k, v in self.user.items()}
