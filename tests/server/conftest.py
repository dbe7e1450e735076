"""A real server app over the tiny bundle and a small gallery of the planet."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi")

import chromium
from fastapi.testclient import TestClient
from live import running

from edgegeo.planet import Planet
from edgegeo.runtime import Embedder, Gallery
from edgegeo.runtime.gallery.sources import planet_places
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings

TILES = 12


@pytest.fixture(scope="session")
def planet_gallery(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of the first test places, embedded by the tiny bundle."""
    path = tmp_path_factory.mktemp("galleries") / "planet-tiny"
    rows = planet_places(Planet(), n=TILES, size=64)
    Gallery.build(path, rows, Embedder.open(tiny_bundle, threads=1))
    return path


@pytest.fixture(scope="session")
def settings(tiny_bundle: Path, planet_gallery: Path) -> ServerSettings:
    """The defaults, with small limits."""
    return ServerSettings(
        bundles=(tiny_bundle,),
        gallery=planet_gallery,
        port=0,
        threads=1,
        max_body_bytes=2 * 2**20,
        max_inputs=20,
        allowed_hosts=("testserver",),
    )


@pytest.fixture(scope="session")
def engine(settings: ServerSettings) -> Engine:
    return Engine.open(settings)


@pytest.fixture(scope="module")
def client(engine: Engine, settings: ServerSettings) -> Iterator[TestClient]:
    """A started app; its errors come back as answers, as over the network."""
    with TestClient(create_app(engine, settings), raise_server_exceptions=False) as started:
        yield started


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of a place of the planet."""
    place = Planet().places("test", 1)[0]
    stream = io.BytesIO()
    Planet().ground(place.lat, place.lon, size=96).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def tile(planet_gallery: Path) -> bytes:
    """A PNG of a plain colour: another picture than `photo`."""
    stream = io.BytesIO()
    Image.new("RGB", (80, 60), (30, 120, 60)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def address(tiny_bundle: Path, planet_gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server of the demo planet listens, for the page's tests."""
    from fitted import make_fitted

    with running(make_fitted(tiny_bundle, tmp_path_factory.mktemp("fitted")), planet_gallery) as (_, where):
        yield where


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    """One browser for all of the page's tests."""
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started
