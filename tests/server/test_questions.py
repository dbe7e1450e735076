"""Questions of several parts: more pictures of one place, what it is not, second looks, a tile that asks."""

import base64
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from edgegeo.runtime import Gallery, Locator, Reranker, Reranking

TEXT = "a green field beside a river"


def uri(data: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def locator(tiny_bundle: Path, planet_gallery: Path) -> Locator:
    return Locator.open(tiny_bundle, planet_gallery, threads=1)


def test_more_pictures_and_what_a_place_is_not(client: TestClient, locator: Locator, photo: bytes, tile: bytes) -> None:
    sent = {"image": uri(photo), "images": [uri(tile, "png")], "text": TEXT, "avoid": ["a river", "red roofs"], "k": 5}
    wanted = locator.locate(photo, TEXT, k=5, also=[tile], avoid=["a river", "red roofs"], generate=False)
    for route, more in (("search", {}), ("locate", {"generate": False})):
        answer = client.post(f"/v1/{route}", json={**sent, **more})
        assert answer.status_code == 200, answer.text
        got = answer.json()["hits"]
        assert [hit["id"] for hit in got] == [hit.id for hit in wanted.hits]
        np.testing.assert_allclose([hit["score"] for hit in got], [hit.score for hit in wanted.hits], atol=1e-5)
    drawn = client.post("/v1/locate", json={"image": uri(photo), "images": [uri(tile, "png")], "candidates": 2}).json()
    assert len(drawn["candidates"]) == 4


def test_second_looks(client: TestClient, locator: Locator, photo: bytes) -> None:
    how = {"rerank": 4, "both_orders": True, "pairwise": 3}
    got = client.post("/v1/locate", json={"image": uri(photo), "k": 4, "generate": False, **how}).json()["hits"]
    wanted = locator.locate(photo, k=4, rerank=Reranking(4, True, 3), generate=False).hits
    assert [hit["id"] for hit in got] == [hit.id for hit in wanted]
    scores = [hit.rerank_score for hit in wanted]
    assert [hit["rerank_score"] for hit in got] == pytest.approx(scores, abs=1e-4)


def test_a_tile_asks_for_texts(client: TestClient, tiny_bundle: Path, planet_gallery: Path) -> None:
    texts = ["houses with red roofs", "a river", "no"]
    answer = client.post("/v1/rerank", json={"query": {"id": "test-00001"}, "documents": texts}).json()
    reranker, gallery = Reranker.open(tiny_bundle, threads=1), Gallery.open(planet_gallery)
    row = gallery.row("test-00001")
    assert row is not None
    (seen,) = reranker.model.features("vision", reranker.model.prepare([gallery.thumbnail(row)]))
    margins = reranker.text_margins(seen, texts)
    assert [one["index"] for one in answer["results"]] == np.argsort(-margins).tolist()
    assert {one["read_as"] for one in answer["results"]} == {"text_first"}


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        ("locate", {"text": TEXT, "images": ["data:image/png;base64,AAAA"]}, 422, "images"),
        ("locate", {"text": TEXT, "avoid": [" "]}, 422, "avoid.0"),
        ("search", {"text": TEXT, "avoid": ["x"] * 16}, 422, "avoid"),
        ("locate", {"text": TEXT, "pairwise": 3}, 422, None),
        ("locate", {"text": TEXT, "rerank": 2, "pairwise": 1}, 422, None),
        ("rerank", {"query": {"id": "nowhere"}, "documents": ["x"]}, 422, "query"),
    ],
)
def test_questions_that_make_no_sense(
    client: TestClient, route: str, body: dict[str, object], status: int, param: str | None
) -> None:
    answer = client.post(f"/v1/{route}", json=body)
    assert answer.status_code == status, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param


def test_an_unusable_further_picture_is_named(client: TestClient, photo: bytes) -> None:
    answer = client.post("/v1/locate", json={"image": uri(photo), "images": [uri(b"no picture at all")]})
    assert answer.status_code == 415
    assert "images.0" in answer.text
