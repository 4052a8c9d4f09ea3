"""Links in README and docs lead somewhere: to a file, and to a heading in it; commands name what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page: lower case, without punctuation, spaces as hyphens."""
    headings = re.findall(r"(?m)^#+\s+(.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert not broken


BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", [*PAGES, *BENCHMARKS], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands(file: Path) -> None:
    """Benchmarks are run as modules, so that their folder is not searched for modules which others import by name."""
    text = file.read_text(encoding="utf-8")
    names = {p.stem for p in BENCHMARKS}
    assert set(re.findall(r"python (?:-W ignore )?-m benchmarks\.(\w+)", text)) <= names
    assert "python benchmarks/" not in text
    assert not re.findall(rf"(?m)^ *(?:import|from) (?:{'|'.join(names)})\b", text)
