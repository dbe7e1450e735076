"""What a request that can't be answered gets: a 4xx, one clear line, OpenAI's envelope, nothing private."""

import base64
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import BaseModel, ValidationError

from edgegeo.server.faults import Refusal, public_text
from edgegeo.server.json_body import MOST_VALUES, read_json
from edgegeo.server.schemas import ChatRequest, EmbeddingsRequest, RerankRequest, TilesRequest

IMAGE_ROUTES = ("embeddings", "rerank", "search", "locate")


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 9)).save(stream, "PNG")
    return stream.getvalue()


def huge_header() -> bytes:
    """A PNG that declares 20,000 x 20,000 pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise(photo: bytes) -> bytes:
    return bytes(value ^ 0x5A for value in photo)


def send(client: TestClient, route: str, url: str) -> Any:
    """A picture to a route, wherever it takes one."""
    part = {"type": "image_url", "image_url": {"url": url}}
    bodies: dict[str, Any] = {
        "embeddings": {"input": [part]},
        "rerank": {"query": "a river", "documents": [{"content": [part]}]},
        "search": {"image": url},
        "locate": {"image": url},
    }
    return client.post(f"/v1/{route}", json=bodies[route])


def refused(answer: Any, status: int, code: str) -> str:
    """Check the envelope; the message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    assert error["message"].count("\n") == 0
    assert 10 < len(error["message"]) < 420
    for private in (
        str(Path.cwd()),
        tempfile.gettempdir(),
        "Traceback",
        "0x",
        ".py",
        "site-packages",
    ):
        assert private not in answer.text
    return str(error["message"])


@pytest.mark.parametrize("route", IMAGE_ROUTES)
@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/a.jpg", "https://example.com/a.png", "file:///etc/passwd", "FTP://x/y"]
)
def test_addresses_are_never_fetched(client: TestClient, route: str, url: str) -> None:
    message = refused(send(client, route, url), 422, "url_not_fetched")
    assert "never fetches" in message
    assert "passwd" not in message


@pytest.mark.parametrize("route", IMAGE_ROUTES)
def test_bytes_that_are_no_image(client: TestClient, route: str, photo: bytes) -> None:
    for data in (noise(photo), b"", b"GIF89a" + bytes(100), b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        refused(send(client, route, url), 415, "not_an_image")
    refused(send(client, route, "data:text/html;base64,AAAA"), 415, "not_an_image")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
@pytest.mark.parametrize("url", ["data:image/png,rawdata", "data:image/png;base64", "data:"])
def test_broken_data_uris(client: TestClient, route: str, url: str) -> None:
    refused(send(client, route, url), 422, "invalid_data_uri")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
def test_broken_base64(client: TestClient, route: str) -> None:
    refused(send(client, route, "data:image/png;base64,%%%%"), 422, "invalid_base64")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
@pytest.mark.parametrize("case", ["1x1", "1x4000", "bomb", "cut"])
def test_pictures_that_cant_be_used(client: TestClient, route: str, case: str, photo: bytes) -> None:
    data = {"1x1": png(1, 1), "1x4000": png(1, 4000), "bomb": huge_header(), "cut": photo[: len(photo) // 2]}[case]
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    message = refused(send(client, route, url), 422, "unusable_image")
    told = {"1x1": "1 x 1", "1x4000": "1 x 4000", "bomb": "pixels", "cut": "cut off"}[case]
    assert told in message


@pytest.mark.parametrize("data", [b"", b"not a picture at all", bytes(64)])
def test_uploads_that_are_no_image(client: TestClient, data: bytes) -> None:
    refused(client.post("/v1/locate", files={"image": ("x.jpg", data)}), 415, "not_an_image")


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), ("  \n\t ", "empty_text"), ("river " * 17_000, "text_too_long"), ("river " * 300, None)],
)
def test_texts_that_cant_be_used(client: TestClient, text: str, code: str | None) -> None:
    documents = [{"id": "test-00000"}]
    for route, body in (
        ("embeddings", {"input": text}),
        ("embeddings", {"input": ["fine", text]}),
        ("rerank", {"query": text, "documents": documents}),
        ("search", {"text": text}),
        ("locate", {"text": text}),
    ):
        message = refused(client.post(f"/v1/{route}", json=body), 422, code or "invalid_input")
        assert "text" in message


def test_a_lone_surrogate_is_no_text(client: TestClient) -> None:
    raw = json.dumps({"input": "a \ud800 b"})
    for route, body in (("embeddings", raw), ("locate", raw.replace("input", "text"))):
        answer = client.post(f"/v1/{route}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("embeddings", {}, "input"),
        ("embeddings", {"input": []}, "input"),
        ("embeddings", {"input": None}, "input"),
        ("embeddings", {"input": [[1, 2, 3]]}, None),
        ("embeddings", {"input": ["x"] * 21}, "input"),
        ("embeddings", {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ("embeddings", {"input": "x", "dimensions": 7}, "dimensions"),
        ("embeddings", {"input": "data:image/png;base64,AAAA"}, "input.0"),
        ("embeddings", {"input": [{"type": "audio", "audio": "x"}]}, None),
        ("embeddings", {"input": [{"content": []}]}, None),
        ("rerank", {"query": "x"}, "documents"),
        ("rerank", {"documents": ["test-00000"]}, "query"),
        ("rerank", {"query": "x", "documents": []}, "documents"),
        ("rerank", {"query": "x", "documents": ["test-00000"], "top_n": 0}, "top_n"),
        ("rerank", {"query": "x", "documents": ["test-00000"], "top_n": "NaN"}, "top_n"),
        ("rerank", {"query": "x", "documents": ["test-00000"] * 21}, "documents"),
        ("rerank", {"query": "x", "documents": ["y"], "rank_fields": ["title"]}, "rank_fields.0"),
        ("rerank", {"query": "x", "documents": ["y"], "max_tokens_per_doc": 9}, "max_tokens_per_doc"),
        ("search", {}, None),
        ("search", {"text": "x", "k": 0}, "k"),
        ("search", {"text": "x", "k": 1.5}, "k"),
        ("search", {"text": "x", "kk": 3}, "kk"),
        ("locate", {"k": 3}, None),
        ("locate", {"text": "x", "format": "kml"}, "format"),
        ("locate", {"text": "x", "rerank": -1}, "rerank"),
        ("locate", {"text": 5}, "text"),
        ("locate", [], None),
        ("locate", "text", None),
    ],
)
def test_requests_of_the_wrong_form(client: TestClient, route: str, body: Any, param: str | None) -> None:
    answer = client.post(f"/v1/{route}", json=body)
    refused(answer, 422, "invalid_input")
    if param is not None:
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("document", [{"id": "test-99999"}, {"id": "../../etc/passwd"}])
def test_unknown_documents_are_named_by_place(client: TestClient, document: Any) -> None:
    answer = client.post("/v1/rerank", json={"query": "x", "documents": [{"id": "test-00001"}, document]})
    message = refused(answer, 422, "unknown_document")
    assert answer.json()["error"]["param"] == "documents.1"
    assert "passwd" not in message


@pytest.mark.parametrize("route", IMAGE_ROUTES)
@pytest.mark.parametrize("raw", [b"{", b'{"k": NaN}', b"[" * 50_000, b"\xff\xfe\x00", b"null", b""])
def test_bodies_that_are_no_json_object(client: TestClient, route: str, raw: bytes) -> None:
    answer = client.post(f"/v1/{route}", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def posted(client: TestClient, route: str, raw: bytes | str) -> Any:
    return client.post(f"/v1/{route}", content=raw, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e999",
        '"\\ud800"',
        '"\\udc00\\ud800"',
        "1" * 5000,
        '{"a": 1, "a": 2}',
    ],
)
@pytest.mark.parametrize("route", [*IMAGE_ROUTES, "chat/completions"])
def test_json_has_one_meaning(client: TestClient, route: str, value: str) -> None:
    # In a field that nobody reads, and in one that is.
    for field in ("user", "k", "model"):
        refused(posted(client, route, f'{{"input": "x", "text": "x", "{field}": {value}}}'), 400, "invalid_json")


@pytest.mark.parametrize("route", [*IMAGE_ROUTES, "chat/completions"])
def test_no_field_comes_twice(client: TestClient, route: str) -> None:
    for raw in ('{"text": "a", "text": "a"}', '{"input": "a", "x": {"b": 1, "b": 1}}', '{"a": [{"k": 1, "k": 2}]}'):
        refused(posted(client, route, raw), 400, "invalid_json")


@pytest.mark.parametrize("route", [*IMAGE_ROUTES, "chat/completions"])
def test_many_values_are_refused_before_they_are_made(client: TestClient, route: str) -> None:
    for item in ("{}", "[]", "0", '{"a":[]}'):
        refused(posted(client, route, f'{{"x": [{item}' + f",{item}" * 25_000 + "]}"), 413, "too_large")


def test_commas_in_texts_are_no_values() -> None:
    text = json.dumps({"input": 'a, [b], {c} and "quoted", ' * 10_000}).encode()
    assert text.count(b",") > MOST_VALUES
    assert read_json(text) == json.loads(text)
    with pytest.raises(Refusal):
        read_json(text[:-1] + b', "more": [' + b"0," * MOST_VALUES + b"0]}")


@pytest.mark.parametrize("depth", [200, 900, 100_000])
@pytest.mark.parametrize("route", [*IMAGE_ROUTES, "chat/completions"])
def test_depth_is_no_trap(client: TestClient, route: str, depth: int) -> None:
    for opened, closed in (("[", "]"), ('{"input":', "}"), ('{"messages":[', "]}")):
        answer = posted(client, route, opened * depth + "0" + closed * depth)
        assert answer.status_code in (400, 413, 422), answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (EmbeddingsRequest, {"input": [{}] * 5000}),
        (RerankRequest, {"query": "x", "documents": [{}] * 5000}),
        (TilesRequest, {"tiles": [{}] * 5000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * 5000}]}),
    ],
)
def test_one_wrong_item_is_enough(schema: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        schema.model_validate(body)
    # An error for every item and every form that it might have had would be megabytes of errors.
    assert caught.value.error_count() < 10


def test_other_content_types(client: TestClient, photo: bytes) -> None:
    answer = client.post("/v1/locate", content=photo, headers={"content-type": "image/jpeg"})
    refused(answer, 415, "unsupported_media_type")
    refused(client.post("/v1/locate"), 415, "unsupported_media_type")


def test_forms_of_the_wrong_form(client: TestClient, photo: bytes) -> None:
    upload = ("p.jpg", photo)
    refused(client.post("/v1/locate", files={"picture": upload}), 422, "invalid_input")
    refused(client.post("/v1/locate", files={"image": upload}, data={"k": "many"}), 422, "invalid_input")
    both = {"image": "data:image/png;base64,AAAA"}
    refused(client.post("/v1/locate", files={"file": upload}, data=both), 422, "invalid_input")
    raw = client.post(
        "/v1/locate", content=b"--x\r\nbroken", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert raw.status_code in (400, 422), raw.text
    assert "error" in raw.json()
    bare = client.post("/v1/locate", content=b"x", headers={"content-type": "multipart/form-data"})
    assert bare.status_code in (400, 422), bare.text


def test_addresses_that_are_none(client: TestClient) -> None:
    refused(client.get("/v2/nothing"), 404, "not_found")
    refused(client.get("/v1/locate"), 405, "method_not_allowed")
    refused(client.get("/v1/gallery/nope/thumbnail"), 404, "unknown_tile")
    refused(client.get("/v1/gallery/..%2F..%2Fetc%2Fpasswd/thumbnail"), 404, "unknown_tile")
    refused(client.get("/page/..%2Fapp.py"), 404, "not_found")
    refused(client.get("/page/../../app.py"), 404, "not_found")
    refused(client.get("/v1/examples/one/photo.jpg"), 422, "invalid_input")


@pytest.mark.parametrize(
    "secret",
    ["can't read /srv/models/a.onnx", "C:\\models\\a", "at 0x7f00deadbeef", "in ~/.ssh/key", "'/srv/a' is odd", "a=/b"],
)
def test_messages_with_something_private_are_replaced(secret: str) -> None:
    assert public_text(ValueError(secret), "plain") == "plain"
    assert public_text(ValueError("image: not a JPEG/PNG, aspect 1/2"), "plain") == "image: not a JPEG/PNG, aspect 1/2"


def test_nothing_of_the_above_hurt_the_server(client: TestClient, photo: bytes, tmp_path: Path) -> None:
    assert client.post("/v1/locate", files={"image": ("p.jpg", photo)}).status_code == 200
    assert "edgegeo_requests_in_hand 0.0" in client.get("/metrics").text
