"""Rule files → stages: loading, checking, ordering, and the index that the driver asks for candidates."""

from __future__ import annotations

import functools
import hashlib
import heapq
import importlib
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import UserError
from compiler.ir import Block, Function, Module, Op, suggest
from compiler.rewrite import syntax as s
from compiler.rewrite.build import Build, compile_build
from compiler.rewrite.diagnostics import Diagnostic, RuleError
from compiler.rewrite.expressions import ExpressionCompiler
from compiler.rewrite.matcher import Matcher, MatcherCompiler, anchor_keys
from compiler.rewrite.resolve import Resolver
from compiler.rewrite.resolve_names import Environment, Variant

if TYPE_CHECKING:
    from compiler.rewrite.driver import Report

#: The rules that come with the compiler.
LIBRARY = Path(__file__).resolve().parents[2] / "rules"


class Entry:
    """A variant of a rule as the driver runs it. Its Python functions are generated when it is first a candidate: a
    model uses few of the rules.

    Attributes:
        keys: for each operator that can be the anchor, which producers its operands must have (None: any): the cheap
            test by which candidates are picked.
    """

    def __init__(self, variant: Variant, library: Library) -> None:
        self.rule = variant.rule
        self.variant = variant
        self.library = library
        self.keys, self.commutative = anchor_keys(variant)

    @functools.cached_property
    def matcher(self) -> Matcher:
        return MatcherCompiler(self.variant, self._expressions, self.library.traced).compile()

    @functools.cached_property
    def builds(self) -> tuple[Build, ...]:
        """The builder of each rewrite of the variant."""
        v, names, externs = self.variant, self.matcher.names, self.library.externs
        return tuple(compile_build(v, i, names, self._expressions, externs) for i in range(len(v.rewrites)))

    @functools.cached_property
    def _expressions(self) -> ExpressionCompiler:
        return ExpressionCompiler(self.library.env, self.library.externs)

    def width(self, name: str) -> int:
        """How many operands the cheap test looks at."""
        needs = len(self.keys[name])
        return max(needs, 2) if needs and name in self.commutative else needs

    def admits(self, name: str, key: tuple[str | None, ...]) -> bool:
        """Whether an operator called ``name``, with operands made by the operators in ``key``, can be the anchor."""
        needs = self.keys[name]
        if len(key) < len(needs):
            return False
        if all(n is None or k in n for n, k in zip(needs, key)):
            return True
        if name not in self.commutative or len(key) < 2:
            return False
        first, second, *rest = (*needs, None) if len(needs) == 1 else needs
        return all(n is None or k in n for n, k in zip((second, first, *rest), key))


@dataclass(slots=True)
class _Slot:
    """The entries that can start at one kind of operator, and which of them its operands' producers admit."""

    name: str
    width: int
    entries: tuple[Entry, ...]
    admitted: dict[tuple[str | None, ...], tuple[Entry, ...]] = field(default_factory=dict)

    def admit(self, key: tuple[str | None, ...]) -> tuple[Entry, ...]:
        found = tuple(e for e in self.entries if e.admits(self.name, key))
        self.admitted[key] = found
        return found


class Stage:
    """The rules of one stage, compiled into one index by operator.

    Attributes:
        rules: in the order in which they are tried on an operator.
        depth: the longest chain of operators that a pattern looks at.
        below: for operators that start a rule, how many levels below it the patterns look.
        between: the same for operators inside patterns, from where they stand.
        roots: operators that start a rule with several roots.
    """

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        self.name = name
        self.entries = tuple(entries)
        self.rules = tuple(dict.fromkeys(e.rule.name for e in entries))
        self.below: dict[str, int] = {}
        self.between: dict[str, int] = {}
        for e in entries:
            _measure(e.variant, self.below, self.between)
        self.depth = max(self.below.values(), default=1)
        by_name: dict[str, list[Entry]] = {}
        self.roots: set[str] = set()
        for e in entries:
            for op in e.keys:
                by_name.setdefault(op, []).append(e)
                if len(e.variant.anchors) > 1:
                    self.roots.add(op)
        self._slots = {op: _Slot(op, max(e.width(op) for e in found), tuple(found)) for op, found in by_name.items()}

    def candidates(self, op: Op) -> tuple[Entry, ...]:
        """The entries whose cheap test ``op`` passes, in order."""
        slot = self._slots.get(op.defn.name)
        if slot is None:
            return ()
        if slot.width == 0:
            return slot.entries
        key = tuple([None if v is None or (p := v.op) is None else p.defn.name for v in op.operands[: slot.width]])
        found = slot.admitted.get(key)
        return slot.admit(key) if found is None else found

    def starts_at(self, op: Op) -> bool:
        """Whether any rule of the stage can start at ``op``."""
        return op.defn.name in self._slots


def _measure(v: Variant, below: dict[str, int], between: dict[str, int]) -> None:
    """Enters how many levels the operators of a variant's patterns look down, its roots' into ``below``."""
    named = {t.id: stmt.pattern for stmt in v.statements for t in stmt.targets}

    def of(p: Any, seen: int, into: dict[str, int]) -> int:
        if isinstance(p, s.ValuePattern) and p.id in named and seen < len(named):
            return of(named[p.id], seen + 1, into)
        if isinstance(p, s.NamedOperand):
            return of(p.pattern, seen, into)
        if isinstance(p, s.OpPattern):
            levels = 1 + max((of(a, seen, between) for a in p.args), default=0)
            for name in p.names:
                into[name] = max(into.get(name, 0), levels)
            return levels
        return 0

    for i in v.anchors:
        of(v.statements[i].pattern, 0, below)


class Library:
    """Rules loaded together. Stages are compiled when they are first asked for."""

    def __init__(
        self,
        files: Sequence[s.RuleFile],
        disabled: Iterable[str] = (),
        traced: bool = False,
        checked: bool = False,
    ) -> None:
        """Resolves all rules.

        Args:
            checked: rules that do not come with the compiler are also checked as :mod:`compiler.rewrite.check` does at
                load, when their stage is compiled.

        Raises:
            RuleError: rules are wrong; all findings at once.
            UserError: a disabled rule does not exist.
        """
        self.files = list(files)
        self.sources = {f.path: f.source for f in files}
        self.traced = traced
        self.checked = checked
        self.env = Environment()
        for f in files:
            self.env.add(f)
        self.rules: dict[str, s.Rule] = {}
        self._files: dict[str, s.RuleFile] = {}
        findings: list[Diagnostic] = []
        for f in files:
            for r in f.rules:
                if r.name in self.rules:
                    first = self.rules[r.name]
                    message = f"rule '{r.name}' stands already in {first.file}:{first.pos.line}; choose another name"
                    findings.append(Diagnostic(f.path, r.name_pos, message, code="duplicate"))
                self.rules[r.name] = r
                self._files[r.name] = f
        self.disabled = tuple(disabled)
        for name in self.disabled:
            if name not in self.rules:
                raise UserError(
                    f"no rule is called '{name}'{suggest(name, self.rules)}", "planish rules doc lists them"
                )
        if findings:
            raise RuleError(findings, self.sources)
        self._stages: dict[str, Stage] = {}
        self.externs: Mapping[str, Callable[..., Any]] = _LazyExterns(self)
        self._imported: dict[str, Callable[..., Any]] = {}
        self.warnings: list[Diagnostic] = []

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all stages that have rules."""
        return tuple(dict.fromkeys(r.stage for r in self.rules.values()))

    @property
    def hash(self) -> str:
        """Identifies the set of rules: the same text gives the same hash."""
        h = hashlib.sha256()
        for f in sorted(self.files, key=lambda f: Path(f.path).name):
            h.update(f.source.encode())
        h.update("\0".join(sorted(self.disabled)).encode())
        return h.hexdigest()

    def stage(self, name: str) -> Stage:
        """The compiled stage; an empty one if no rule joins it.

        Raises:
            RuleError: a rule of the stage is wrong; all findings of the stage at once.
        """
        found = self._stages.get(name)
        if found is None:
            found = self._stages[name] = self.compile([r for r in self.rules.values() if r.stage == name], name)
        return found

    def rewrite(self, scope: Module | Function | Block, stage: str, target: Any = None, **options: Any) -> Report:
        """Applies a stage to everything in ``scope``; see :func:`compiler.rewrite.driver.rewrite`."""
        from compiler.rewrite.driver import rewrite  # the driver runs stages, and so imports this module

        return rewrite(scope, self.stage(stage), target, **options)

    def check(self) -> list[Diagnostic]:
        """All findings in all rules, warnings included."""
        out: list[Diagnostic] = []
        for name in dict.fromkeys(r.stage for r in self.rules.values()):
            try:
                self.compile([r for r in self.rules.values() if r.stage == name], name, whole=True)
            except RuleError as e:
                out.extend(e.diagnostics)
        return [*out, *dict.fromkeys(self.warnings)]

    def compile(self, rules: Sequence[s.Rule], name: str, whole: bool = False) -> Stage:
        """Resolves rules into a stage; a user's rules, or all if ``whole``, are also compiled, to find all errors."""
        findings: list[Diagnostic] = []
        entries: list[Entry] = []
        for rule in _ordered([r for r in rules if r.name not in self.disabled], findings):
            resolver = Resolver(self.env, self._files[rule.name])
            variants = resolver.rule(rule)
            findings.extend(d for d in resolver.diagnostics if d.severity == "error")
            self.warnings.extend(d for d in resolver.diagnostics if d.severity == "warning")
            for v in variants:
                entry = Entry(v, self)
                entries.append(entry)
                if not whole and self._files[rule.name].builtin:
                    continue
                try:
                    _ = entry.builds
                except (ValueError, UserError) as e:
                    findings.append(Diagnostic(rule.file, rule.name_pos, f"rule '{rule.name}': {e}", code="compile"))
        own = [e for e in entries if self.checked and not self._files[e.rule.name].builtin]
        if own and not findings:
            from compiler.rewrite.check import at_load  # which builds on this module

            findings = at_load(entries, own, name)
        if findings:
            raise RuleError(findings, self.sources)
        return Stage(name, entries)

    def ordered(self, stage: str) -> tuple[list[s.Rule], list[Diagnostic]]:
        """The rules of a stage that are not disabled, in the order in which they are tried, and what contradicts it."""
        findings: list[Diagnostic] = []
        rules = [r for r in self.rules.values() if r.stage == stage and r.name not in self.disabled]
        return _ordered(rules, findings), findings

    def file_of(self, rule: str) -> s.RuleFile:
        """The file that a rule stands in."""
        return self._files[rule]

    def extern(self, name: str) -> Callable[..., Any]:
        """The Python function that ``name`` stands for: one declared by ``extern``, or a dotted path.

        Raises:
            UserError: it cannot be imported.
        """
        found = self._imported.get(name)
        if found is None:
            declared = self.env.externs.get(name)
            module, _, attribute = (f"{declared.module}.{name}" if declared else name).rpartition(".")
            try:
                found = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as e:
                raise UserError(f"Python function '{attribute}' cannot be imported from '{module}': {e}") from None
            self._imported[name] = found
        return found


class _LazyExterns(dict[str, Callable[..., Any]]):
    """Imports a Python function when generated code first refers to it."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        self.library = library

    def __missing__(self, name: str) -> Callable[..., Any]:
        return self.library.extern(name)


def _size(p: Any) -> int:
    if isinstance(p, s.OpPattern):
        return 1 + sum(_size(a.pattern if isinstance(a, s.NamedOperand) else a) for a in p.args)
    return max((_size(c) for c in p.choices), default=0) if isinstance(p, s.Alternatives) else 0


def _ordered(rules: Sequence[s.Rule], findings: list[Diagnostic]) -> list[s.Rule]:
    """Larger patterns first, then as written; ``before`` and ``after`` override both."""
    ranked = sorted(rules, key=lambda r: -sum(_size(m.pattern) for m in r.match))
    by_name = {r.name: r for r in ranked}
    if not any(r.before or r.after for r in ranked):
        return ranked
    position = {r.name: i for i, r in enumerate(ranked)}
    edges = {(r.name, other) for r in ranked for other in r.before if other in by_name}
    edges |= {(other, r.name) for r in ranked for other in r.after if other in by_name}
    following: dict[str, list[str]] = {n: [] for n in by_name}
    waits = dict.fromkeys(by_name, 0)
    for first, second in edges:
        following[first].append(second)
        waits[second] += 1
    ready = [position[n] for n, count in waits.items() if not count]
    heapq.heapify(ready)
    out: list[s.Rule] = []
    while ready:
        rule = ranked[heapq.heappop(ready)]
        out.append(rule)
        for name in following[rule.name]:
            waits[name] -= 1
            if not waits[name]:
                heapq.heappush(ready, position[name])
    if len(out) < len(ranked):
        import networkx as nx  # importing it takes 0.1 s

        cycle = [a for a, _ in nx.find_cycle(nx.DiGraph(sorted(edges)))]
        rule = by_name[cycle[0]]
        message = f"'before' and 'after' contradict each other: {' → '.join(cycle)}"
        findings.append(Diagnostic(rule.file, rule.name_pos, message))
        return ranked
    return out


# ---- loading


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
    extra: Iterable[str | Path] = (), disabled: Iterable[str] = (), *, builtin: bool = True, traced: bool = False
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
    files = _cached_library() if builtin else []
    packaged = _packaged() if builtin else []
    return Library([*files, *(read_rules(Path(p)) for p in (*packaged, *extra))], disabled, traced, checked=True)


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
    for module in ("syntax.py", "parse.py", "parse_terms.py", "parse_tree.py"):
        h.update(Path(__file__).with_name(module).read_bytes())
    for p, text in zip(paths, sources):
        h.update(f"{p.name}\0{text}\0".encode())
    import platformdirs

    cache = Path(platformdirs.user_cache_dir("planish")) / f"rules-{sys.version_info.minor}-{h.hexdigest()[:24]}.pickle"
    try:
        files: list[s.RuleFile] = pickle.loads(cache.read_bytes())
    except Exception:  # a missing, stale or damaged cache is no error: the files are parsed again
        from compiler.rewrite.parse import parse  # and with it lark, which a run that finds its cache does not need

        files = [parse(text, f"rules/{p.name}") for p, text in zip(paths, sources)]
        for f in files:
            f.builtin = True
        _store(cache, pickle.dumps(files))
    return files


def _store(path: Path, content: bytes) -> None:
    """Writes a cache file whole or not at all; without a place to write, nothing is cached."""
    temporary = path.with_suffix(f".{hash(content) & 0xFFFFFF:x}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
