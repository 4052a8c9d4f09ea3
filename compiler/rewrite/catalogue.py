"""``planish rules doc``: a page of all rules: what each looks for, what it puts there, and on what terms."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from compiler.rewrite import syntax as s
from compiler.rewrite.check_terms import terms
from compiler.rewrite.drawing import drawing
from compiler.rewrite.explain import known_rule
from compiler.rewrite.library import Library
from compiler.rewrite.load import LIBRARY
from compiler.rewrite.resolve import Resolver
from compiler.rewrite.resolve_names import Variant

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem 2rem; color: #1c2026; }
h1, h2, h3 { line-height: 1.2 } h3 { font-family: ui-monospace, monospace; font-size: 1rem; margin: 2rem 0 0 }
nav a { margin-right: .8rem } .algebra { color: #444; margin: .2rem 0 } .from { color: #777; font-size: .85rem }
pre { background: #f5f6f8; padding: .6rem .8rem; overflow-x: auto; font-size: .82rem }
.pair { display: flex; gap: 1.5rem; align-items: center; overflow-x: auto; padding: .3rem 0 }
svg.graph path { fill: none; stroke: #8a94a6 }
svg.graph text { font: 12px ui-monospace, monospace; text-anchor: middle }
svg.graph rect { fill: #fff; stroke: #8a94a6 } svg.graph rect.operator { fill: #e8f0fe; stroke: #4472c4 }
svg.graph rect.constant { fill: #fff4de; stroke: #c98a1b } svg.graph rect.root { stroke-width: 2.5 }
@media (prefers-color-scheme: dark) { body { background: #16181d; color: #dde } pre { background: #22252c }
  .algebra { color: #bbc } svg.graph text { fill: #111 } svg.graph rect { fill: #cdd3de } a { color: #8ab4f8 } }
"""
_CONTRACT = {
    "exact": "exact: every bit is kept",
    "rounding": "rounding: as good as the original, rounded elsewhere",
}


def markdown(library: Library) -> str:
    """The catalogue as Markdown."""
    out = ["# Rules", "", f"{len(library.rules)} rules in {len(library.stages)} stages."]
    for stage, files in _grouped(library):
        out += ["", f"## Stage {stage}"]
        for path, rules in files:
            out += ["", f"### {path}"]
            for rule in rules:
                out += ["", f"#### {rule.name}", ""]
                if rule.doc:
                    out += [rule.doc, ""]
                out += ["```rules", source_of(library, rule), "```", "", f"{_terms(rule)} — {path}:{rule.pos.line}"]
    return "\n".join(out) + "\n"


def card(library: Library, name: str) -> str:
    """One rule as text: its place on disk, what it says, its terms, and what one can do about it.

    Raises:
        UserError: no rule has that name.
    """
    rule = known_rule(library, name)
    file = library.file_of(name)
    path = LIBRARY / Path(file.path).name if file.builtin else Path(file.path)
    lines = [f"{path}:{rule.pos.line}: stage {rule.stage}; {_terms(rule)}", "", source_of(library, rule), ""]
    always = file.builtin or file.packaged
    own, more = ("", "") if always else (f" {file.path}", f" --rules {file.path}")
    lines += [
        f"where it fires:  planish rules explain {name} --model MODEL.onnx{more}",
        f"is it true:      planish rules prove --rule {name}{own}",
        f"without it:      compile MODEL.onnx --disable-rule {name}{more}",
    ]
    guide = LIBRARY.parent / "docs" / "rules.md"
    if guide.exists():
        lines.append(f"the language:    {guide}")
    return "\n".join(lines)


def html(library: Library) -> str:
    """The catalogue as one HTML page that needs nothing else."""
    body = [f"<h1>Rules</h1><p>{len(library.rules)} rules in {len(library.stages)} stages.</p><nav>"]
    body += [f'<a href="#stage-{escape(stage)}">{escape(stage)}</a>' for stage, _ in _grouped(library)]
    body.append("</nav>")
    for stage, files in _grouped(library):
        body.append(f'<h2 id="stage-{escape(stage)}">Stage {escape(stage)}</h2>')
        for path, rules in files:
            body.append(f"<p class=from>{escape(path)}</p>")
            body += [_rule(library, r) for r in rules]
    head = (
        "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Rules</title><style>{_STYLE}</style>"
    )
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _grouped(library: Library) -> Iterator[tuple[str, list[tuple[str, list[s.Rule]]]]]:
    for stage in library.stages:
        files = []
        for f in library.files:
            rules = [r for r in f.rules if r.stage == stage and r.name not in library.disabled]
            if rules:
                files.append((f.path, rules))
        if files:
            yield stage, files


def _rule(library: Library, rule: s.Rule) -> str:
    parts = [f'<section id="{escape(rule.name)}"><h3>{escape(rule.name)}</h3>']
    if rule.doc:
        parts.append(f"<p class=algebra>{escape(rule.doc)}</p>")
    variants = Resolver(library.env, library.file_of(rule.name)).rule(rule)
    if variants:
        parts.append(_pictures(variants[0], len(variants)))
    parts.append(f"<pre>{escape(source_of(library, rule))}</pre>")
    parts.append(f"<p class=from>{escape(_terms(rule))} — {escape(rule.file)}:{rule.pos.line}</p></section>")
    return "".join(parts)


def _pictures(variant: Variant, count: int) -> str:
    t = terms(variant)
    after = []
    for rewrite, built in zip(variant.rewrites, t.built):
        results = [built[r.name] for r in t.roots if r.name in built]
        if rewrite.builder is not None:
            after.append(f"<code>{escape(rewrite.builder)}</code>")
        elif results:
            after.append(drawing(results))
    more = f"<p class=from>the first of {count} alternatives</p>" if count > 1 else ""
    return f"<div class=pair>{drawing(t.roots)}<span>→</span><div>{'<br>'.join(after)}</div></div>{more}"


def _terms(rule: s.Rule) -> str:
    contract = _CONTRACT.get(rule.numeric.contract, f"approximate, to a relative {rule.numeric.rtol}")
    parts = [contract]
    if rule.before:
        parts.append(f"tried before {', '.join(rule.before)}")
    if rule.after:
        parts.append(f"tried after {', '.join(rule.after)}")
    if rule.tests:
        parts.append(f"{len(rule.tests)} tests")
    return "; ".join(parts)


def source_of(library: Library, rule: s.Rule) -> str:
    """The text of a rule as it stands in its file, without its tests."""
    lines = library.sources[rule.file].splitlines()[rule.pos.line - 1 : rule.pos.end_line]
    cut: set[int] = set()
    for test in rule.tests:
        if test.pos.line > rule.pos.line:
            cut.update(range(test.pos.line, test.pos.end_line + 1))
    return "\n".join(line for i, line in enumerate(lines, rule.pos.line) if i not in cut)
