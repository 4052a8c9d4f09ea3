"""``planish rules check``, ``fmt``, ``doc``, ``new``, ``lsp``: for those who write rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from compiler.rewrite.library import Library

Files = Annotated[list[Path] | None, typer.Argument(metavar="[FILE]…", show_default="the compiler's own rules")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("check")(check_command)
    app.command("fmt")(fmt_command)
    app.command("doc")(doc_command)
    app.command("new")(new_command)
    app.command("lsp")(lsp_command)


def _library(files: list[Path] | None) -> Library:
    from compiler.proving.library import library_of

    return library_of(files or ())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def check_command(
    files: Files = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    overlaps: Annotated[
        bool, typer.Option(help="Also find pairs of rules whose order decides what comes out.")
    ] = False,
) -> None:
    """Find what is wrong with rules without running them. Exit code 2 if there are errors."""
    from compiler.rewrite.check import check
    from compiler.rewrite.diagnostics import RuleError
    from compiler.rewrite.load import LIBRARY

    own = [f for f in files or () if f.resolve().parent != LIBRARY]
    wanted = [str(f) if f in own else f"rules/{f.name}" for f in files] if files else None
    try:
        library = _library(own)
        found = check(library, wanted, overlaps)
        sources = library.sources
    except RuleError as e:
        found, sources = e.diagnostics, e.sources
    if as_json:
        typer.echo(json.dumps([d.as_json() for d in found], indent=2, ensure_ascii=False))
    else:
        for d in found:
            typer.echo(d.render(sources.get(d.file, "")))
    errors = sum(d.severity == "error" for d in found)
    if not as_json:
        typer.echo(f"{_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}")
    if errors:
        raise typer.Exit(2)


def fmt_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if something would change.")
    ] = False,
) -> None:
    """Put rule files in the one layout; comments are kept."""
    from compiler.rewrite.format import format_rules
    from compiler.rewrite.load import read_rules

    changed = []
    for path in files:
        source = read_rules(path).source
        text = format_rules(source, str(path))
        if text != source:
            changed.append(path)
            if not check:
                path.write_text(text, encoding="utf-8")
    for path in changed:
        typer.echo(f"{'would change' if check else 'formatted'} {path}")
    if check and changed:
        raise typer.Exit(1)


def doc_command(
    files: Files = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="OUT.html or OUT.md.", show_default="Markdown, printed")
    ] = None,
) -> None:
    """Write a catalogue of the rules, those of FILE included, with drawings (in HTML) of what each rewrites."""
    from compiler.errors import UserError
    from compiler.rewrite.catalogue import html, markdown

    library = _library(files)
    if output is None:
        typer.echo(markdown(library))
        return
    text = html(library) if output.suffix in (".html", ".htm") else markdown(library)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write {output}: {e.strerror}", "another folder, with --output") from e


def new_command(
    source: Annotated[Path, typer.Option("--from", metavar="MODEL.onnx", help="The model.", show_default=False)],
    nodes: Annotated[
        str, typer.Option(metavar="A,B,C", help="Names of nodes or of their outputs.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="The rule's name.")] = "my_rule",
    stage: Annotated[str, typer.Option(help="The stage it joins.")] = "fuse",
    to: Annotated[str | None, typer.Option(help="The operator to put in their place.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", show_default="printed")] = None,
) -> None:
    """Draft a rule from nodes of a model, as its stage finds them: the pattern, constants as literals or const,
    conditions on uses."""
    from compiler import stages
    from compiler.errors import UserError
    from compiler.ir import suggest
    from compiler.options import Options
    from compiler.rewrite.draft import draft
    from compiler.target import Target

    if stage not in stages.SEEN:
        remedy = f"one of {', '.join(stages.SEEN)}"
        raise UserError(f"no rules are drafted for a stage '{stage}'{suggest(stage, stages.SEEN)}", remedy)
    shapes: Any = None  # what is open stays open
    seen = stages.seen_by(stage, source, Options(Target.of("ane"), shapes), _library(None))
    text = draft(seen, [n.strip() for n in nodes.split(",")], name, stage, to)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def lsp_command() -> None:
    """Serve editors: diagnostics, hover, completion, definitions, over standard input and output."""
    from compiler.errors import UserError

    try:
        from compiler.rewrite.lsp import serve
    except ImportError as e:
        raise UserError(f"the language server needs {e.name}", "pip install 'planish[editor]'") from e
    _library(None)  # registers the operators that rules name, and what those of packages mean
    serve()
