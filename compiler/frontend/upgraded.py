"""The forms of operators that rules/upgrade.rules brings to the newest."""

from __future__ import annotations

import functools
import importlib.resources
import re

_FORM = re.compile(r"\b([A-Z]\w*@\d+)\s*\(")


@functools.cache
def upgraded_forms() -> frozenset[str]:
    """The forms named in rules/upgrade.rules, as ``Softmax@11``; read as text, so that no rule need be compiled."""
    file = importlib.resources.files("rules") / "upgrade.rules"
    return forms_in(file.read_text(encoding="utf-8")) if file.is_file() else frozenset()


def forms_in(rules: str) -> frozenset[str]:
    """The operators with a version that the text of a rule file names."""
    code = (line.partition("//")[0] for line in rules.splitlines())
    return frozenset(form for line in code for form in _FORM.findall(line))
