"""What a page holds, read with an HTML parser; and that it is whole by itself."""

from __future__ import annotations

import itertools
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import compiler
from compiler.errors import UserError
from compiler.page import render, write
from compiler.page.graph import Drawing, Node, arrange
from tests.test_placement import model

VOID = {"meta", "input", "br", "link", "img"}


class Reader(HTMLParser):
    """Elements by id, text by the id they stand in, and tags that do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: dict[str, str] = {}
        self.text: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.errors: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids[str(found["id"])] = tag
        if tag not in VOID:
            self.open.append((tag, found.get("id")))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            self.errors.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, name in self.open:
            if name:
                self.text[name] = self.text.get(name, "") + data


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data(read: Reader) -> dict[str, Any]:
    return json.loads(read.text["data"])


def test_elements_balance_and_sections_are_there(read: Reader) -> None:
    assert not read.errors
    assert not read.open
    assert {"graph", "canvas", "search", "placement", "gain", "time", "sizes", "errors", "rules"} <= set(read.ids)


def test_it_needs_nothing_from_a_network(page: Path, read: Reader) -> None:
    for tag, attributes in read.tags:
        assert tag not in ("link", "img", "iframe"), tag
        assert "src" not in attributes, attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "http://" not in page.read_text()
    assert "https://" not in page.read_text()


def test_both_graphs_are_there_with_what_one_wants_to_know(data: dict[str, Any]) -> None:
    before, after = data["before"], data["after"]
    assert [n[0] for n in before["nodes"]].count("Conv") == 12
    labels = [n[0] for n in after["nodes"]]
    assert labels.count("conv") == 12
    assert labels[0] == "input"
    assert labels[-1] == "output"
    facts = [n[4] for n in after["nodes"] if n[0] == "conv"]
    for each in facts:
        assert {"takes", "gives", "unit", "ms", "estimated", "memory", "bytes", "rules"} <= set(each)
    assert any("error" in each for each in facts)
    for a, b in after["edges"]:
        assert after["nodes"][a][3] < after["nodes"][b][3], "edges run down"


def test_what_stays_off_says_why_and_what_to_do(read: Reader, data: dict[str, Any]) -> None:
    assert "topk" in read.text["gain"]
    assert "behind the model" in read.text["gain"]
    node = next(n for n in data["after"]["nodes"] if n[0] == "topk")
    assert node[4]["unit"] == "cpu"
    assert "on no chip" in node[4]["stays off"]


def test_names_from_a_model_cannot_break_out(tmp_path: Path) -> None:
    evil = model()
    name = '</script><img src=x onerror="alert(1)">'
    for node in evil.graph.node:
        node.name = name + node.name
    path = tmp_path / "evil.html"
    compiler.compile(evil, "ane", tmp_path / "o.mlpackage", verify="off", report=path)
    read = Reader(path.read_text(encoding="utf-8"))
    assert not any(tag == "img" for tag, _ in read.tags)
    assert not read.errors
    assert any(name in n[1] for n in json.loads(read.text["data"])["after"]["nodes"])


def test_a_folder_that_does_not_exist_is_an_error(data: dict[str, Any], tmp_path: Path) -> None:
    assert render(data).startswith("<!doctype html>")
    with pytest.raises(UserError, match="cannot write the page"):
        write(tmp_path / "no" / "such.html", data)


def test_nodes_of_a_row_do_not_overlap() -> None:
    drawing = Drawing([Node("x") for _ in range(9)], [(0, i) for i in range(1, 8)] + [(i, 8) for i in range(1, 8)])
    arrange(drawing)
    row = sorted(n.x for n in drawing.nodes[1:8])
    assert all(b - a >= 132 for a, b in itertools.pairwise(row))
    assert abs(drawing.nodes[0].x - sum(row) / 7) < 1


def test_without_a_page_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.page.draw", None)
    monkeypatch.setattr("compiler.page.collect", None)
    compiler.compile(model(), "ane", tmp_path / "o.mlpackage", verify="off")
