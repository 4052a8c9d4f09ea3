"""The page in headless Chromium: it draws, finds, points, zooms, and asks no network for anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


@pytest.fixture(scope="module")
def opened(page: Path) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium to open the page in: apt-get install chromium")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.problems = []
        tab.asked = []
        tab.on("pageerror", lambda e: tab.problems.append(str(e)))
        tab.on("console", lambda m: tab.problems.append(m.text) if m.type == "error" else None)
        tab.on("request", lambda r: tab.asked.append(r.url))
        tab.goto(page.as_uri())
        tab.wait_for_function("planish.drawn > 0")
        yield tab
        browser.close()


def pixels(tab: Any) -> int:
    """How many pixels of the canvas are not empty."""
    return tab.evaluate(
        "() => { const c = document.getElementById('canvas');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n += 1; return n; }"
    )


def settle(tab: Any) -> None:
    tab.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def test_it_draws_without_errors_or_requests(opened: Any) -> None:
    assert pixels(opened) > 1000
    assert opened.problems == []
    assert [u for u in opened.asked if not u.startswith("file://")] == []
    assert len(opened.asked) == 1


def test_search_finds_and_walks(opened: Any) -> None:
    opened.fill("#search", "topk cpu")
    assert opened.text_content("#matches") == "1 of 1"
    assert "n6" in opened.text_content("#picked")
    opened.fill("#search", "conv")
    count = opened.evaluate("planish.view.nodes.filter(n => n.label === 'conv').length")
    found = int(opened.text_content("#matches").removeprefix("1 of "))
    assert found >= count == 12
    opened.press("#search", "Enter")
    assert opened.text_content("#matches") == f"2 of {found}"
    opened.fill("#search", "no such operator")
    assert opened.text_content("#matches") == "none"
    opened.fill("#search", "")


def test_pointing_at_a_node_tells_of_it(opened: Any) -> None:
    opened.fill("#search", "topk")
    opened.fill("#search", "")
    opened.evaluate("() => planish.find('topk', 0)")
    settle(opened)
    box = opened.locator("#canvas").bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert opened.is_visible("#hover")
    told = opened.text_content("#hover")
    for word in ("topk", "takes", "gives", "unit", "CPU", "rules", "stays off"):
        assert word in told
    opened.mouse.move(2, 2)
    opened.evaluate("() => planish.find('', 0)")


def test_the_wheel_zooms_and_dragging_moves(opened: Any) -> None:
    box = opened.locator("#canvas").bounding_box()
    x, y = box["x"] + 300, box["y"] + 200
    before = opened.evaluate("planish.view.scale")
    opened.mouse.move(x, y)
    opened.mouse.wheel(0, -200)
    settle(opened)
    assert opened.evaluate("planish.view.scale") > before
    left = opened.evaluate("planish.view.x")
    opened.mouse.down()
    opened.mouse.move(x + 50, y + 20, steps=4)
    opened.mouse.up()
    assert opened.evaluate("planish.view.x") == pytest.approx(left + 50, abs=6)
    opened.click("#fit")


def test_the_model_as_imported_is_the_other_view(opened: Any) -> None:
    opened.click("[data-view=before]")
    assert opened.evaluate("planish.view.nodes.filter(n => n.label === 'Conv').length") == 12
    opened.click("[data-view=after]")
    assert opened.evaluate("planish.view.nodes.filter(n => n.label === 'conv').length") == 12
    for value in ("ms", "bytes", "error", "unit"):
        opened.select_option("#colour", value)
        settle(opened)
        assert opened.text_content("#legend")
    assert opened.problems == []


def test_a_link_in_a_table_leads_to_the_node(opened: Any) -> None:
    opened.click("#gain [data-node=n6]")
    assert "topk" in opened.text_content("#picked")


def test_twenty_thousand_operators_stay_usable(opened: Any, tmp_path: Path) -> None:
    """A frame of a large graph takes well under a tenth of a second, since what is out of sight is not drawn."""
    took = opened.evaluate(
        "() => { const v = planish.view, base = v.nodes.slice(), edges = v.edges.slice(), cells = new Map(v.cells);"
        " for (let k = 1; v.nodes.length < 20000; k++)"
        "   for (const n of base) { v.edges.push([v.nodes.length - 1, v.nodes.length]);"
        "     v.nodes.push({ ...n, y: n.y + 1000 * k }); }"
        " const start = performance.now();"
        " for (let i = 0; i < 5; i++) planish.find('conv', 0);"
        " return new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => {"
        "   const ms = (performance.now() - start) / 5;"
        "   v.nodes.length = base.length; v.edges.length = edges.length; planish.find('', 0); r(ms); }))); }"
    )
    assert took < 500
