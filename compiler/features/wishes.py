"""All wishes about inputs and outputs as the command line and the Python API take them, made into features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.errors import UserError
from compiler.features import batch, element_types, image, labels, nms, state
from compiler.features.base import Feature, Interface
from compiler.features.naming import Naming
from compiler.metadata import Metadata

#: How keys of metadata start that say where a package comes from and what was proven of it.
OWN = "planish."


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wished for; texts are spelled as on the command line.

    Attributes:
        batch: ``1,4,8`` or ``1..8`` rows in place of one.
        images: ``NAME:rgb:scale=1/255`` for each input or output that is a picture.
        states: ``h_in:h_out`` for each input that an output feeds at the next call.
        labels: a file with a class a line, or ``FILE:OUTPUT``.
        nms: ``boxes=NAME,scores=NAME,iou=0.45`` for a detector's boxes.
        io: ``fp16`` or ``fp32`` for all float inputs and outputs.
        rename: new names of inputs and outputs by the model's.
        describe: a line on an input or output, by the model's name for it.
        author, license, description, version: what the package says of itself.
        metadata: further keys and values.
    """

    batch: str | None = None
    images: Sequence[str] = ()
    states: Sequence[str] = ()
    labels: str | None = None
    nms: str | None = None
    io: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    describe: Mapping[str, str] = field(default_factory=dict)
    author: str = ""
    license: str = ""
    description: str = ""
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def interface(self) -> Interface:
        """The features, in the order in which they change a module; names come last, since others go by the model's.

        Raises:
            UserError: a text is not spelled as it must be.
        """
        features: list[Feature] = [image.parse(text) for text in self.images]
        if features and self.batch is not None:
            raise UserError("--image is for one picture at a time, and --batch opens several rows", "one of the two")
        names = [f.name for f in features if isinstance(f, image.Image)]
        if twice := next((n for i, n in enumerate(names) if n in names[:i]), None):
            raise UserError(f"--image says '{twice}' twice", "one --image for each input or output")
        one = "--labels is for one row" if self.labels is not None else "--nms is for one picture"
        if self.batch is not None and (self.labels is not None or self.nms is not None):
            raise UserError(f"{one} at a time, and --batch opens several rows", "one of the two")
        if own := next((k for k in self.metadata if k.startswith(OWN)), None):
            raise UserError(f"--metadata gives '{own}', and keys that start with {OWN} are Planish's", "another key")
        if self.batch is not None:
            features.insert(0, batch.parse(self.batch))
        if self.states:
            features.append(state.parse(list(self.states)))
        if self.labels is not None:
            features.append(labels.parse(self.labels))
        if self.nms is not None:
            features.append(nms.parse(self.nms))
        if self.io is not None:
            features.append(element_types.parse(self.io))
        if self.rename or self.describe:
            also: tuple[str, ...] = labels.OUTPUTS if self.labels is not None else ()
            also += nms.OUTPUTS if self.nms is not None else ()
            features.append(Naming(self.rename, self.describe, also))
        return Interface(tuple(features))

    def said(self) -> Metadata:
        """What the package says of itself."""
        return Metadata(self.author, self.license, self.description, self.version, dict(self.metadata))
