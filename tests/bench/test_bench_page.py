"""The page in a browser: filters, hover, keys, sorting, narrow and dark, and nothing fetched."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from measured import row, share

from edgegeo.bench.page import render_page

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from chromium import BINARY, Chromium

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium")
SHOWN = (
    "[...document.querySelectorAll('section.job:not([hidden]) tbody tr:not([hidden])')]"
    ".map(r => r.cells[{}].textContent)"
)
CHANGE = (
    "(() => {{ const node = document.querySelector({!r}); {}; "
    "node.dispatchEvent(new Event('change', {{bubbles: true}})) }})()"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    told = {"joules_per_item": 0.25, "watts": 9.0, "idle_watts": 4.0, "meters": {"RAPL package-0": 0.25}}
    rows: list[dict[str, Any]] = [
        row(label, ms=ms * batch, batch=batch, accuracy=share(value), energy=told)
        for label, ms, value in (("fp32", 20.0, 0.66), ("int8", 8.0, 0.65), ("int4", 9.0, 0.5))
        for batch in (1, 8)
    ]
    rows += [row("int8", "embed_text", accuracy=share(0.4, "text_to_tile_recall_at_1")), row("fp16", error="killed")]
    folder = tmp_path_factory.mktemp("page")
    (folder / "results.html").write_text(render_page(rows))
    with Chromium(folder / "profile", 1200, 900) as browser:
        browser.open((folder / "results.html").as_uri())
        browser.until("document.body?.classList.contains('alive')")
        browser.run(CHANGE.format("#job", "node.value = 'generate'"))
        yield browser
        assert [address for address in browser.requests if not address.startswith("file:")] == []
        assert browser.complaints == []


def test_the_front_of_a_job_is_drawn(page: Chromium) -> None:
    assert page.run("document.querySelectorAll('#plot .dot').length") == 6
    assert page.run("[...document.querySelectorAll('tr.best')].map(r => r.cells[0].textContent)") == ["fp32", "int8"]
    assert page.run("document.querySelectorAll('#plot .ring').length") == 2
    assert page.run("document.querySelectorAll('#stages .bar').length") == 6


def test_filters_leave_what_is_ticked_and_the_address_remembers(page: Chromium) -> None:
    page.run(CHANGE.format("#filters input[value=int8]", "node.checked = false"))
    assert page.run("document.querySelectorAll('#plot .dot').length") == 4
    assert set(page.run(SHOWN.format(0))) == {"fp32", "int4", "fp16"}
    assert "off=precision%3Aint8" in page.run("location.hash")
    page.run("document.getElementById('all').click()")
    assert page.run("document.querySelectorAll('#plot .dot').length") == 6


def test_other_costs(page: Chromium) -> None:
    page.run(CHANGE.format("#cost", "node.value = 'energy'"))
    assert "energy per item" in page.run("document.querySelector('#plot svg').textContent")
    page.run(CHANGE.format("#cost", "node.value = 'latency'"))


def test_keys_go_from_dot_to_dot_and_tell(page: Chromium) -> None:
    page.run("document.querySelector('.dot[tabindex=\"0\"]').focus()")
    first = page.run("document.getElementById('tip').textContent")
    assert page.run("document.getElementById('tip').hidden") is False
    page.press("ArrowRight")
    second = page.run("document.getElementById('tip').textContent")
    assert first.startswith("int8")
    assert second != first
    assert page.run("document.querySelectorAll('tr.lit').length") == 1
    page.press("Escape")
    assert page.run("document.getElementById('tip').hidden") is True


def test_hovering_tells_too(page: Chromium) -> None:
    page.run("document.querySelector('.dot').dispatchEvent(new PointerEvent('pointerenter'))")
    assert "accuracy % [95 %]" in page.run("document.getElementById('tip').textContent")
    page.run("document.querySelector('.dot').dispatchEvent(new PointerEvent('pointerleave'))")
    assert page.run("document.getElementById('tip').hidden") is True


def test_a_column_sorts_by_its_numbers(page: Chromium) -> None:
    heads = "[...document.querySelectorAll('section.job:not([hidden]) th button')]"
    click = f"{heads}.find(b => b.textContent === 'p50 ms').click()"
    page.run(click)
    up = [float(text) for text in page.run(SHOWN.format(3)) if text[0].isdigit()]
    assert up == sorted(up)
    page.run(click)
    down = [float(text) for text in page.run(SHOWN.format(3)) if text[0].isdigit()]
    assert down == up[::-1]


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_narrow_and_wide(page: Chromium, width: int) -> None:
    page._command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    page.until(f"document.querySelector('#plot svg')?.viewBox.baseVal.width <= {width}")
    assert page.run("document.documentElement.scrollWidth") <= width


def test_dark_and_light_are_two(page: Chromium) -> None:
    grounds = []
    for scheme in ("dark", "light"):
        page._command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(20, 23, 27)", "rgb(251, 250, 247)"]
