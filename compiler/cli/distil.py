"""``planish distil MODEL``: a smaller student that learns from the model."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer


def distil_command(
    model: Annotated[Path, typer.Argument(help="The teacher, an ONNX model.", show_default=False)],
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE.npz|FOLDER|FILE.py:GENERATOR",
            help="What to learn from: inputs by name, an axis of samples in front. No labels are needed.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="STUDENT.onnx", help="The student.")],
    prune: Annotated[float | None, typer.Option(help="The share of channels to cut out of the student.")] = None,
    importance: Annotated[
        str, typer.Option(metavar="magnitude|activation|taylor", help="Which channels go: those of the least.")
    ] = "activation",
    quantize: Annotated[
        str | None, typer.Option(metavar="int8|int4", help="Let weights be rounded so while the student learns.")
    ] = None,
    shape: Annotated[list[str] | None, typer.Option(metavar="NAME=1,3,224,224", help="An input's shape.")] = None,
    steps: Annotated[int, typer.Option(help="Batches to learn from, at the most.", min=1)] = 1000,
    batch: Annotated[int, typer.Option(help="Samples in a batch.", min=1)] = 8,
    rate: Annotated[float, typer.Option(help="The learning rate at its height.", min=0.0)] = 1e-3,
    patience: Annotated[
        int, typer.Option(help="Judgements in a row that may bring nothing; 0 for any number.", min=0)
    ] = 0,
    every: Annotated[int, typer.Option(help="Steps between two judgements.", min=1)] = 50,
    temperature: Annotated[float, typer.Option(help="Of the outputs that a softmax makes.", min=1e-3)] = 2.0,
    features: Annotated[float, typer.Option(help="The weight of what layers attend to in the loss.", min=0.0)] = 0.0,
    loss: Annotated[
        str | None, typer.Option(metavar="FILE.py:FUNCTION", help="A loss of your own, a function of JAX.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples to take, at the most.", min=2)] = 4096,
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the checkpoint is kept.", show_default="STUDENT.work")
    ] = None,
) -> None:
    """Prune or round a model, and let it learn from the original what that cost. A killed run resumes."""
    from compiler import distil as distil_
    from compiler import shapes
    from compiler.cli.console import Lines
    from compiler.distil.train import Schedule
    from compiler.errors import UserError
    from compiler.export_package import save
    from compiler.target import known
    from passes.prune.importance import IMPORTANCES

    start = perf_counter()
    if not model.is_file():
        raise UserError(f"there is no model {model}")
    if prune is not None and not 0 < prune < 1:
        raise UserError(f"--prune {prune:g} is no share of channels between 0 and 1", "--prune 0.3")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise UserError(f"{output} is no file that the student could be written to", "-o STUDENT.onnx")
    if output.exists() and output.samefile(model):
        raise UserError(f"{output} is the teacher, which stays as it is", "-o with another name")
    bits = {"int8": 8, "int4": 4}[known("rounding of weights", quantize, ("int8", "int4"))] if quantize else None
    task = distil_.Task(
        model,
        data,
        work or output.with_suffix(".work"),
        Schedule(steps, batch, rate, every=every, patience=patience, seed=seed),
        dict(shapes.parse(s) for s in shape or ()),
        prune,
        known("importance", importance, IMPORTANCES),  # type: ignore[arg-type]  # it is one of them
        bits,
        temperature,
        features,
        loss,
        samples,
    )
    lines = Lines()

    def judged(step: int, learnt: float, held: float) -> None:
        text = f"  step {step:>6}  loss {learnt:.4g} while learning, {held:.4g} on samples held back"
        lines.console.print(text, markup=False)

    lines.begin("distil")
    try:
        done = distil_.distil(task, judged, lines.at)
    finally:
        lines.stop()
    save(done.model, output)
    macs, parameters = (100 * (1 - after / max(before, 1)) for before, after in (done.macs, done.parameters))
    typer.echo(f"  loss {done.before:.4g} → {done.after:.4g}, MACs −{macs:.0f} %, parameters −{parameters:.0f} %")
    if done.after >= done.before:
        typer.echo("  note: nothing was won back, and the student is as it was before it learnt; try a smaller --rate")
    typer.echo(f"{output} in {perf_counter() - start:.0f} s after {done.steps} steps")
