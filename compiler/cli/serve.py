"""``planish serve PKG``: a package that answers over a pipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve_command(
    package: Annotated[Path, typer.Argument(help="An ML Program, whoever wrote it, or kernels.", show_default=False)],
    function: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which function.", show_default="the package's default")
    ] = None,
    max_frame: Annotated[int, typer.Option(metavar="MIB", help="The largest request in MiB.", min=1, max=4095)] = 1024,
) -> None:
    """Load a package once and answer requests on standard input: frames of tensors, for programs (docs/serve.md)."""
    import os
    import sys

    # What libraries print must not get between frames: standard output of everyone else is standard error.
    sink = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        from compiler.serving.loaded import Loaded
        from compiler.serving.server import Server

        Server(Loaded(package, function), sys.stdin.buffer, sink, max_frame << 20).run()
    except BrokenPipeError:
        return  # whoever asked has gone
    except KeyboardInterrupt:
        # SIGTERM and Ctrl-C are the usual ways to end a server.
        os._exit(0)
