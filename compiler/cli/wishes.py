"""The options of ``compile`` about inputs, outputs and what a package says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from compiler.features.wishes import Wishes

_PANEL = "Inputs and outputs"

ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:rgb|bgr|gray][:scale=…][:mean=…][:std=…]",
        help="An input that takes pictures, or an output that gives them.",
        rich_help_panel=_PANEL,
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(metavar="1,4,8|1..8", help="Rows, for a model that was exported for one.", rich_help_panel=_PANEL),
]
StateOption = Annotated[
    list[str] | None,
    typer.Option(metavar="IN:OUT", help="An output that comes back as an input.", rich_help_panel=_PANEL),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(metavar="FILE[:OUTPUT]", help="A class a line: the package is a classifier.", rich_help_panel=_PANEL),
]
NmsOption = Annotated[
    str | None,
    typer.Option(
        metavar="boxes=NAME,scores=NAME[,iou=…,score=…,max=…]",
        help="A detector's boxes through Core ML's non-maximum suppression.",
        rich_help_panel=_PANEL,
    ),
]
IoOption = Annotated[
    str | None,
    typer.Option(help="fp16 or fp32: float inputs and outputs.", show_default="the model's", rich_help_panel=_PANEL),
]
RenameOption = Annotated[
    list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename an input or output.", rich_help_panel=_PANEL)
]
DescribeOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TEXT", help="A line on an input or output.", rich_help_panel=_PANEL)
]
DescriptionOption = Annotated[
    str, typer.Option(metavar="TEXT", help="What the package is.", show_default=False, rich_help_panel=_PANEL)
]
AuthorOption = Annotated[str, typer.Option(metavar="TEXT", show_default=False, rich_help_panel=_PANEL)]
LicenseOption = Annotated[str, typer.Option(metavar="TEXT", show_default=False, rich_help_panel=_PANEL)]
VersionOption = Annotated[
    str, typer.Option("--model-version", metavar="TEXT", show_default=False, rich_help_panel=_PANEL)
]
MetadataOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Further metadata.", rich_help_panel=_PANEL)
]


def wishes(
    batch: str | None,
    image: list[str] | None,
    state: list[str] | None,
    labels: str | None,
    nms: str | None,
    io: str | None,
    rename: list[str] | None,
    describe: list[str] | None,
    said: dict[str, str],
    metadata: list[str] | None,
) -> Wishes:
    """What the options ask for.

    Raises:
        UserError: one is not spelled as it must be.
    """
    from compiler.features.naming import parse_pairs
    from compiler.features.wishes import Wishes

    return Wishes(
        batch=batch,
        images=image or (),
        states=state or (),
        labels=labels,
        nms=nms,
        io=io,
        rename=parse_pairs("--rename", rename or [], "OLD=NEW"),
        describe=parse_pairs("--describe", describe or [], "NAME=TEXT"),
        metadata=parse_pairs("--metadata", metadata or [], "KEY=VALUE"),
        **said,
    )
