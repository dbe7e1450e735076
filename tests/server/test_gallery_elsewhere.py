"""A server whose gallery lies in PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from edgegeo.runtime.postgres.push import push_gallery
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings

KEY = "0123456789abcdef-admin"


@pytest.fixture(scope="module")
def elsewhere(settings: ServerSettings, planet_gallery: Path, postgres: str) -> Iterator[TestClient]:
    url = postgres.replace("/postgres?", "/postgres/served?")
    push_gallery(planet_gallery, url)
    there = replace(settings, gallery=url, admin_key=KEY)
    with TestClient(create_app(Engine.open(there), there), raise_server_exceptions=False) as started:
        yield started


def test_it_answers_as_from_the_folder(elsewhere: TestClient, client: TestClient, planet_gallery: Path) -> None:
    sent = {"text": "a river by a village", "k": 5}
    here, there = (one.post("/v1/search", json=sent).json() for one in (client, elsewhere))
    assert [(hit["id"], hit["score"]) for hit in there["hits"]] == [(hit["id"], hit["score"]) for hit in here["hits"]]
    picture = elsewhere.get(there["hits"][0]["thumbnail"])
    assert picture.content == client.get(here["hits"][0]["thumbnail"]).content
    facts, known = elsewhere.get("/v1/gallery").json(), client.get("/v1/gallery").json()
    assert facts["name"] == "served"
    assert {**facts, "name": ""} == {**known, "name": ""}


def test_it_takes_up_what_is_pushed_and_changes_nothing_itself(
    elsewhere: TestClient, planet_gallery: Path, postgres: str
) -> None:
    admin = {"x-admin-key": KEY}
    answer = elsewhere.delete("/v1/gallery/tiles/test-00001", headers=admin)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "gallery_elsewhere")
    push_gallery(planet_gallery, postgres.replace("/postgres?", "/postgres/served?"))
    assert elsewhere.post("/v1/admin/reload", headers=admin, json={}).status_code == 200
    assert elsewhere.get("/v1/gallery").json()["version"] == 2
