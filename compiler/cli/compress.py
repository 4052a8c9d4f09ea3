"""The options of ``compile`` about compression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PANEL = "Compression"

QuantizeOption = Annotated[
    str | None,
    typer.Option(
        help="int8, int4, palette8 to palette1, sparse50, w8a8 or mixed: what weights become.",
        show_default="floats",
        rich_help_panel=_PANEL,
    ),
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz", help="Inputs to compress by.", show_default="weights alone", rich_help_panel=_PANEL
    ),
]
BudgetOption = Annotated[
    str | None, typer.Option(metavar="4MB", help="The most that the package may have.", rich_help_panel=_PANEL)
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        help="How far outputs may be from the original's, relative.", show_default="any", rich_help_panel=_PANEL
    ),
]
RangesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json", help="Keeps the ranges of activations; read if it is there.", rich_help_panel=_PANEL
    ),
]
RangeMethodOption = Annotated[
    str, typer.Option(help="minmax, percentile or mse: how ranges are found.", rich_help_panel=_PANEL)
]
PruneOption = Annotated[
    float | None,
    typer.Option(metavar="0.3", help="The share of channels to cut out of each layer.", rich_help_panel=_PANEL),
]
ImportanceOption = Annotated[
    str | None,
    typer.Option(
        metavar="magnitude|activation|taylor",
        help="Which channels go.",
        show_default="activation with --calibrate, else magnitude",
        rich_help_panel=_PANEL,
    ),
]
