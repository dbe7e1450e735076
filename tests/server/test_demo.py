"""Which world the page draws: the demo planet where the gallery or the model is of it, else the Earth."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from rewritten import rewritten

from edgegeo.runtime import Embedder, Gallery
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings

ADMIN = {"x-admin-key": "0123456789abcdef-admin"}


def world(client: TestClient) -> tuple[str | None, str, bool]:
    ready = client.get("/health/ready").json()
    return ready["map"], ready["basemap"], ready["examples"]


def own_gallery(bundle: Path, path: Path) -> Path:
    picture = Image.new("RGB", (64, 64), (9, 99, 199))
    return Gallery.build(path, [("a", 1.0, 2.0, picture)], Embedder.open(bundle, threads=1)).path


@pytest.mark.parametrize("with_gallery", [True, False])
def test_a_model_of_the_planet_is_shown_on_it(
    tiny_bundle: Path, settings: ServerSettings, tmp_path: Path, with_gallery: bool
) -> None:
    bundle = rewritten(tiny_bundle, tmp_path / "seven", source={"checkpoint": "random", "planet_seed": 7})
    gallery = own_gallery(bundle, tmp_path / "own") if with_gallery else None
    own = replace(settings, bundles=(bundle,), gallery=gallery)
    engine = Engine.open(own)
    assert engine.planet_seed == 7
    with TestClient(create_app(engine, own)) as client:
        assert world(client) == ("/v1/map.png", "/v1/map.json", True)


def test_a_reload_brings_another_world(
    tiny_bundle: Path, planet_gallery: Path, settings: ServerSettings, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(planet_gallery, tmp_path / "tiles"))
    own = replace(settings, gallery=place, admin_key=ADMIN["x-admin-key"])
    with TestClient(create_app(Engine.open(own), own)) as client:
        assert world(client) == ("/v1/map.png", "/v1/map.json", True)
        own_gallery(tiny_bundle, place)
        assert client.post("/v1/admin/reload", headers=ADMIN).json()["gallery_tiles"] == 1
        assert world(client) == (None, "/page/earth.json", False)
        assert client.get("/v1/map.json").json()["error"]["code"] == "no_demo"
