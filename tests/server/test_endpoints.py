"""What a well-meant request gets."""

import base64
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from edgegeo.planet import Planet
from edgegeo.runtime import Embedder, Gallery, Reranker
from edgegeo.runtime.rerank import probability

TEXT = "a green field beside a river"


def uri(data: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def part(data: bytes, kind: str = "jpeg") -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": uri(data, kind)}}


def test_embeddings_equal_the_runtimes_in_any_form_and_order(
    client: TestClient, tiny_bundle: Path, photo: bytes, tile: bytes
) -> None:
    inputs = [
        TEXT,
        part(photo),
        {"type": "text", "text": "houses"},
        {"content": [part(tile, "png")]},
        {"content": [{"type": "text", "text": "roofs"}]},
    ]
    answer = client.post("/v1/embeddings", json={"model": "tiny", "input": inputs, "user": "me", "more": 1})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "list"
    assert body["model"] == "tiny"
    assert [row["index"] for row in body["data"]] == [0, 1, 2, 3, 4]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    got = np.array([row["embedding"] for row in body["data"]], np.float32)
    embedder = Embedder.open(tiny_bundle, threads=1)
    texts, images = embedder.texts([TEXT, "houses", "roofs"]), embedder.images([photo, tile])
    np.testing.assert_allclose(got[[0, 2, 4]], texts, atol=1e-5)
    np.testing.assert_allclose(got[[1, 3]], images, atol=1e-5)


def test_embeddings_as_base64_are_the_same_floats(client: TestClient) -> None:
    plain = client.post("/v1/embeddings", json={"input": TEXT}).json()
    packed = client.post("/v1/embeddings", json={"input": [TEXT], "encoding_format": "base64"}).json()
    assert plain["model"] == packed["model"] == "tiny"
    raw = base64.b64decode(packed["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), np.array(plain["data"][0]["embedding"], np.float32))


def test_embeddings_of_a_form_equal_those_of_json(client: TestClient, photo: bytes, tile: bytes) -> None:
    sent = [("input", ("a.jpg", photo)), ("input", (None, TEXT)), ("input", ("b.png", tile))]
    form = client.post("/v1/embeddings", files=sent, data={"encoding_format": "base64"})
    assert form.status_code == 200, form.text
    body = {"input": [part(photo), TEXT, part(tile, "png")], "encoding_format": "base64"}
    assert form.json() == client.post("/v1/embeddings", json=body).json()
    bad = [("input", ("a.jpg", photo)), ("input", ("b.png", b"none"))]
    refused = client.post("/v1/embeddings", files=bad)
    assert refused.status_code == 415
    assert refused.json()["error"]["param"] == "input.1"
    for files, data in ((sent * 7, {}), ([("picture", ("a.jpg", photo))], {}), (sent, {"dimensions": "x"})):
        assert client.post("/v1/embeddings", files=files, data=data).status_code == 422


def test_more_inputs_than_one_group_keep_their_order(client: TestClient) -> None:
    texts = ["river " * (1 + i % 7) + "field" * (i % 3) for i in range(20)]
    together = client.post("/v1/embeddings", json={"input": texts}).json()["data"]
    for i in (0, 6, 16, 19):
        alone = client.post("/v1/embeddings", json={"input": texts[i]}).json()["data"][0]["embedding"]
        np.testing.assert_allclose(together[i]["embedding"], alone, atol=1e-4)


def test_rerank_scores_equal_the_runtimes_and_come_sorted(
    client: TestClient, tiny_bundle: Path, planet_gallery: Path, photo: bytes, tile: bytes
) -> None:
    documents = [{"content": [part(tile, "png")]}, part(photo), {"id": "test-00003"}, {"id": "test-00004"}, uri(photo)]
    body = {"query": TEXT, "documents": documents, "return_documents": True}
    answer = client.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert {r["index"]: r["document"] for r in results}[2] == {"id": "test-00003"}
    gallery = Gallery.open(planet_gallery)
    pictures = [tile, photo, gallery.thumbnail(3), gallery.thumbnail(4), photo]
    expected = Reranker.open(tiny_bundle, threads=1).score(TEXT, pictures)
    for result in results:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=1e-5)
    best = client.post("/v1/rerank", json={**body, "top_n": 2}).json()["results"]
    assert [r["index"] for r in best] == [r["index"] for r in results[:2]]


@pytest.mark.parametrize("address", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("asked", ["text", "picture"])
def test_rerank_reads_texts_and_pictures_together(
    client: TestClient, tiny_bundle: Path, photo: bytes, tile: bytes, address: str, asked: str
) -> None:
    query = TEXT if asked == "text" else part(photo)
    documents = ["houses", part(tile, "png"), {"text": "a river", "title": "kept"}, {"type": "text", "text": "no"}]
    body = {"query": query, "documents": documents, "return_documents": True}
    answer = client.post(address, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["meta"] == {"api_version": {"version": address[2]}}
    results = {result["index"]: result for result in answer.json()["results"]}
    reranker, embedder = Reranker.open(tiny_bundle, threads=1), Embedder.open(tiny_bundle, threads=1)
    model = reranker.model
    seen = TEXT if asked == "text" else model.features("vision", model.prepare([photo]))[0]
    texts = probability(reranker.text_margins(seen, ["houses", "a river", "no"]))
    (picture,) = reranker.score(TEXT if asked == "text" else photo, [tile])
    scores = [results[i]["relevance_score"] for i in range(4)]
    assert scores == pytest.approx([texts[0], picture, texts[1], texts[2]], abs=1e-5)
    how = "text_second" if asked == "text" else "text_first"
    assert [results[i]["read_as"] for i in range(4)] == [how, "picture", how, how]
    assert results[0]["document"] == {"text": "houses"}
    assert results[2]["document"] == {"text": "a river", "title": "kept"}
    words = ["houses", "a river", "no", *([TEXT] if asked == "text" else [])]
    assert answer.json()["usage"]["total_tokens"] == sum(len(embedder.model.tokenizer.encode(word)) for word in words)


@pytest.mark.parametrize("form", ["uri", "part", "content"])
def test_rerank_takes_a_picture_as_query(client: TestClient, photo: bytes, tile: bytes, form: str) -> None:
    query = {"uri": uri(photo), "part": part(photo), "content": {"content": [part(photo)]}}[form]
    answer = client.post("/v1/rerank", json={"query": query, "documents": [part(tile, "png"), part(photo)]}).json()
    assert {result["index"] for result in answer["results"]} == {0, 1}
    assert answer["results"][0]["document"] is None


def test_search_finds_a_tile_by_itself(client: TestClient, planet_gallery: Path) -> None:
    own = Gallery.open(planet_gallery).thumbnail(5)
    answer = client.post("/v1/search", json={"image": uri(own), "k": 3})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["gallery"]) == ("tiny", "planet-tiny")
    assert body["hits"][0]["id"] == "test-00005"
    assert body["hits"][0]["score"] > 0.99
    assert len(body["hits"]) == 3
    place = Planet().places("test", 6)[5]
    assert body["hits"][0]["position"] == pytest.approx({"lat": place.lat, "lon": place.lon})
    assert body["timings_ms"]["total"] > 0
    thumbnail = client.get(body["hits"][0]["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.content == own


def test_json_base64_and_upload_get_the_same_answer(client: TestClient, photo: bytes) -> None:
    bare = base64.b64encode(photo).decode()
    answers = [
        client.post("/v1/locate", json={"image": uri(photo), "k": 4, "rerank": 2}),
        client.post("/v1/locate", json={"image": bare, "k": 4, "rerank": 2}),
        client.post("/v1/locate", files={"image": ("p.jpg", photo)}, data={"k": "4", "rerank": "2"}),
        client.post("/v1/locate", files={"file": ("p.jpg", photo)}, data={"k": "4", "rerank": "2"}),
    ]
    bodies = [{**answer.json(), "timings_ms": None} for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["source"] in ("generation", "retrieval")
    assert len(bodies[0]["hits"]) == 4
    assert bodies[0]["hits"][0]["rerank_score"] is not None
    assert bodies[0]["hits"][3]["rerank_score"] is None
    assert bodies[0]["text"] is not None
    stages = answers[0].json()["timings_ms"]
    assert {"wait", "decode", "vision", "embed", "search", "rerank", "generate", "total"} <= set(stages)


def test_locate_takes_words_or_words_and_picture(client: TestClient, photo: bytes) -> None:
    words = client.post("/v1/locate", json={"text": TEXT}).json()
    assert words["source"] == "retrieval"
    assert words["position"] == words["hits"][0]["position"]
    assert words["text"] is None
    both = client.post("/v1/locate", files={"image": ("p.jpg", photo)}, data={"text": TEXT}).json()
    assert len(both["hits"]) == 10


@pytest.mark.parametrize("way", ["field", "accept", "address"])
def test_locate_as_geojson(client: TestClient, way: str) -> None:
    body = {"text": TEXT, "k": 2, **({"format": "geojson"} if way == "field" else {})}
    address = "/v1/locate?format=geojson" if way == "address" else "/v1/locate"
    answer = client.post(address, json=body, headers={"accept": "application/geo+json"} if way == "accept" else {})
    assert answer.headers["content-type"] == "application/geo+json"
    collection = answer.json()
    assert collection["type"] == "FeatureCollection"
    assert [f["properties"]["role"] for f in collection["features"]] == ["answer", "hit", "hit"]
    lon, lat = collection["features"][0]["geometry"]["coordinates"]
    assert -180 <= lon <= 180
    assert -90 <= lat <= 90


def test_ready_says_what_is_served_on_what(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    ready = client.get("/health/ready").json()
    assert ready["bundle"] == "tiny"
    assert ready["provider"] == ["CPUExecutionProvider"]
    assert ready["roles"] == ["embed", "rerank", "generate"]
    assert ready["gallery"] == {"name": "planet-tiny", "tiles": 12}
    assert (ready["map"], ready["basemap"], ready["examples"]) == ("/v1/map.png", "/v1/map.json", True)
    models = client.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json() == models["data"][0]


@pytest.mark.parametrize(
    ("address", "body"),
    [
        ("/v1/embeddings", {"input": TEXT}),
        ("/v1/rerank", {"query": TEXT, "documents": [TEXT]}),
        ("/v2/rerank", {"query": TEXT, "documents": [TEXT]}),
        ("/v1/search", {"text": TEXT}),
        ("/v1/locate", {"text": TEXT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [part(b"")]}]}),
    ],
)
def test_a_model_that_is_not_served_is_refused_by_name(
    client: TestClient, address: str, body: dict[str, object]
) -> None:
    answer = client.post(address, json={**body, "model": "gpt-4o"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"
    for name in ("", None, "tiny"):
        assert client.post(address, json={**body, "model": name}).status_code != 404
    assert client.get("/v1/models/gpt-4o").json()["error"]["code"] == "model_not_found"


def test_metrics_count_what_was_done(client: TestClient) -> None:
    client.post("/v1/locate", json={"text": TEXT})
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert 'edgegeo_request_seconds_count{method="POST",route="/v1/locate",status="200"}' in text
    assert 'route="other",status="404"' in text
    assert "nowhere" not in text
    for name in (
        'edgegeo_stage_seconds_count{stage="search"}',
        "edgegeo_queue_size 0.0",
        'edgegeo_gallery_tiles{bundle="tiny"} 12.0',
    ):
        assert name in text
    assert "process_resident_memory_bytes" in text
    assert 'edgegeo_model_info{bundle="tiny"' in text


def test_examples_have_photos_and_true_places(client: TestClient) -> None:
    examples = client.get("/v1/examples").json()["data"]
    assert len(examples) == 8
    for example in examples:
        truth = example["truth"]
        assert Planet().is_land(truth["lat"], truth["lon"])
        assert example["description"]
    photo = client.get(examples[0]["photo"])
    assert photo.headers["content-type"] == "image/jpeg"
    assert client.post("/v1/locate", files={"image": ("x", photo.content)}).status_code == 200
    assert client.get("/v1/map.png").content.startswith(b"\x89PNG")
    assert client.get("/v1/examples/8/photo.jpg").status_code == 404
    assert client.get("/v1/examples/-1/photo.jpg").status_code == 404


def test_pages_name_no_other_host(client: TestClient) -> None:
    for address in ("/", "/docs", "/page/app.js", "/page/map.js", "/page/docs.js", "/page/style.css", "/page/icon.svg"):
        answer = client.get(address)
        assert answer.status_code == 200, address
        text = answer.text.replace("http://www.w3.org/", "").replace("http://${location.host}", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "style=" not in text  # the page's own policy would refuse it
