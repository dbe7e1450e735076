"""The page for people who see little, hear it, use no mouse or hold a phone; the checks see it when it is spoilt."""

from pathlib import Path

import chromium
import pytest

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed")

STATE = "document.body && document.body.dataset.state"
AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")
ACTIVE = {"button", "link", "textbox", "spinbutton", "combobox", "slider", "image", "application", "form", "region"}


@pytest.fixture(params=["light", "dark", "phone"])
def page(browser: chromium.Chromium, address: str, request: pytest.FixtureRequest) -> chromium.Chromium:
    """An answered question, with every fold open and a known area, in each of three dresses."""
    if request.param == "phone":
        browser.dress(390, 844, phone=True)
    else:
        browser.dress(dark=request.param == "dark")
    browser.open("about:blank")
    browser.open(f"{address}/#example=1")
    browser.until(f"{STATE} === 'done'")
    browser.run("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
    browser.run(
        "for (const [id, n] of [['lat', 10], ['lon', 20], ['km', 900]]) {"
        "const field = document.getElementById(`prior-${id}`);"
        "field.value = n; field.dispatchEvent(new Event('input')) }"
    )
    browser.until("[...document.querySelectorAll('#tiles img')].every((shot) => shot.naturalWidth > 0)")
    return browser


def test_everything_can_be_read_found_and_named(page: chromium.Chromium) -> None:
    assert page.run(AUDIT) == []
    told = page.tree()
    assert [role for role, name in told if role in ACTIVE and not name.strip()] == []
    assert {"banner", "main", "navigation", "form", "application", "slider"} <= {role for role, _ in told}
    assert page.run("document.documentElement.scrollWidth") <= page.run("innerWidth")


def test_the_audit_sees_what_is_wrong(page: chromium.Chromium) -> None:
    page.run("document.body.style.setProperty('--soft', 'light-dark(#b9bfbd, #55605d)')")
    page.run("document.querySelector('#go').style.fontSize = '4px'; document.querySelector('#go').style.padding = 0")
    page.run("document.querySelector('h2').outerHTML = '<h3 id=\"go\">x</h3>'")
    page.run("document.getElementById('zoom-in').removeAttribute('aria-label')")
    page.run("document.getElementById('map').style.setProperty('--map-label', 'light-dark(#aab, #334)')")
    found = " | ".join(page.run(AUDIT))
    for complaint in ("contrast", "headings skip a level", "the id go comes twice", "is only", "of label on"):
        assert complaint in found, complaint
    assert [role for role, name in page.tree() if role == "button" and not name.strip()] == ["button"]


def test_the_whole_page_is_walked_with_one_key(page: chromium.Chromium) -> None:
    page.run("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
    walk, unseen = [], []
    for _ in range(90):
        page.press("Tab")
        name = page.run(
            "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
        )
        if name in ("BODY", "skip") and walk:
            break
        walk.append(name)
        outline = page.run(
            "(node => getComputedStyle(node.matches('.hidden') ? node.nextElementSibling : node).outlineStyle)"
            "(document.activeElement)"
        )
        if outline == "none":
            unseen.append(name)
    order = [
        "file",
        "text",
        "prior-draw",
        "prior-lat",
        "k",
        "sure",
        "go",
        "map",
        "mark prior-mark",
        "zoom-in",
        "zoom-out",
    ]
    places = [walk.index(name) for name in order]
    assert places == sorted(places), walk
    assert unseen == []


def test_a_tile_and_its_mark_light_each_other(page: chromium.Chromium) -> None:
    lit = "document.querySelectorAll('.tile-mark.lit').length"
    assert page.run(lit) == 0
    page.run("document.querySelectorAll('#tiles button')[1].focus()")
    assert page.run(lit) == 1
    assert page.run("document.querySelector('.tile-mark.lit').textContent") == "2"
    page.run("document.activeElement.blur()")
    assert page.run(lit) == 0
    page.run("document.querySelector('.tile-mark').dispatchEvent(new MouseEvent('mouseenter'))")
    assert page.run("document.querySelectorAll('#tiles .lit').length") == 1


def test_motion_is_left_out_where_it_is_unwanted(browser: chromium.Chromium, address: str) -> None:
    zooms = {}
    for calm in (True, False):
        browser.dress(calm=calm)
        browser.open("about:blank")
        browser.open(f"{address}/")
        browser.until(f"{STATE} === 'idle'")
        zooms[calm] = browser.run(
            "document.getElementById('zoom-in').click(); new Promise((done) => requestAnimationFrame(() =>"
            "requestAnimationFrame(() => done(Number(document.getElementById('map').dataset.zoom)))))"
        )
        browser.until("Number(document.getElementById('map').dataset.zoom) === 1.8")
    assert zooms[True] == 1.8
    assert zooms[False] < 1.8


def test_the_docs_list_every_route(browser: chromium.Chromium, address: str) -> None:
    browser.dress()
    browser.open(f"{address}/docs")
    browser.until("location.pathname === '/docs' && document.body?.dataset.state === 'done'")
    text = browser.run("document.body.textContent")
    for route in ("/v1/embeddings", "/v1/rerank", "/v1/search", "/v1/locate", "/health/ready", "/metrics"):
        assert route in text
    assert "encoding_format" in text
