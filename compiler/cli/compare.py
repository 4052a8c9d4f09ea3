"""``planish compare A B``: which of two versions is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from compiler.cli import findings


def compare_command(
    a: Annotated[Path, typer.Argument(help="A package, kernels or an ONNX model.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another, with the same inputs and outputs.", show_default=False)],
    data: findings.SamplesOption,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL.onnx", help="What both come from.", show_default="A")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.py:FUNCTION",
            help="agreement, error, accuracy (by the array 'label'), or a function of your own.",
            show_default="agreement and error",
        ),
    ] = None,
    lower_is_better: findings.LowerIsBetterOption = False,
    target: Annotated[str, typer.Option(help="ane, gpu or cpu: the unit to estimate for.")] = "ane",
    chip: Annotated[str, typer.Option(help="A12 to A18, M1 to M5: the chip to estimate for.")] = "A17",
    json: findings.JsonOption = None,
    page: findings.PageOption = None,
) -> None:
    """Compare two versions: size, estimated latency and energy, metrics with confidence, error by layer."""
    from compiler import comparison
    from compiler.comparison import page as page_
    from compiler.target import Target

    found = comparison.compare(
        a,
        b,
        data,
        model=model,
        metric=metric or ("agreement", "error"),
        higher_is_better=False if lower_is_better else None,
        target=Target.of(target, chip=chip),
    )
    _print(found)
    findings.write_json(json, found)
    if page is not None:
        page_.write(page, found)


def _print(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from compiler.report import megabytes

    console = Console(highlight=False, width=160)
    sides = found["sides"]
    table = Table(box=None, pad_edge=False)
    for column in ("", "A", "B", "B − A", "p", "better"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    sizes = [s["bytes"] for s in sides.values()]
    table.add_row("size", *map(megabytes, sizes), f"{100 * (sizes[1] / sizes[0] - 1):+.1f} %")
    for key, unit in (("latency", "ms"), ("energy", "mj"), ("memory", "mb")):
        values = [s.get("estimates", {}).get(f"{key}_{unit}") for s in sides.values()]
        texts = ["—" if v is None else f"{v:.4g} {unit.replace('mj', 'mJ').replace('mb', 'MB')}" for v in values]
        change = f"{100 * (values[1] / values[0] - 1):+.1f} %" if all(values) else ""
        table.add_row(f"{key}, estimated", *texts, change)
    for name, m in found["metrics"].items():
        table.add_row(
            f"{name}, {m['samples']} samples",
            _interval(m["a"]),
            _interval(m["b"]),
            _interval(m["difference"], "+"),
            f"{m['difference']['p']:.3g}",
            (m["better"] or "–").upper(),
        )
    console.print(table)
    for row in found["layers"][:5]:
        console.print(f"  layer {row['value']}: {row['a']:.1e} → {row['b']:.1e}", markup=False)


def _interval(found: Mapping[str, float], sign: str = "") -> str:
    return f"{found['mean']:{sign}.4g} [{found['low']:{sign}.4g}, {found['high']:{sign}.4g}]"
