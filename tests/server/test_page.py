"""The real page in a real browser against a real server."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import chromium
import pytest
from live import running
from PIL import Image

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed")

STATE = "document.body && document.body.dataset.state"
PLACE = "document.getElementById('place').textContent"


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, planet_gallery: Path) -> Iterator[str]:
    with running(tiny_bundle, planet_gallery) as (_, where):
        yield where


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def page(browser: chromium.Chromium, address: str) -> Iterator[chromium.Chromium]:
    """The start page, ready; afterwards nothing may have been asked of another host or complained about."""
    browser.requests.clear()
    browser.complaints.clear()
    browser.dress()
    browser.open("about:blank")
    browser.open(f"{address}/")
    browser.until(f"{STATE} === 'idle'")
    yield browser
    browser.run("1")  # collects what has happened meanwhile
    foreign = [url for url in browser.requests if not url.startswith((address, "data:", "blob:", "about:"))]
    assert foreign == []
    assert [line for line in browser.complaints if "status of 4" not in line] == []


def test_an_example_shows_the_answer_and_its_error(page: chromium.Chromium) -> None:
    page.until("document.querySelectorAll('#example-list button').length === 8")
    assert "tiny · fp32 · CPU · 12 tiles" in page.run("document.getElementById('served').textContent")
    page.run("document.querySelectorAll('#example-list button')[2].click()")
    page.until(f"{STATE} === 'done'")
    assert "°" in page.run(PLACE)
    assert " km from the true place" in page.run("document.getElementById('how').textContent")
    assert page.run("document.querySelectorAll('#map .answer-mark').length") == 1
    assert page.run("document.querySelectorAll('#map .truth-mark').length") == 1
    assert page.run("document.querySelectorAll('#map .tile-mark').length") == 8
    page.until("[...document.querySelectorAll('#tiles img')].every((shot) => shot.naturalWidth > 0)")
    assert page.run("document.querySelectorAll('#tiles li').length") == 8
    assert "generate" in page.run("document.getElementById('stages').textContent")
    assert page.run("location.hash") == "#example=2"
    assert page.run("document.querySelector('#map img').naturalWidth") == 1600


def test_a_chosen_photo_and_reranking(page: chromium.Chromium, photo: bytes, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo)
    page.run("document.getElementById('rerank').checked = true; document.getElementById('k').value = 3")
    page.choose("#file", file)
    page.until(f"{STATE} === 'done'")
    assert page.run("document.querySelectorAll('#tiles li').length") == 3
    assert page.run("document.getElementById('tiles').textContent").count("yes ") == 3
    assert page.run("document.querySelectorAll('#map .truth-mark').length") == 0
    assert not page.run("document.getElementById('preview').hidden")


def test_words_typed_with_the_keyboard_alone(page: chromium.Chromium) -> None:
    page.run("document.getElementById('text').focus()")
    page.run("document.execCommand('insertText', false, 'a green field beside a river')")
    for _ in range(2):
        page.press("Tab")
    assert page.run("document.activeElement.id") == "go"
    page.press("Enter")
    page.until(f"{STATE} === 'done'")
    assert "best-fitting tile" in page.run("document.getElementById('how').textContent")
    assert page.run("document.getElementById('preview').hidden")


def test_every_control_can_be_reached_and_has_a_name(page: chromium.Chromium) -> None:
    seen = set()
    page.run("document.body.focus()")
    for _ in range(24):
        page.press("Tab")
        seen.add(page.run("document.activeElement.id || document.activeElement.tagName"))
    assert {"file", "text", "SUMMARY", "go", "BUTTON"} <= seen
    nameless = """[...document.querySelectorAll('button, input, textarea, img')].filter((e) => !(e.labels?.length
        || e.textContent.trim() || e.getAttribute('aria-label') || e.hasAttribute('alt')
        || e.querySelector('img')?.alt)).length"""
    assert page.run(nameless) == 0


def test_faults_are_told_in_one_line(page: chromium.Chromium, tmp_path: Path) -> None:
    page.run("document.getElementById('ask').requestSubmit()")
    page.until(f"{STATE} === 'error'")
    assert "Choose a photo or describe" in page.run("document.getElementById('fault').textContent")
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"this is no picture")
    page.choose("#file", file)
    page.until("document.getElementById('fault').textContent.includes('not a JPEG')")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    page.choose("#file", tmp_path / "dot.png")
    page.until("document.getElementById('fault').textContent.includes('1 x 1')")
    assert page.run("document.querySelectorAll('#map .mark').length") == 0


def test_a_link_asks_at_once(page: chromium.Chromium, address: str) -> None:
    page.open(f"{address}/#text={quote('houses with red roofs')}")
    page.until(f"{STATE} === 'done'")
    assert page.run("document.getElementById('text').value") == "houses with red roofs"


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_light_and_dark(page: chromium.Chromium, address: str, dark: bool) -> None:
    page.dress(360, 740, dark=dark, phone=True)
    page.open(f"{address}/#example=1")
    page.until(f"{STATE} === 'done'")
    assert page.run("document.documentElement.scrollWidth") <= 360
    assert page.run("getComputedStyle(document.querySelector('label.camera')).display") != "none"
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(14, 20, 19)") is dark


def test_the_docs_list_every_route(page: chromium.Chromium, address: str) -> None:
    page.open(f"{address}/docs")
    page.until("location.pathname === '/docs' && document.body?.dataset.state === 'done'")
    text = page.run("document.body.textContent")
    for route in ("/v1/embeddings", "/v1/rerank", "/v1/search", "/v1/locate", "/health/ready", "/metrics"):
        assert route in text
    assert "encoding_format" in text


def test_a_server_with_a_key_asks_for_it(browser: chromium.Chromium, tiny_bundle: Path, planet_gallery: Path) -> None:
    key = "0123456789abcdef"
    with running(tiny_bundle, planet_gallery, key) as (_, where):
        browser.dress()
        browser.open("about:blank")
        browser.open(f"{where}/")
        browser.until(f"{STATE} === 'error'")
        assert "needs an API key" in browser.run("document.getElementById('fault').textContent")
        assert not browser.run("document.getElementById('key-row').hidden")
        enter = "(key) => {{ key.value = '{}'; key.dispatchEvent(new Event('change')) }}"
        enter = f"({enter})(document.getElementById('key'))"
        browser.run(enter.format("wrong-wrong-wrong"))
        browser.until("document.getElementById('fault').textContent.includes('not right')")
        browser.run(enter.format(key))
        browser.until(f"{STATE} === 'idle'")
        assert browser.run("document.getElementById('key-row').hidden")
        browser.run("document.querySelector('#example-list button').click()")
        browser.until(f"{STATE} === 'done'")
        browser.until("[...document.querySelectorAll('#tiles img')].every((shot) => shot.naturalWidth > 0)")
