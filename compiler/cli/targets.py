"""``planish targets``: the units and releases one can compile for, and what is publicly known of each chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from compiler.hardware import Chip
    from compiler.hardware.facts import OperatorFact


def targets_command(
    chip: Annotated[
        str | None, typer.Argument(help="A12 to A18, M1 to M5: what its Neural Engine takes.", show_default=False)
    ] = None,
    os: Annotated[str | None, typer.Option(help="Only what this release has.", show_default="any release")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
) -> None:
    """List the units, releases and chips that a model can be compiled for; of one chip, what it takes, with sources."""
    from rich.console import Console

    from compiler import hardware
    from compiler.target import RELEASES, known

    if os is not None:
        known("OS release", os, RELEASES)
    if json:
        import json as encoder

        data = (
            chip_facts(hardware.chip(chip), os) if chip else {name: figures(c) for name, c in hardware.chips().items()}
        )
        typer.echo(encoder.dumps(data, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if chip is None:
        _units(console)
        _chips(console)
    else:
        _chip(console, hardware.chip(chip), os)
        _sources(console)


def figures(chip: Chip) -> dict[str, Any]:
    """A chip's figures and their sources."""
    names = ("ane_tflops", "gpu_tflops", "cpu_gops", "memory_gb_s", "weights_gb_s", "dispatch_ms")
    values = {n: getattr(chip, n) for n in names}
    return {
        "generation": chip.tier,
        **{n: {"value": v, "source": chip.sources[n]} for n, v in values.items() if v is not None},
    }


def operator_facts(os: str | None) -> list[tuple[OperatorFact, str]]:
    """What is known of each operator that release ``os`` has (any release if None), and its first release."""
    from compiler import hardware
    from compiler.dialects import mil

    facts = sorted(hardware.operators().values(), key=lambda f: f.operator)
    return [(f, mil.since(f.operator) or "") for f in facts if os is None or mil.supports(f.operator, os)]


def chip_facts(chip: Chip, os: str | None = None) -> dict[str, Any]:
    """All that is known of a chip: figures, operators of a release, limits, sources."""
    from compiler import hardware
    from compiler.hardware.facts import advice

    def limit(x: Any) -> dict[str, Any]:
        facts = {k: x.number(k, chip.tier) for k in x.facts}
        return {
            "id": x.id,
            "operators": sorted(x.operators) or "all",
            **facts,
            "text": x.text,
            "remedy": x.remedy,
            "source": x.source,
        }

    return {
        "chip": chip.name,
        **figures(chip),
        "operators": {
            f.operator: {
                "ane": f.on(chip.tier),
                "from": f.since,
                "release": since,
                "note": f.note,
                "remedy": f.remedy,
                "source": f.source,
            }
            for f, since in operator_facts(os)
        },
        "limits": [limit(x) for x in hardware.limits()],
        "advice": [limit(x) for x in advice()],
        "sources": {s.key: {"title": s.title, "route": s.route} for s in hardware.sources().values()},
    }


def _units(console: Console) -> None:
    from rich.table import Table

    from compiler.target import RELEASES, UNIT_TITLES, Target

    units = Table("--target", "unit", "precision", box=None, pad_edge=False)
    for unit, title in UNIT_TITLES.items():
        units.add_row(unit, title, Target.of(unit).precision)
    releases = Table("--os", "runs on", "specification", box=None, pad_edge=False)
    for name, (ios, macos, specification) in RELEASES.items():
        releases.add_row(name, f"iOS {ios}, macOS {macos} and later", str(specification))
    console.print(units)
    console.print()
    console.print(releases)
    console.print()


def _chips(console: Console) -> None:
    from rich.table import Table

    from compiler import hardware

    table = Table("chip", "ANE of", "operators", "ANE TFLOPS", "GPU TFLOPS", "memory GB/s", box=None, pad_edge=False)
    for chip in hardware.chips().values():
        taken = sum(f.on(chip.tier) for f in hardware.operators().values())
        speeds = (f"{x:g}" for x in (chip.ane_tflops, chip.gpu_tflops, chip.memory_gb_s))
        table.add_row(chip.name, chip.tier, f"{taken} of {len(hardware.operators())}", *speeds)
    console.print(table)
    console.print("\nplanish targets CHIP says which, with sources.", markup=False)


def _chip(console: Console, chip: Chip, os: str | None) -> None:
    from rich.table import Table

    from compiler import hardware
    from compiler.hardware.facts import advice

    console.print(f"{chip.title}: Neural Engine of the {chip.tier} generation", style="bold")
    table = Table("figure", "value", "source", box=None, pad_edge=False)
    for name, row in figures(chip).items():
        if name != "generation":
            table.add_row(name, f"{row['value']:g}", row["source"])
    console.print(table)
    rows: dict[tuple[bool, str, str, str], list[str]] = {}
    for f, _ in operator_facts(os):
        rows.setdefault((f.on(chip.tier), f.source, f.note, f.remedy), []).append(f.operator)
    for on, title in ((True, "\ntaken by the Neural Engine"), (False, "\nnot taken")):
        console.print(title, style="bold")
        table = Table("operators", "note" if on else "instead", "source", box=None, pad_edge=False)
        for (taken, source, note, remedy), names in rows.items():
            if taken == on:
                table.add_row(", ".join(names), note if on else f"{remedy}{f' ({note})' if note else ''}", source)
        console.print(table, markup=False)
    console.print("\nand of those taken, not these forms", style="bold")
    table = Table("limit", "operators", "what", "instead", "source", box=None, pad_edge=False)
    for x in (*hardware.limits(), *advice()):
        facts_here = {k: x.number(k, chip.tier) for k in x.facts}
        numbers = "; ".join(
            f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in facts_here.items()
        )
        table.add_row(x.id, ", ".join(sorted(x.operators)) or "all", numbers, x.remedy, x.source)
    console.print(table, markup=False)


def _sources(console: Console) -> None:
    from rich.table import Table

    from compiler import hardware

    console.print("\nsources (nothing was measured by this project)", style="bold")
    table = Table("", "route", "what", box=None, pad_edge=False)
    for s in hardware.sources().values():
        table.add_row(s.key, s.route, s.title)
    console.print(table, markup=False)
