"""Rule files from disk: the compiler's own, those of installed packages, and a user's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from compiler.errors import UserError
from compiler.rewrite import syntax as s
from compiler.rewrite.cache import kept
from compiler.rewrite.library import Library

#: The rules that come with the compiler.
LIBRARY = Path(__file__).resolve().parents[2] / "rules"


def read_rules(path: Path) -> s.RuleFile:
    """Reads and parses one rule file.

    Raises:
        UserError: it cannot be read.
        RuleError: it does not follow the grammar.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"rule file {path} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"rule file {path} is not UTF-8 text") from None
    from compiler.rewrite.parse import parse

    return parse(source, str(path))


def load_library(
    extra: Sequence[str | Path] = (), disabled: Iterable[str] = (), *, builtin: bool = True, traced: bool = False
) -> Library:
    """The rules that come with the compiler, those that installed packages bring, and those of further files.

    A package brings rules by an entry point of the group ``planish.rules``: its value is a package or module beside
    which ``*.rules`` files lie, or a function that gives their paths.

    Args:
        extra: rule files that join the stages they name.
        disabled: rules to leave out, by name.
        builtin: False leaves out the compiler's own rules and those of packages.
        traced: compile matchers that can say why they fail.

    Raises:
        UserError: a file cannot be read.
        RuleError: a file is wrong.
    """
    own = [read_rules(Path(p)) for p in extra]
    files: list[s.RuleFile] = []
    if builtin:
        given = {Path(p).resolve() for p in extra}
        packaged = [read_rules(p) for p in _packaged() if p.resolve() not in given]  # its author may be at work on one
        for f in packaged:
            f.packaged = True
        files = [*_cached_library(), *packaged]
    return Library([*files, *own], disabled, traced, checked=True)


#: The group of entry points by which packages bring rules.
ENTRY_POINTS = "planish.rules"


def _packaged() -> list[Path]:
    """The rule files of installed packages, in the order of the entry points' names.

    Raises:
        UserError: an entry point cannot be loaded, or leads to no rules.
    """
    from importlib.metadata import entry_points

    out: list[Path] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        origin = f"the rules '{point.name}' that package {point.dist.name if point.dist else '?'} brings"
        try:
            found = point.load()
        except Exception as e:  # what a package does on import is its own
            raise UserError(f"{origin} cannot be loaded: {e}", "reinstall or remove the package") from e
        if callable(found):
            paths = [Path(p) for p in found()]
        else:
            folders = [Path(p) for p in getattr(found, "__path__", ())] or [Path(found.__file__).parent]
            paths = sorted(p for folder in folders for p in folder.glob("*.rules"))
        if not paths:
            raise UserError(f"{origin} are no files", "reinstall or remove the package")
        out.extend(paths)
    return out


def _cached_library() -> list[s.RuleFile]:
    """The compiler's own rule files, parsed; kept between runs in the user's cache, by content."""
    paths = sorted(LIBRARY.glob("*.rules"))
    sources = [p.read_text(encoding="utf-8") for p in paths]
    h = hashlib.sha256(s.GRAMMAR.read_bytes())
    for module in (
        "syntax.py",
        "syntax_expressions.py",
        "syntax_patterns.py",
        "parse.py",
        "parse_terms.py",
        "parse_tree.py",
    ):
        h.update(Path(__file__).with_name(module).read_bytes())
    for p, text in zip(paths, sources):
        h.update(f"{p.name}\0{text}\0".encode())

    def parsed() -> list[s.RuleFile]:
        from compiler.rewrite.parse import parse  # and with it lark, which a run that finds its cache does not need

        files = [parse(text, f"rules/{p.name}") for p, text in zip(paths, sources)]
        for f in files:
            f.builtin = True
        return files

    return kept(f"rules-{h.hexdigest()[:24]}", parsed)
