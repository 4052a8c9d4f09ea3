"""The command line's fixtures, for tests of what is asked for there."""

from tests.cli.test_cli import compile_, planish

__all__ = ["compile_", "planish"]
