"""``planish bench PKG``: time on this machine, and estimates for a chip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.cli import findings


def bench_command(
    package: Annotated[Path, typer.Argument(help="A package, kernels or an ONNX model.", show_default=False)],
    inputs: Annotated[
        Path | None, typer.Option(metavar="IN.npz", help="Arrays by input name.", show_default="made up")
    ] = None,
    runs: Annotated[int, typer.Option(help="How many calls to time.", min=1)] = 50,
    batch: Annotated[
        str, typer.Option(metavar="1,4,8", help="Batch sizes to time too, where the package leaves the batch open.")
    ] = "",
    chip: Annotated[str, typer.Option(help="A12 to A18, M1 to M5: the chip to estimate for.")] = "A17",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write what was measured.")] = None,
) -> None:
    """Time a package on this machine, in onnxruntime, and print what a chip is estimated to take."""
    from compiler.errors import UserError
    from compiler.execution import timing
    from compiler.target import UNIT_TITLES

    try:
        sizes = [int(s) for s in batch.split(",") if s]
        if any(s < 1 for s in sizes):
            raise ValueError(batch)
    except ValueError:
        raise UserError(f"'{batch}' is no list of batch sizes", "--batch 1,4,8") from None
    found = timing.measure(package, inputs, runs, chip, sizes)
    where = "Metal kernels on this CPU" if found["kind"] == "kernels" else "onnxruntime on this machine"
    typer.echo(f"  {where}: loaded in {found['load_ms']:.0f} ms, first call {found['first_ms']:.2f} ms")
    for row in found["calls"]:
        what = f"batch {row['batch']}" if row["batch"] else "a call"
        times = ", ".join(f"{key} {ms:.2f} ms" for key, ms in row["ms"].items())
        typer.echo(f"  {what}: {times} of {row['runs']}; {row['per_second']:.1f} a second")
    for unit, said in found.get("estimated", {}).items():
        typer.echo(
            f"  {UNIT_TITLES[unit]} of {found['chip']}, estimated, not measured: {said['latency_ms']:.3g} ms, "
            f"{said['energy_mj']:.3g} mJ, {said['memory_mb']:.3g} MB"
        )
    findings.write_json(json, found)
