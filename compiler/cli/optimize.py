"""``planish optimize MODEL``: smaller step by step, with a metric as the judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli import findings

if TYPE_CHECKING:
    from compiler.ladder import Found, Trial


def optimize_command(
    model: Annotated[Path, typer.Argument(help="The ONNX model.", show_default=False)],
    data: findings.SamplesOption,
    metric: Annotated[
        str,
        typer.Option(metavar="NAME|FILE.py:FUNCTION", help="agreement, error, accuracy, or a function of your own."),
    ] = "agreement",
    max_drop: Annotated[str, typer.Option(help="How much worse it may be: 1% of the original's, or 0.01.")] = "1%",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The package.", show_default="MODEL.mlpackage here")
    ] = None,
    target: Annotated[str, typer.Option(help="ane, gpu or cpu: the unit to shape the package for.")] = "ane",
    os: Annotated[str, typer.Option(help="ios16, ios17, ios18 or ios26: the oldest release to run on.")] = "ios18",
    chip: Annotated[str, typer.Option(help="A12 to A18, M1 to M5: the chip to estimate for.")] = "A17",
    shape: Annotated[list[str] | None, typer.Option(metavar="NAME=1,3,224,224", help="An input's shape.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Inputs to compress by.", show_default="some of the samples")
    ] = None,
    learn: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npz|FOLDER|FILE.py:GENERATOR",
            help="What pruned models learn from.",
            show_default="the samples that do not judge",
        ),
    ] = None,
    learn_steps: Annotated[int, typer.Option(help="Batches that a pruned model learns from.", min=1)] = 300,
    lower_is_better: findings.LowerIsBetterOption = False,
    step: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these steps.")] = None,
    explore: Annotated[
        int, typer.Option(metavar="N", help="Then try N other combinations; needs the extra 'explore'.", min=0)
    ] = 0,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where steps are kept.", show_default="MODEL.ladder here")
    ] = None,
    json: findings.JsonOption = None,
    page: findings.PageOption = None,
) -> None:
    """Try to make a model smaller and faster, from mild to strong; keep each step only if the metric allows it."""
    from compiler import ladder as ladder_
    from compiler import shapes
    from compiler.errors import UserError, VerificationError
    from compiler.ladder import page as page_
    from compiler.target import Target

    for path in (model, data):
        if not path.is_file():
            raise UserError(f"there is no file {path}")
    package = output or Path(f"{model.stem}.mlpackage")
    for option, place in (("-o", package), ("--json", json), ("--report", page)):
        if place is not None and not place.absolute().parent.is_dir():
            raise UserError(f"there is no folder for {place}", f"{option} in a folder that exists")
    if target == "metal":
        raise UserError("Metal kernels take no compressed weights yet", "--target gpu")
    todo = ladder_.Ladder(
        model,
        data,
        metric,
        max_drop,
        Target.of(target, os, chip=chip),
        dict(shapes.parse(s) for s in shape or ()),
        calibrate,
        False if lower_is_better else None,
        step or (),
        work or Path(f"{model.stem}.ladder"),
        learn,
        learn_steps,
    )
    lines = _Lines(metric)
    found = ladder_.climb(todo, lines.tried, explore, lines.learning)
    names = [t.step.name for t in found.front]
    if names:
        typer.echo(f"  beaten by none in size, latency and {metric.rpartition(':')[2]}: {', '.join(names)}")
    findings.write_json(json, found.to_json())
    if page is not None:
        page_.write(page, found)
    if found.best is None:
        raise VerificationError(
            f"no step keeps the {metric} within {max_drop} of the original's {found.original:.4g}",
            "a larger --max-drop",
        )
    _publish(found, package)


class _Lines:
    """A table of trials as they are made, under its head."""

    def __init__(self, metric: str) -> None:
        score = metric.rpartition(":")[2]
        self._head = f"  {'step':<28}{'size':>10}{'latency':>12}{'MACs':>10}  {score:>28}{'drop':>11}"

    def _line(self, text: str) -> None:
        if self._head:
            typer.echo(self._head)
            self._head = ""
        typer.echo(text)

    def tried(self, trial: Trial, again: bool) -> None:
        from compiler.report import megabytes

        m = trial.measured
        if m.refused:
            self._line(f"  {trial.step.name:<28}refused: {m.refused}")
            return
        score = f"{trial.score:.4g} [{trial.low:.4g}, {trial.high:.4g}]"
        end = "kept" if trial.kept else f"rolled back: {trial.why}"
        self._line(
            f"  {trial.step.name:<28}{megabytes(m.bytes):>10}{m.latency_ms:>9.3g} ms{m.macs / 1e6:>8.4g} M  "
            f"{score:>28}{trial.drop:>11.3g}  {end}{' (measured before)' if again else ''}"
        )

    def learning(self, step: int, learnt: float, judged: float) -> None:
        self._line(f"    learning, step {step:>5}: loss {learnt:.4g}, {judged:.4g} on samples held back")


def _publish(found: Found, path: Path) -> None:
    """Puts the best package at its place; the steps stay where they are."""
    import shutil

    from compiler.output import Output
    from compiler.report import megabytes

    best = found.best
    assert best is not None
    with Output(path) as out:
        shutil.copytree(best.measured.package, out.draft)
        out.publish()
    size, ms = megabytes(best.measured.bytes), best.measured.latency_ms
    typer.echo(
        f"{path}: {best.step.name}, {size}, about {ms:.3g} ms (estimated), "
        f"{found.ladder.metric} {best.score:.4g} of the original's {found.original:.4g} on {found.samples} samples"
    )
