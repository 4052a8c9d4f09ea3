"""What a file or a folder is that somebody adds to a store, and what it says of its own origin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import UserError
from compiler.store.records import Kind

if TYPE_CHECKING:
    import onnx

#: How a package, kernels and a model that was exported say where they come from: see :func:`compiler.emit.origin`.
_VERSION, _NAME, _SOURCE, _RULES = (f"planish.{key}" for key in ("version", "source", "source.sha256", "rules.sha256"))


@dataclass(frozen=True, slots=True)
class Found:
    """Something to add.

    Attributes:
        kind: what it is.
        files: where its files lie, by path inside it.
        says: what it says of its origin: keys that begin with ``planish.``.
    """

    kind: Kind
    files: Mapping[str, Path]
    says: Mapping[str, str]

    @property
    def source(self) -> dict[str, str]:
        named = {"name": self.says.get(_NAME), "sha256": self.says.get(_SOURCE)}
        return {key: value for key, value in named.items() if value is not None}

    @property
    def rules(self) -> str | None:
        return self.says.get(_RULES)

    @property
    def compiler(self) -> str | None:
        return self.says.get(_VERSION)


def look_at(path: Path) -> Found:
    """What stands at a path.

    Raises:
        UserError: there is nothing, or neither a model nor a package nor kernels.
    """
    from codegen.metal import package as kernels
    from compiler.frontend.load import read_header

    if path.is_dir():
        files = {str(p.relative_to(path)): p for p in sorted(path.rglob("*")) if p.is_file()}
        if kernels.is_package(path):
            return Found("kernels", files, _ours(kernels.read(path).metadata))
        return Found("package", files, _ours(_package_metadata(path)))
    if not path.exists():
        raise UserError(f"there is no {path}")
    model = read_header(path)
    says = _ours({p.key: p.value for p in model.metadata_props})
    files = {path.name: path}
    for location in sorted(set(_external(model))):
        beside = (path.parent / location).resolve()
        if not beside.is_relative_to(path.parent.resolve()):
            raise UserError(
                f"{path.name} has weights outside of its folder, in '{location}'", "keep them in one folder"
            )
        files[location] = beside
    return Found("model" if says else "original", files, says)


def report_facts(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Options, recipe and facts out of a report that ``compile --json`` wrote.

    Raises:
        UserError: it is no such report.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        options = {key: report[key] for key in ("target", "os", "precision")}
        facts = {key: report[key] for key in ("ops", "rules", "verify", "bytes")}
        facts["estimates"] = report["placement"].get("estimates", {})
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is not the report of a compile", "compile … --json FILE") from e
    # What was asked for and what was cut; what became of each weight can be read from the artifact itself.
    recipe = {key: value for key, value in report.get("compression", {}).items() if key in ("settings", "pruning")}
    return options, recipe, facts


def _ours(said: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in said.items() if key.startswith("planish.")}


def _package_metadata(path: Path) -> dict[str, str]:
    from codegen.mil.package import model_file
    from codegen.mil.proto import model_pb

    model = model_pb.Model()
    try:
        model.ParseFromString(model_file(path).read_bytes())
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except Exception as e:
        raise UserError(f"{path} is broken: its model is not one of Core ML") from e
    return dict(model.description.metadata.userDefined)


def _external(model: onnx.ModelProto) -> Iterator[str]:
    """The files beside a model that hold weights of it."""
    for tensor in _tensors(model):
        # Large weights inside the file are marked as external too by the reader of headers, without a location.
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a message, also those in attributes and inner graphs."""
    import onnx
    from google.protobuf.message import Message

    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if isinstance(value, Message) else value:
                yield from _tensors(part)
