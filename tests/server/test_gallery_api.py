"""The gallery over HTTP: what it holds, tiles added and deleted, reloads."""

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from edgegeo.runtime import Gallery, Row
from edgegeo.runtime.gallery.edit import add_tiles, delete_tiles
from edgegeo.runtime.gallery.packed import Packed
from edgegeo.runtime.gallery.writing import writing
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.forms import SentTile
from edgegeo.server.gallery_api import Change, Edits, add_to, delete_from, extent
from edgegeo.server.inputs import Upload
from edgegeo.server.serving import Serving
from edgegeo.server.settings import ServerSettings

KEY = "0123456789abcdef-admin"
ADMIN = {"x-admin-key": KEY}


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def uri(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def sent(name: str, seed: int, **more: Any) -> dict[str, Any]:
    return {"id": name, "lat": 10.0 + seed, "lon": -20.0 - seed, "image": uri(jpeg(seed)), **more}


@pytest.fixture
def gallery(planet_gallery: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(planet_gallery, tmp_path / "planet-tiny"))


@pytest.fixture
def admin(settings: ServerSettings, gallery: Path) -> Iterator[TestClient]:
    """A server whose gallery may be changed."""
    own = replace(settings, gallery=gallery, admin_key=KEY)
    with TestClient(create_app(Engine.open(own), own), raise_server_exceptions=False) as started:
        yield started


def test_facts(client: TestClient, planet_gallery: Path) -> None:
    opened = Gallery.open(planet_gallery)
    facts = client.get("/v1/gallery").json()
    assert facts["name"] == "planet-tiny"
    assert facts["bundle"] == "tiny"
    assert facts["tiles"] == len(opened) == 12
    assert facts["version"] == opened.version
    west, south, east, north = facts["bounds"]
    assert (south, north) == (opened.positions[:, 0].min(), opened.positions[:, 0].max())
    inside = (opened.positions[:, 1] - west) % 360 <= (east - west) % 360
    assert inside.all()
    assert client.get("/v1/gallery?model=tiny").json() == facts
    assert client.get("/v1/gallery?model=other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("longitudes", "expected"),
    [
        ([10.0, 20.0, -5.0], (-5.0, 20.0)),
        ([170.0, -175.0, 179.0], (170.0, -175.0)),
        ([7.0], (7.0, 7.0)),
        ([-180.0, 180.0], (180.0, -180.0)),
    ],
)
def test_extent_is_the_shortest_arc(longitudes: list[float], expected: tuple[float, float]) -> None:
    assert extent(np.array(longitudes)) == expected


@pytest.mark.parametrize("way", ["json", "form"])
def test_added_tiles_are_found_at_once(admin: TestClient, gallery: Path, way: str) -> None:
    before = admin.get("/v1/gallery").json()
    if way == "json":
        answer = admin.post("/v1/gallery/tiles", json={"tiles": [sent("new/a", 1), sent("b", 2)]}, headers=ADMIN)
    else:
        columns = {"id": ["new/a", "b"], "lat": ["11", "12"], "lon": ["-21", "-22"]}
        files = [("image", ("a.jpg", jpeg(1))), ("image", ("b.jpg", jpeg(2)))]
        answer = admin.post("/v1/gallery/tiles", data=columns, files=files, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    counts = {"added": 2, "replaced": 0, "deleted": 0, "tiles": 14}
    assert answer.json() == {"gallery": "planet-tiny", **counts, "version": before["version"] + 1}
    found = admin.post("/v1/search", json={"image": uri(jpeg(1)), "k": 1}).json()["hits"][0]
    assert found["id"] == "new/a"
    assert found["position"] == {"lat": 11.0, "lon": -21.0}
    assert found["score"] > 0.99
    assert admin.get(found["thumbnail"]).headers["content-type"] == "image/jpeg"
    assert len(Gallery.open(gallery)) == 14
    assert admin.get("/v1/gallery").json()["tiles"] == 14


def test_a_deleted_tile_is_gone(admin: TestClient, gallery: Path) -> None:
    admin.post("/v1/gallery/tiles", json={"tiles": [sent("new/a", 1)]}, headers=ADMIN)
    answer = admin.delete("/v1/gallery/tiles/new%2Fa", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    assert answer.json()["deleted"] == 1
    assert answer.json()["tiles"] == 12
    assert admin.get("/v1/gallery/new%2Fa/thumbnail").status_code == 404
    assert "new/a" not in [hit["id"] for hit in admin.post("/v1/search", json={"image": uri(jpeg(1))}).json()["hits"]]
    gone = admin.delete("/v1/gallery/tiles/new%2Fa", headers=ADMIN)
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "unknown_tile"
    for row in range(1, 12):
        assert admin.delete(f"/v1/gallery/tiles/test-{row:05d}", headers=ADMIN).status_code == 200
    last = admin.delete("/v1/gallery/tiles/test-00000", headers=ADMIN)
    assert last.status_code == 409
    assert last.json()["error"]["code"] == "last_tile"
    assert admin.post("/v1/search", json={"text": "river"}).json()["hits"][0]["id"] == "test-00000"


def test_replace_takes_the_place_of_a_tile(admin: TestClient) -> None:
    again = {"tiles": [sent("test-00000", 3)]}
    refused = admin.post("/v1/gallery/tiles", json=again, headers=ADMIN)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "tile_exists"
    answer = admin.post("/v1/gallery/tiles", json={**again, "replace": True}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["tiles"], answer.json()["replaced"]) == (12, 1)
    assert admin.post("/v1/search", json={"image": uri(jpeg(3)), "k": 1}).json()["hits"][0]["id"] == "test-00000"


@pytest.mark.parametrize(
    ("tiles", "param", "status"),
    [
        ([sent("a", 1, lat=91.0)], "tiles.0", 422),
        ([sent("a", 1, lon=float("inf"))], None, 422),
        ([sent("a", 1, image="https://example.com/a.jpg")], "tiles.0.image", 422),
        ([sent("a", 1), sent("b", 2, image=uri(b"no picture"))], "tiles.1.image", 415),
        ([sent("a", 1), sent("a", 2)], "tiles.1.id", 422),
        ([sent("", 1)], "tiles.0", 422),
        ([sent(f"t{i}", 1) for i in range(21)], "tiles", 422),
        ([], "tiles", 422),
        ([{"id": "a", "lat": 1.0, "lon": 2.0}], "tiles.0", 422),
    ],
)
def test_tiles_that_cant_be_added_change_nothing(
    admin: TestClient, gallery: Path, tiles: list[dict[str, Any]], param: str | None, status: int
) -> None:
    raw = json.dumps({"tiles": tiles})
    answer = admin.post("/v1/gallery/tiles", content=raw, headers={**ADMIN, "content-type": "application/json"})
    assert answer.status_code == status or (param is None and answer.status_code == 400), answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert Gallery.open(gallery).version == 1
    assert len(Gallery.open(gallery)) == 12


@pytest.mark.parametrize(
    "columns", [{"id": ["a"], "lat": ["1"], "lon": []}, {"id": ["a"], "lat": ["x"], "lon": ["1"]}, {"name": ["a"]}]
)
def test_forms_that_are_incomplete(admin: TestClient, columns: dict[str, list[str]]) -> None:
    files = [("image", ("a.jpg", jpeg(1)))]
    answer = admin.post("/v1/gallery/tiles", data=columns, files=files, headers=ADMIN)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] == "invalid_input"


def test_changes_need_the_administrators_key(client: TestClient, admin: TestClient) -> None:
    body = {"tiles": [sent("a", 1)]}
    for headers in ({}, {"x-admin-key": "another-key-of-some-length"}):
        for answer in (
            admin.post("/v1/gallery/tiles", json=body, headers=headers),
            admin.delete("/v1/gallery/tiles/test-00001", headers=headers),
            admin.post("/v1/admin/reload", json={}, headers=headers),
        ):
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "not_the_administrator"
    # A server without such a key takes no changes from anyone.
    assert client.post("/v1/admin/reload", json={}, headers=ADMIN).json()["error"]["code"] == "no_admin_key"
    assert admin.get("/v1/gallery").json()["tiles"] == 12


def test_a_change_outlives_its_client(settings: ServerSettings, gallery: Path) -> None:
    own = replace(settings, gallery=gallery)
    app = create_app(Engine.open(own), own)
    tile = SentTile("late", 1.0, 2.0, Upload(jpeg(4), "image"))
    held, go = threading.Event(), threading.Event()

    def slowly(serving: Serving) -> Change:
        held.set()
        assert go.wait(10)
        return add_to(serving, [tile], False)

    async def leave() -> None:
        async with app.router.lifespan_context(app):
            fleet = app.state.context.fleet
            edits = Edits(fleet)
            with anyio.move_on_after(0.2) as left:
                await edits.run(None, slowly)
            assert left.cancelled_caught
            assert held.is_set()
            go.set()
            after = await edits.run(None, lambda serving: delete_from(serving, "test-00002"))
            assert (after.tiles, after.version) == (12, 3)
            async with fleet.use() as serving:
                assert serving.engine.gallery.row("late") is not None

    anyio.run(leave)


def test_a_gallery_that_someone_else_changes_is_busy(admin: TestClient, gallery: Path) -> None:
    with writing(gallery):
        answer = admin.delete("/v1/gallery/tiles/test-00001", headers=ADMIN)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "gallery_busy"
    assert answer.headers["retry-after"] == "1"
    assert admin.delete("/v1/gallery/tiles/test-00001", headers=ADMIN).status_code == 200


def test_a_change_counts_what_another_process_changed(admin: TestClient, gallery: Path, engine: Engine) -> None:
    embedder = engine.locator.embedder
    assert embedder is not None
    add_tiles(gallery, [Row("theirs", 1.0, 2.0, jpeg(7))], embedder)
    delete_tiles(gallery, ["test-00003"])
    gone = admin.delete("/v1/gallery/tiles/test-00003", headers=ADMIN)
    assert gone.json()["error"]["code"] == "unknown_tile"
    again = admin.post("/v1/gallery/tiles", json={"tiles": [sent("theirs", 8)]}, headers=ADMIN)
    assert again.json()["error"]["code"] == "tile_exists"
    assert admin.delete("/v1/gallery/tiles/theirs", headers=ADMIN).json()["tiles"] == 11


def test_no_request_reads_all_ids_of_a_changed_gallery(admin: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"tiles": [sent("ours", 9)]}
    assert admin.post("/v1/gallery/tiles", json=body, headers=ADMIN).status_code == 200
    monkeypatch.setattr(Packed, "all", None)
    assert admin.get("/v1/gallery/ours/thumbnail").status_code == 200


def test_reload_without_a_body_is_of_the_default(admin: TestClient) -> None:
    assert admin.post("/v1/admin/reload", headers=ADMIN).json()["model"] == "tiny"


def test_reload_serves_what_lies_on_disk(admin: TestClient, gallery: Path) -> None:
    same = admin.post("/v1/admin/reload", json={}, headers=ADMIN)
    assert same.status_code == 200, same.text
    assert same.json()["changed"] is False
    delete_tiles(gallery, ["test-00003"])
    other = admin.post("/v1/admin/reload", json={"model": "tiny"}, headers=ADMIN).json()
    assert other["changed"] is True
    assert other["gallery_tiles"] == 11
    assert admin.post("/v1/admin/reload", json={"model": "x"}, headers=ADMIN).status_code == 404
