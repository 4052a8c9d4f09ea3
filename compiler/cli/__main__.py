"""``python -m compiler.cli`` is ``compile``."""

from compiler.cli import compile_main

compile_main()
