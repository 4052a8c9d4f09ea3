"""``planish rules``: what one does with rules. Each command stands beside what it works on and is plugged in here."""

from __future__ import annotations

import typer

from compiler import cli_rules_prove, cli_rules_write

app = typer.Typer(
    no_args_is_help=True,
    help="Check, prove, explain, test, measure, format and document rules.",
)
cli_rules_prove.register(app)
cli_rules_write.register(app)
