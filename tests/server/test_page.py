"""The real page in a real browser against real servers: questions, answers, the map and the known area."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import chromium
import numpy as np
import pytest
from live import running
from PIL import Image

from edgegeo.geo import distance_km
from edgegeo.planet import Planet
from edgegeo.runtime import Embedder, Gallery

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed")

STATE = "document.body && document.body.dataset.state"
PLACE = "document.getElementById('place').textContent"
TOLD = "document.getElementById('told').textContent"
FAULT = "document.getElementById('fault').textContent"
PRIOR = "['lat', 'lon', 'km'].map((name) => document.getElementById(`prior-${name}`).value).join()"
CITIES = {
    "paris": (48.86, 2.35), "berlin": (52.52, 13.4), "nairobi": (-1.29, 36.82), "quito": (-0.18, -78.47),
    "suva": (-18.14, 178.44), "apia": (-13.83, -171.76), "tokyo": (35.68, 139.69), "oslo": (59.91, 10.75),
    "perth": (-31.95, 115.86), "denver": (39.74, -104.99), "svalbard": (78.22, 15.65), "warsaw": (52.23, 21.01),
}  # fmt: skip


@pytest.fixture(scope="module")
def earth(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose gallery is of the Earth."""
    planet, gallery = Planet(), tmp_path_factory.mktemp("galleries") / "earth"
    places = planet.places("train", len(CITIES))
    rows = [
        (name, lat, lon, planet.satellite(place.lat, place.lon, size=64))
        for (name, (lat, lon)), place in zip(CITIES.items(), places, strict=True)
    ]
    Gallery.build(gallery, rows, Embedder.open(tiny_bundle, threads=1))
    with running(tiny_bundle, gallery) as (_, where):
        yield where


@pytest.fixture
def at(browser: chromium.Chromium) -> Iterator[chromium.Chromium]:
    """The browser on no page; afterwards nothing may have been asked of another machine or complained about."""
    browser.requests.clear()
    browser.complaints.clear()
    browser.dress()
    browser.open("about:blank")
    yield browser
    browser.run("1")  # collects what has happened meanwhile
    foreign = [url for url in browser.requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))]
    assert foreign == []
    assert [line for line in browser.complaints if "status of 4" not in line] == []


@pytest.fixture
def page(at: chromium.Chromium, address: str) -> chromium.Chromium:
    """The start page of the demo planet, ready."""
    at.open(f"{address}/")
    at.until(f"{STATE} === 'idle'")
    return at


def ask(page: chromium.Chromium, **fields: object) -> None:
    """Fill fields by their ids and press the button."""
    for name, value in fields.items():
        page.run(
            f"(field => {{ field.value = {json.dumps(value)}; field.dispatchEvent(new Event('input')) }})"
            f"(document.getElementById({json.dumps(name.replace('_', '-'))}))"
        )
    page.run("document.body.dataset.state = ''; document.getElementById('ask').requestSubmit()")
    page.until(f"['done', 'error'].includes({STATE})")


def count(page: chromium.Chromium, selector: str) -> int:
    return int(page.run(f"document.querySelectorAll({json.dumps(selector)}).length"))


def view(page: chromium.Chromium) -> float:
    """The map's zoom, once it is drawn."""
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 1)")
    return float(page.run("document.getElementById('map').dataset.zoom"))


def test_an_example_shows_the_answer_and_its_error(page: chromium.Chromium) -> None:
    page.until("document.querySelectorAll('#example-list button').length === 8")
    assert "tiny · fp32 · CPU · 12 tiles" in page.run("document.getElementById('served').textContent")
    assert page.run("document.getElementById('credit').textContent") == "demo planet 2026"
    page.run("document.querySelectorAll('#example-list button')[2].click()")
    page.until(f"{STATE} === 'done'")
    assert "°" in page.run(PLACE)
    assert " km from the true place" in page.run("document.getElementById('how').textContent")
    kinds = {kind: count(page, f"#map .{kind}-mark") for kind in ("answer", "truth", "tile", "candidate")}
    assert kinds == {"answer": 1, "truth": 1, "tile": 8, "candidate": 10}
    page.until("[...document.querySelectorAll('#tiles img')].every((shot) => shot.naturalWidth > 0)")
    assert count(page, "#tiles li") == 8
    assert page.run("document.getElementById('radius').textContent") == "900 km"
    assert page.run("document.getElementById('confidence').textContent") == "40 %"
    assert "candidates" in page.run("document.getElementById('rule').textContent")
    assert count(page, "#proposals .decided") == 1
    assert count(page, "#candidate-list li") == 10
    assert "generate" in page.run("document.getElementById('stages').textContent")
    assert page.run("location.hash") == "#example=2"


def test_what_is_heard_is_one_sentence_after_another(page: chromium.Chromium) -> None:
    page.run("document.querySelectorAll('#example-list button')[0].click()")
    page.until(f"{STATE} === 'done'")
    told = page.run(TOLD)
    assert told.startswith(f"Answer: {page.run(PLACE)}.")
    assert "Within 900 km four times out of five. Confidence 40 %." in told
    assert page.run("document.getElementById('told').getAttribute('aria-live')") == "polite"


def test_a_chosen_photo_and_reranking(page: chromium.Chromium, photo: bytes, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo)
    page.run(
        "for (const [id, n] of [['rerank', 3], ['k', 3], ['candidates', 1]]) document.getElementById(id).value = n"
    )
    page.choose("#file", file)
    page.until(f"{STATE} === 'done'")
    assert count(page, "#tiles li") == 3
    assert page.run("document.getElementById('tiles').textContent").count("yes ") == 3
    assert count(page, "#map .truth-mark") == 0
    assert not page.run("document.getElementById('shown').hidden")
    assert page.run("document.getElementById('figures').hidden")
    assert "Nothing is known about the error" in page.run("document.getElementById('how').textContent")
    page.run("document.getElementById('remove').click()")
    assert page.run("document.getElementById('shown').hidden")


def test_a_dropped_and_a_pasted_photo(page: chromium.Chromium, photo: bytes, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo)
    page.drop("#drop", file)
    page.until(f"{STATE} === 'done'")
    assert page.run("document.getElementById('preview').naturalWidth") == 96
    page.run("document.body.dataset.state = ''; document.getElementById('remove').click()")
    page.run(
        "fetch('/v1/examples/1/photo.jpg').then((r) => r.blob()).then((blob) => {"
        "const data = new DataTransfer(); data.items.add(new File([blob], 'p.jpg', {type: 'image/jpeg'}));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})) })"
    )
    page.until(f"{STATE} === 'done'")
    assert page.run("document.getElementById('preview').naturalWidth") == 256


def test_doubt_is_told_and_a_doubtful_place_withheld(page: chromium.Chromium, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "grey.png")
    page.choose("#file", tmp_path / "grey.png")
    page.until(f"{STATE} === 'done'")
    assert "shows nothing" in page.run("document.getElementById('warnings').textContent")
    assert "shows nothing" in page.run(TOLD)
    ask(page, sure=50)
    assert page.run(PLACE) == "Not sure enough"
    assert count(page, "#map .answer-mark") == 0
    assert "withheld" in page.run("document.getElementById('proposals').textContent")
    assert page.run(TOLD).startswith("No answer.")


def test_words_typed_with_the_keyboard_alone(page: chromium.Chromium) -> None:
    page.run("document.getElementById('text').focus()")
    page.run("document.execCommand('insertText', false, 'a green field beside a river')")
    for _ in range(6):
        page.press("Tab")
    assert page.run("document.activeElement.id") == "go"
    page.press("Enter")
    page.until(f"{STATE} === 'done'")
    assert "best-fitting tile" in page.run("document.getElementById('how').textContent")
    assert page.run("document.getElementById('shown').hidden")


def test_a_known_area_by_keyboard_goes_into_the_question(page: chromium.Chromium) -> None:
    page.run("document.getElementById('prior-draw').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.getAttribute('aria-label')").startswith("Centre of the known area")
    lat, lon, before = map(float, page.run(PRIOR).split(","))
    page.press("ArrowUp", shift=True)
    page.press("ArrowLeft")
    page.press("+")
    north, west, wider = map(float, page.run(PRIOR).split(","))
    assert (north > lat, west < lon, wider > before) == (True, True, True)
    page.press("Tab")
    assert page.run("document.activeElement.getAttribute('role')") == "slider"
    page.press("ArrowDown")
    assert float(page.run("document.activeElement.getAttribute('aria-valuenow')")) < wider
    page.press("Delete")
    assert page.run(PRIOR) == ",,"
    assert page.run("document.activeElement.id") == "prior-draw"


def test_a_known_area_moves_the_answer(page: chromium.Chromium) -> None:
    page.run("document.querySelectorAll('#example-list button')[1].click()")
    page.until(f"{STATE} === 'done'")
    free = page.run(PLACE)
    ask(page, prior_lat=10, prior_lon=179, prior_km=40)
    assert page.run(PLACE) != free
    assert "10.0° N, 179.0° E ± 40 km" in page.run("document.getElementById('prior-said').textContent")
    ask(page, prior_km="")
    assert "The known area needs a latitude" in page.run(FAULT)
    assert page.run("document.activeElement.id") == "prior-km"


def test_a_known_area_drawn_with_the_mouse(page: chromium.Chromium) -> None:
    page.run("document.getElementById('prior-draw').dispatchEvent(new MouseEvent('click', {detail: 1}))")
    assert page.run("document.getElementById('prior-draw').getAttribute('aria-pressed')") == "true"
    page.drag("#map", (0.5, 0.5), (0.5, 0.25))
    lat, lon, km = map(float, page.run(PRIOR).split(","))
    # A quarter of the map's height is 45 degrees of latitude.
    assert (abs(lat) < 0.5, abs(lon) < 0.5) == (True, True)
    assert km == pytest.approx(5000, rel=0.03)
    assert page.run("document.getElementById('prior-draw').getAttribute('aria-pressed')") == "false"
    page.drag(".prior-mark", (0.5, 0.5), (4.5, 0.5))
    moved, east, same = map(float, page.run(PRIOR).split(","))
    assert (abs(moved) < 0.6, east > 20, same) == (True, True, km)


def test_the_map_moves_by_every_means(page: chromium.Chromium) -> None:
    assert view(page) == 1
    page.scroll("#map", -240)
    wheeled = view(page)
    assert wheeled > 1.2
    page.run("document.getElementById('zoom-in').click()")
    assert view(page) == pytest.approx(wheeled * 1.8, rel=0.01)
    page.run("document.getElementById('map').focus()")
    page.press("-")
    assert view(page) < wheeled * 1.8
    page.press("0")
    assert view(page) == 1
    before = page.run("document.querySelector('#map canvas').toDataURL()")
    page.drag("#map", (0.5, 0.5), (0.9, 0.5))
    assert view(page) == 1
    assert page.run("document.querySelector('#map canvas').toDataURL()") != before
    page.dress(390, 844, phone=True)
    page.pinch("#map", 0.2, 0.6)
    assert view(page) > 1.5


def test_circles_are_true_to_the_sphere(page: chromium.Chromium) -> None:
    centres = [(0.0, 0.0, 2000.0), (64.0, 178.0, 800.0), (-88.0, 30.0, 900.0), (10.0, -170.0, 15000.0)]
    for lat, lon, km in centres:
        made = page.run(
            f"import('/page/sphere.js').then(({{circle}}) => circle({{lat: {lat}, lon: {lon}}}, {km}))"
            ".then(({line, inverse}) => [line.map((p) => [p.lat, p.lon]), inverse])"
        )
        line, inverse = np.array(made[0]), made[1]
        assert inverse is (km == 15000.0)
        rim = line[:181]
        assert [distance_km(lat, lon, *place) for place in rim.tolist()] == pytest.approx([km] * 181, rel=1e-9)
        assert np.abs(np.diff(rim[:, 1])).max() < 180
        # Closed along the map's edge only where a pole lies within.
        assert line[181:, 0].tolist() == ([-90.0, -90.0] if lat == -88.0 else [])


def test_faults_are_told_in_one_line(page: chromium.Chromium, tmp_path: Path) -> None:
    page.run("document.getElementById('ask').requestSubmit()")
    page.until(f"{STATE} === 'error'")
    assert "Choose a photo or describe" in page.run(FAULT)
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"this is no picture")
    page.choose("#file", file)
    page.until(f"{FAULT}.includes('not a JPEG')")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    page.choose("#file", tmp_path / "dot.png")
    page.until(f"{FAULT}.includes('1 x 1')")
    assert count(page, "#map .answer-mark, #map .tile-mark") == 0
    ask(page, text="a river", k=0)
    assert page.run(FAULT) == "Tiles must be a whole number from 1 to 48."


def test_a_link_asks_at_once(page: chromium.Chromium, address: str) -> None:
    page.open(f"{address}/#text={quote('houses with red roofs')}")
    page.until(f"{STATE} === 'done'")
    assert page.run("document.getElementById('text').value") == "houses with red roofs"


def test_a_gallery_of_the_earth_has_its_coasts(at: chromium.Chromium, earth: str) -> None:
    at.open(f"{earth}/")
    at.until(f"{STATE} === 'idle'")
    assert at.run("document.getElementById('credit').textContent").startswith("Natural Earth")
    assert at.run("document.getElementById('examples').hidden")
    red = """(canvas => (lon, lat) => canvas.getContext('2d').getImageData(
        (lon + 180) / 360 * canvas.width, (90 - lat) / 180 * canvas.height, 1, 1).data[0]
        )(document.querySelector('#map canvas'))"""
    view(at)
    # Land is paper, the sea is blue; neither is under a line or a name here.
    for place in ((18.5, 15.5), (-57, -8), (95, 66), (19.5, 52), (95, -74)):
        assert at.run(f"{red}{place}") > 240, place
    for place in ((-35, 28), (80, -35), (51, 42), (-172, 50), (179, 20)):
        assert at.run(f"{red}{place}") < 220, place
    # Suva lies west of the date line, the known area's centre east of it.
    ask(at, text="a harbour", prior_lat=-17, prior_lon=-179.5, prior_km=300)
    assert at.run(PLACE) == "18.14° S, 178.44° E"
    assert view(at) > 5


def test_the_theme_can_be_chosen_and_is_kept(page: chromium.Chromium, address: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    sea = page.run("getComputedStyle(document.getElementById('map')).getPropertyValue('--map-sea')")
    for theme in ("light", "dark"):
        page.run("document.getElementById('theme').click()")
        assert theme in page.run("document.getElementById('theme').getAttribute('aria-label')")
    dark = page.run(ground)
    assert dark != light
    assert page.run("getComputedStyle(document.getElementById('map')).getPropertyValue('--map-sea')") != sea
    page.open("about:blank")
    page.open(f"{address}/")
    page.until(f"{STATE} === 'idle'")
    assert page.run(ground) == dark
    page.run("document.getElementById('theme').click()")
    assert page.run(ground) == light


def test_a_server_with_a_key_asks_for_it(at: chromium.Chromium, tiny_bundle: Path, planet_gallery: Path) -> None:
    key = "0123456789abcdef"
    with running(tiny_bundle, planet_gallery, key) as (_, where):
        at.open(f"{where}/")
        at.until("document.querySelector('dialog')?.open")
        assert at.run("document.getElementById('key-title').textContent") == "This server asks for a key"
        assert at.run("document.activeElement.id") == "key"
        at.run("document.execCommand('insertText', false, 'wrong-wrong-wrong')")
        at.press("Enter")
        at.until("document.getElementById('key-fault').textContent.includes('not right')")
        at.run(f"document.execCommand('insertText', false, '{key}')")
        at.press("Enter")
        at.until(f"{STATE} === 'idle'")
        assert not at.run("document.querySelector('dialog').open")
        assert at.run("sessionStorage.getItem('edgegeo-key')") == key
        at.run("document.querySelector('#example-list button').click()")
        at.until(f"{STATE} === 'done'")
        at.until("[...document.querySelectorAll('#tiles img')].every((shot) => shot.naturalWidth > 0)")
