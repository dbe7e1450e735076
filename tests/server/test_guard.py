"""What stands before every request: key, size, queue, deadline, headers; and what failures look like from outside."""

import gzip
import hmac
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from rewritten import rewritten
from starlette.websockets import WebSocketDisconnect

from edgegeo.bundle import Roles, open_bundle
from edgegeo.errors import BundleError, GalleryError
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.guard import ADMIN_HEADER, MOST_HEADERS, SECURITY_HEADERS
from edgegeo.server.settings import ServerSettings

KEY = "0123456789abcdef-key"


@contextmanager
def started(engine: Engine, settings: ServerSettings, **changes: Any) -> Iterator[TestClient]:
    app = create_app(engine, replace(settings, **changes))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def model_busy(client: TestClient) -> Iterator[None]:
    """The model thread at work on something long; the jobs behind it wait."""
    hold = threading.Event()
    scheduler = client.app.state.context.fleet.scheduler  # type: ignore[attr-defined]
    assert client.portal is not None
    client.portal.start_task_soon(scheduler.run, "heartbeat", hold.wait, 20)
    try:
        yield
    finally:
        hold.set()


def code(answer: Any) -> str:
    return str(answer.json()["error"]["code"])


def test_without_the_right_key_nothing_is_answered(engine: Engine, settings: ServerSettings) -> None:
    with started(engine, settings, api_key=KEY) as client:
        for address in ("/v1/models", "/metrics", "/v1/examples", "/v1/map.png", "/v1/gallery/test-00000/thumbnail"):
            answer = client.get(address)
            assert (answer.status_code, code(answer)) == (401, "missing_api_key"), address
            assert answer.headers["www-authenticate"] == "Bearer"
        body = {"text": "a river"}
        for sent in ("Bearer wrong", "Bearer " + KEY + "x", "Bearer " + KEY[:-1], "Bearer \u00e9"):
            answer = client.post("/v1/locate", json=body, headers={"authorization": sent.encode("latin-1")})
            assert (answer.status_code, code(answer)) == (401, "invalid_api_key")
        for sent in ("Basic " + KEY, KEY, "Bearer", "Bearer "):
            assert client.post("/v1/locate", json=body, headers={"authorization": sent}).status_code == 401
        right = {"authorization": f"Bearer {KEY}"}
        assert client.post("/v1/locate", json=body, headers=right).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200


def test_pages_and_probes_need_no_key_and_tell_no_secret(engine: Engine, settings: ServerSettings) -> None:
    with started(engine, settings, api_key=KEY) as client:
        for address in ("/", "/docs", "/openapi.json", "/page/app.js", "/health/live", "/health/ready"):
            answer = client.get(address)
            assert answer.status_code == 200, address
            assert KEY not in answer.text
        assert client.get("/page/../v1/models").status_code == 401
    assert KEY not in repr(replace(settings, api_key=KEY))


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    answers = [client.get(address) for address in ("/", "/docs", "/none", "/page/app.js", "/page/none", "/metrics")]
    answers += [client.post("/v1/locate", json={}), client.delete("/v1/gallery/tiles/x"), client.options("/v1/locate")]
    answers += [client.get("/", headers={"host": "elsewhere.example"}), client.get("/health/ready")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "camera=(self)" in answer.headers["permissions-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]
    for answer in (client.post("/v1/locate", json={"text": "x"}), client.get("/v1/models"), client.get("/none")):
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LOCALHOST.", "127.0.0.1:1", "[::1]:80", "10.1.2.3"])
def test_own_names_and_addresses_are_answered(engine: Engine, settings: ServerSettings, host: str) -> None:
    with started(engine, settings, allowed_hosts=("Edge.local",)) as client:
        assert client.get("/v1/models", headers={"host": host}).status_code == 200
        assert client.get("/v1/models", headers={"host": "edge.local:8080"}).status_code == 200


def test_a_name_that_was_made_to_point_here_is_not_answered(engine: Engine, settings: ServerSettings) -> None:
    with started(engine, settings, allowed_hosts=()) as client:
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[::1",
            "localhost:8080:1",
        ):
            for answer in (
                client.get("/", headers={"host": host}),
                client.post("/v1/locate", json={"text": "x"}, headers={"host": host}),
                client.get("/health/live", headers={"host": host}),
            ):
                assert (answer.status_code, code(answer)) == (421, "unknown_host"), host
        right = {"host": "localhost"}
        assert 'edgegeo_refused_total{reason="host"} 18.0' in client.get("/metrics", headers=right).text
    with started(engine, settings, allowed_hosts=("*",)) as client:
        assert client.get("/health/live", headers={"host": "evil.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver:9999"},
        {"origin": "http://testserver.evil.example"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_origins_cant_send_anything(client: TestClient, headers: dict[str, str]) -> None:
    for method, address in (("POST", "/v1/locate"), ("POST", "/v1/gallery/tiles"), ("DELETE", "/v1/gallery/tiles/x")):
        answer = client.request(method, address, json={"text": "x"}, headers=headers)
        assert (answer.status_code, code(answer)) == (403, "cross_origin")
    # No preflight is granted, and what can be read without one is withheld by the browser (CORP, no CORS).
    asked = {**headers, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = client.options("/v1/locate", headers=asked)
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers
    assert client.get("/v1/models", headers=headers).headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("headers", [{}, {"origin": "https://testserver"}, {"sec-fetch-site": "same-origin"}])
def test_the_own_page_and_other_programs_may(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/locate", json={"text": "x"}, headers=headers).status_code == 200


def test_only_the_administrator_changes_anything(engine: Engine, settings: ServerSettings) -> None:
    changes = [
        ("POST", "/v1/gallery/tiles"), ("DELETE", "/v1/gallery/tiles/none"), ("POST", "/v1/admin/reload"),
        ("PUT", "/v1/models"), ("PATCH", "/anything"), ("GET", "/v1/admin/none"), ("POST", "/v1/gallery"),
    ]  # fmt: skip
    with started(engine, settings) as client:
        for method, address in changes:
            answer = client.request(method, address, headers={ADMIN_HEADER: "", "authorization": f"Bearer {KEY}"})
            assert (answer.status_code, code(answer)) == (403, "no_admin_key"), address
    admin = "an-administrators-key"
    right = {"authorization": f"Bearer {KEY}"}
    with started(engine, settings, api_key=KEY, admin_key=admin) as client:
        for method, address in changes:
            assert client.request(method, address, headers={ADMIN_HEADER: admin}).status_code == 401
            for sent in ({}, {ADMIN_HEADER: KEY}, {ADMIN_HEADER: admin + "x"}, {ADMIN_HEADER: ""}):
                answer = client.request(method, address, headers={**right, **sent})
                assert (answer.status_code, code(answer)) == (403, "not_the_administrator"), (address, sent)
            allowed = client.request(method, address, headers={**right, ADMIN_HEADER: admin}, content=b"{")
            assert allowed.status_code in (200, 400, 404, 405, 415, 422), address
        # The administrator's key is no API key.
        answer = client.get("/v1/models", headers={"authorization": f"Bearer {admin}"})
        assert (answer.status_code, code(answer)) == (401, "invalid_api_key")


def test_keys_are_compared_in_constant_time(
    engine: Engine, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    with started(engine, settings, api_key=KEY, admin_key=KEY + "admin") as client:
        for sent in ("x", KEY, "x" * 5000):
            client.delete("/v1/models", headers={"authorization": f"Bearer {sent}", ADMIN_HEADER: sent})
    # Whatever is sent, digests of one length are compared: three API keys, and the one administrator's behind it.
    assert compared == [(32, 32)] * 4


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_packed_bodies_are_not_unpacked(client: TestClient, encoding: str) -> None:
    packed = gzip.compress(b'{"text": "a river"}')
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = client.post("/v1/locate", content=packed, headers=headers)
    assert (answer.status_code, code(answer)) == (415, "encoded_body")
    answer = client.post("/v1/locate", json={"text": "x"}, headers={"content-encoding": "identity"})
    assert answer.status_code == 200


def test_many_headers_are_refused(client: TestClient) -> None:
    assert client.get("/health/live", headers={f"x-{i}": "y" for i in range(50)}).status_code == 200
    answer = client.get("/health/live", headers={f"x-{i}": "y" for i in range(MOST_HEADERS + 1)})
    assert (answer.status_code, code(answer)) == (431, "too_many_headers")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_websockets_are_closed(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/locate"):
        pass


def test_request_ids_are_given_or_made(client: TestClient) -> None:
    assert client.get("/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for odd in ("a b", "x" * 65, "<script>"):
        made = client.get("/health/live", headers={"x-request-id": odd}).headers["x-request-id"]
        assert made != odd
        assert len(made) == 32


def test_a_large_body_is_refused_unread_and_while_reading(client: TestClient, settings: ServerSettings) -> None:
    size = settings.max_body_bytes + 1
    answer = client.post("/v1/locate", content=b"x" * size, headers={"content-type": "application/json"})
    assert (answer.status_code, code(answer)) == (413, "too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(1 + size // 65536):
            yield b" " * 65536

    for kind in ("application/json", "multipart/form-data; boundary=x"):
        for route in ("embeddings", "locate"):
            answer = client.post(f"/v1/{route}", content=pieces(), headers={"content-type": kind})
            # The OpenAI-shaped routes know only JSON and look at no other body.
            assert (answer.status_code, code(answer)) == (413, "too_large"), (kind, route)
    answer = client.post("/v1/locate", content=b"{}", headers={"content-length": "-5"})
    assert answer.status_code in (400, 413)


def test_a_full_queue_is_answered_at_once(engine: Engine, settings: ServerSettings) -> None:
    with started(engine, settings, queue_size=2) as client, ThreadPoolExecutor(2) as pool:
        with model_busy(client):
            waiting = [pool.submit(client.post, "/v1/locate", json={"text": "a river"}) for _ in range(2)]
            admission = client.app.state.context.admission  # type: ignore[attr-defined]
            end = time.monotonic() + 10
            while admission.in_hand < 2:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert "edgegeo_requests_in_hand 2.0" in client.get("/metrics").text
            answer = client.post("/v1/locate", json={"text": "a river"})
            assert (answer.status_code, code(answer)) == (429, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
            assert client.get("/health/live").status_code == 200
        assert [job.result().status_code for job in waiting] == [200, 200]
        assert client.post("/v1/locate", json={"text": "a river"}).status_code == 200
        assert 'edgegeo_refused_total{reason="queue"} 1.0' in client.get("/metrics").text


def test_the_deadline_drops_what_waits(
    engine: Engine, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    locate = engine.locate

    def noted(photo: Any, text: Any, **how: Any) -> Any:
        ran.append(text)
        return locate(photo, text, **how)

    monkeypatch.setattr(engine, "locate", noted)
    with started(engine, settings, deadline_s=0.3) as client:
        with model_busy(client):
            answer = client.post("/v1/locate", json={"text": "late"})
            assert (answer.status_code, code(answer)) == (504, "deadline_exceeded")
        assert client.post("/v1/locate", json={"text": "soon"}).status_code == 200
        assert ran == ["soon"]
        assert "edgegeo_requests_in_hand 0.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("error", "status", "wanted"),
    [
        (RuntimeError("bad at 0x7fffdeadbeef in /srv/secret.onnx"), 500, "internal_error"),
        (MemoryError(), 503, "out_of_memory"),
        (BundleError("/srv/bundle/x.npy can't be read"), 503, "bundle_unavailable"),
        (GalleryError("/srv/gallery is damaged"), 503, "gallery_unavailable"),
    ],
)
def test_failures_tell_nothing_private(
    client: TestClient,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    wanted: str,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine, "locate", fail)
        answer = client.post("/v1/locate", json={"text": "x"}, headers={"x-request-id": "find-me"})
    assert (answer.status_code, code(answer)) == (status, wanted)
    assert answer.json()["error"]["type"] == "server_error"
    for private in ("srv", "0x7f", "Traceback", "RuntimeError"):
        assert private not in answer.text
    assert answer.headers["x-request-id"] == "find-me"
    if str(error):
        assert "find-me" in caplog.text
        assert "srv" in caplog.text
    assert client.post("/v1/locate", json={"text": "x"}).status_code == 200


def test_a_role_or_gallery_that_is_not_there(
    tiny_bundle: Path, settings: ServerSettings, tmp_path: Path, photo: bytes
) -> None:
    roles = open_bundle(tiny_bundle).manifest.roles
    only = rewritten(tiny_bundle, tmp_path / "only", roles=Roles(generate=roles.generate))
    changed = replace(settings, bundles=(only,), gallery=None)
    with started(Engine.open(changed), changed) as client:
        ready = client.get("/health/ready").json()
        assert (ready["roles"], ready["gallery"], ready["examples"]) == (["generate"], None, False)
        bodies = {
            "embeddings": {"input": "x"},
            "rerank": {"query": "x", "documents": ["y"]},
            "search": {"text": "x"},
            "locate": {"text": "x"},
        }
        for route, body in bodies.items():
            answer = client.post(f"/v1/{route}", json=body)
            assert (answer.status_code, code(answer)) == (404, "role_not_offered"), route
        located = client.post("/v1/locate", files={"image": ("p.jpg", photo)})
        assert located.status_code == 200, located.text
        assert located.json()["hits"] == []
        assert code(client.post("/v1/locate", files={"image": ("p", photo)}, data={"generate": "0"})) == "no_gallery"
        for address in ("/v1/map.png", "/v1/examples", "/v1/examples/0/photo.jpg"):
            assert code(client.get(address)) == "no_demo"
    embedding = rewritten(tiny_bundle, tmp_path / "embedding", roles=Roles(embed=roles.embed))
    changed = replace(settings, bundles=(embedding,), gallery=None)
    with started(Engine.open(changed), changed) as client:
        assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
        assert code(client.post("/v1/search", json={"text": "x"})) == "no_gallery"
        assert code(client.post("/v1/locate", json={"text": "x"})) == "no_gallery"
        assert code(client.post("/v1/locate", files={"image": ("p.jpg", photo)})) == "no_gallery"
        assert code(client.post("/v1/locate", json={"text": "x", "rerank": 2})) == "role_not_offered"


def test_a_gallery_of_another_bundle_does_not_start(other_tiny_bundle: Path, settings: ServerSettings) -> None:
    with pytest.raises(GalleryError, match="rebuild it with"):
        Engine.open(replace(settings, bundles=(other_tiny_bundle,)))


def test_answers_are_never_mixed_up(client: TestClient) -> None:
    texts = [f"a green field and {'river ' * n}" for n in range(12)]
    alone = [client.post("/v1/search", json={"text": text}).json()["hits"] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: client.post("/v1/search", json={"text": text}).json()["hits"], texts * 3))
    assert together == alone * 3
