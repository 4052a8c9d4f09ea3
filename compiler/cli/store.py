"""``planish store``: versions of models and of what was compiled from them."""

from __future__ import annotations

import json as json_
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from compiler.store import Artifact, Store

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Keep models and what was compiled from them: versions, their origin, names, differences.",
)

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="The store.", show_default="$PLANISH_STORE, or planish.store here"),
]
ArtifactArgument = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="An identifier or its beginning, a tag, or @CHANNEL.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("add", no_args_is_help=True)
def add_command(
    path: Annotated[list[Path], typer.Argument(help="Models, packages or kernels.", show_default=False)],
    parent: Annotated[
        str | None, typer.Option(metavar="ARTIFACT", help="What it was made of.", show_default="found by its hash")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="What compile --json wrote.")] = None,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="How good it is.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(metavar="KEY=TEXT", help="How it was made.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A name that shall point to it.")] = None,
    store: StoreOption = None,
) -> None:
    """Keep models, packages or kernels; the same files are kept once."""
    from compiler.errors import UserError

    if len(path) > 1 and (report or metric or recipe or tag or parent):
        raise UserError("--parent, --report, --metric, --recipe and --tag are for one artifact", "one add for each")
    kept = _open(store, make=True)
    metrics = {name: _number(name, text) for name, text in map(_pair, metric or ())}
    for each in path:
        artifact = kept.add(
            each, parent=parent, report=report, metrics=metrics, recipe=dict(map(_pair, recipe or ())), tags=tag or ()
        )
        typer.echo(f"  {artifact.id[:14]}  {artifact.kind:<8}  {artifact.name}")
        if artifact.derived and artifact.parent is None and "name" in artifact.source:
            typer.echo(f"  note: the model it was compiled from, {artifact.source['name']}, is not in the store")


@app.command("list")
def list_command(json: JsonOption = False, store: StoreOption = None) -> None:
    """List the artifacts, the oldest first, with the names that point to them."""
    from rich.console import Console
    from rich.table import Table

    from compiler.report import megabytes

    kept = _open(store)
    artifacts = kept.all()
    if json:
        typer.echo(json_.dumps([_summary(kept, a) for a in artifacts], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "kind", "name", "size", "made of", "metrics", "names", "added"):
        table.add_column(column, no_wrap=True)
    for a in artifacts:
        metrics = ", ".join(f"{k} {v:g}" for k, v in a.metrics.items())
        names = ", ".join(kept.names.of(a.id))
        table.add_row(a.id[:14], a.kind, a.name, megabytes(a.size), (a.parent or "")[:14], metrics, names, a.added[:16])
    Console(highlight=False, width=1000).print(table)


@app.command("show", no_args_is_help=True)
def show_command(artifact: ArtifactArgument, store: StoreOption = None) -> None:
    """Print all that the store knows of an artifact, as JSON."""
    kept = _open(store)
    found = kept.get(artifact)
    typer.echo(json_.dumps({**_summary(kept, found), **json_.loads(found.to_json())}, indent=2))


@app.command("diff", no_args_is_help=True)
def diff_command(
    before: ArtifactArgument,
    after: ArtifactArgument,
    graph: Annotated[bool, typer.Option("--graph", help="Compare the programs line by line too.")] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show what changed between two artifacts: how they were made, graph, size, accuracy."""
    from compiler.report import megabytes
    from compiler.store import difference

    kept = _open(store)
    found = difference(kept, kept.get(before), kept.get(after), graph)
    if json:
        typer.echo(json_.dumps(found, indent=2))
        return
    old, new = found["bytes"]["total"]
    typer.echo(
        f"  size: {megabytes(old)} → {megabytes(new)}, {megabytes(found['bytes']['shared'])} of it the same files"
    )
    for section in ("made", "ops", "estimates", "errors", "metrics"):
        for key, (a, b) in found[section].items():
            typer.echo(f"  {section}: {key}: {_text(a)} → {_text(b)}{_change(a, b)}")
    for line in found.get("graph", ()):
        typer.echo(line)


@app.command("get", no_args_is_help=True)
def get_command(
    artifact: ArtifactArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where it goes; nothing may stand there.")],
    store: StoreOption = None,
) -> None:
    """Write an artifact to a path."""
    typer.echo(f"  {_open(store).check_out(artifact, output)}")


@app.command("tag", no_args_is_help=True)
def tag_command(
    artifact: ArtifactArgument,
    name: Annotated[str, typer.Argument(help="The tag.")],
    store: StoreOption = None,
) -> None:
    """Let a tag point to an artifact, whatever it pointed to before."""
    _open(store).tag(artifact, name)


@app.command("promote", no_args_is_help=True)
def promote_command(
    artifact: ArtifactArgument,
    channel: Annotated[str, typer.Argument(help="The channel, such as production.")],
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why.")] = "",
    unproven: Annotated[bool, typer.Option("--unproven", help="Even if no report says that it was proven.")] = False,
    store: StoreOption = None,
) -> None:
    """Put an artifact at the head of a channel, which remembers what it pointed to before."""
    found = _open(store).promote(artifact, channel, note, unproven)
    typer.echo(f"  @{channel} → {found.id[:14]}  {found.name}")


@app.command("rm", no_args_is_help=True)
def rm_command(artifact: ArtifactArgument, store: StoreOption = None) -> None:
    """Drop an artifact that no name points to and of which nothing was made."""
    found = _open(store).remove(artifact)
    typer.echo(f"  dropped {found.id[:14]}  {found.name}; planish store gc frees its files")


@app.command("gc")
def gc_command(
    untagged: Annotated[
        bool, typer.Option("--untagged", help="Drop derived artifacts to which no name leads, too.")
    ] = False,
    older_than: Annotated[float, typer.Option(metavar="DAYS", help="With --untagged: only older ones.", min=0)] = 0.0,
    store: StoreOption = None,
) -> None:
    """Free what no artifact needs."""
    from compiler.report import megabytes

    done = _open(store).collect(untagged, older_than)
    artifacts = f"{len(done.artifacts)} artifacts, " if untagged else ""
    typer.echo(f"  dropped {artifacts}{done.objects} files ({megabytes(done.bytes)}), {done.drafts} drafts")


@app.command("verify")
def verify_command(store: StoreOption = None) -> None:
    """Read everything again and compare it with its hashes; exit code 1 if something is wrong."""
    kept = _open(store)
    problems = kept.verify()
    for problem in problems:
        typer.echo(f"  {problem.where}: {problem.what}")
    if problems:
        raise typer.Exit(1)
    typer.echo(f"  {len(kept.all())} artifacts, all whole")


def _open(given: Path | None, make: bool = False) -> Store:
    from compiler.store import Store

    return Store.open(given or os.environ.get("PLANISH_STORE") or "planish.store", make)


def _summary(store: Store, artifact: Artifact) -> dict[str, Any]:
    keys = ("kind", "name", "parent", "added")
    said: Mapping[str, Any] = {key: getattr(artifact, key) for key in keys}
    metrics = dict(artifact.metrics)
    return {"id": artifact.id, **said, "bytes": artifact.size, "metrics": metrics, "names": store.names.of(artifact.id)}


def _pair(text: str) -> tuple[str, str]:
    from compiler.errors import UserError

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UserError(f"'{text}' is no NAME=VALUE", "--metric accuracy=0.97 --recipe quantize=int8")
    return key, value


def _number(name: str, text: str) -> float:
    from compiler.errors import UserError

    try:
        return float(text)
    except ValueError:
        raise UserError(f"the metric '{name}' is '{text}', not a number", f"--metric {name}=0.97") from None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value[:14] if len(value) > 40 else value
    return f"{value:.4g}" if isinstance(value, float) else "—" if value is None else str(value)


def _change(a: Any, b: Any) -> str:
    """`` (-72.9 %)`` for two numbers."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (a, b))
    return f" ({100 * (b - a) / abs(a):+.1f} %)" if numbers and a else ""
