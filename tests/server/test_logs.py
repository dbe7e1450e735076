"""The log: one line a request in either form, identified, and silent about what was asked."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgegeo.errors import GalleryError
from edgegeo.server import logs
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings

SECRET = "the hidden valley"
KEY = "0123456789abcdef-key"


@pytest.fixture(params=["json", "text"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """The process's log in one of the two forms; the loggers are as before in the end."""
    before = list(logging.getLogger().handlers)
    with logs.configured(request.param, io.StringIO()):
        (handler,) = logging.getLogger().handlers
        assert isinstance(handler, logging.StreamHandler)
        yield handler.stream
    assert logging.getLogger().handlers == before


@pytest.fixture
def lines(written: io.StringIO, request: pytest.FixtureRequest) -> Any:
    """The log's lines as dictionaries, whichever the form."""

    def read() -> list[dict[str, Any]]:
        text = written.getvalue().splitlines()
        if request.node.callspec.params["written"] == "json":
            return [json.loads(line) for line in text]
        found = []
        for line in text:
            time, level, message, *words = line.split(" ")
            facts = dict(word.split("=", 1) for word in words if "=" in word)
            found.append({"time": time, "level": level.lower(), "message": message, **facts})
        return found

    return read


@pytest.fixture
def keyed(engine: Engine, settings: ServerSettings) -> Iterator[TestClient]:
    from dataclasses import replace

    app = create_app(engine, replace(settings, api_key=KEY))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_one_line_a_request(lines: Any, written: io.StringIO, keyed: TestClient) -> None:
    head = {"authorization": f"Bearer {KEY}", "x-request-id": "robot-7.1"}
    assert keyed.post(f"/v1/search?why={SECRET}", json={"text": SECRET}, headers=head).status_code == 200
    texts = {"input": [f"{SECRET} {i}" for i in "abc"]}
    assert keyed.post("/v1/embeddings", json=texts, headers=head).status_code == 200
    keyed.get(f"/{SECRET}", headers={"authorization": f"Bearer {SECRET}"})
    asked = [line for line in lines() if line["message"] == "request"]
    assert [(line["method"], line["route"], int(line["status"])) for line in asked] == [
        ("POST", "/v1/search", 200),
        ("POST", "/v1/embeddings", 200),
        ("GET", "other", 401),
    ]
    for line in asked[:2]:
        assert line["request_id"] == "robot-7.1"
        assert float(line["ms"]) >= float(line["model_ms"]) > 0
        assert float(line["wait_ms"]) >= 0
        assert int(line["batch"]) >= 1
        assert line["client"] == "testclient"
    assert "batch" not in asked[2]
    assert len(asked[2]["request_id"]) == 32
    assert SECRET not in written.getvalue()
    assert KEY not in written.getvalue()


def test_a_traceback_stands_under_the_request_id(
    lines: Any, written: io.StringIO, keyed: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("wires crossed")

    monkeypatch.setattr(engine, "locate", fail)
    head = {"authorization": f"Bearer {KEY}", "x-request-id": "find-me"}
    answer = keyed.post("/v1/locate", json={"text": "x"}, headers=head)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "find-me")
    assert "wires" not in answer.text
    (failed,) = [line for line in lines() if line["level"] == "error"]
    assert failed["request_id"] == "find-me"
    assert "Traceback" in written.getvalue()
    assert "RuntimeError: wires crossed" in written.getvalue()


def test_a_known_failure_is_one_line_with_its_reason(written: io.StringIO) -> None:
    logs.failure("reload failed", GalleryError("it was damaged"), {"bundle": "tiny"})
    (line,) = written.getvalue().splitlines()
    assert "tiny" in line
    assert "it was damaged" in line
    assert "GalleryError" not in line  # as a traceback would have it
    logs.failure("reload failed", RuntimeError("wires crossed"), {"bundle": "tiny"})
    assert "RuntimeError: wires crossed" in written.getvalue()


def test_an_odd_request_id_is_not_taken_over(keyed: TestClient) -> None:
    for odd in ("a b", "x" * 65, "a=b", "\u00e9", "\x1b[31m", ""):
        made = keyed.get("/health/live", headers={"x-request-id": odd.encode("latin-1")}).headers["x-request-id"]
        assert made != odd
        assert len(made) == 32


def test_uvicorn_and_warnings_go_the_same_way(lines: Any, written: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    logging.getLogger("edgegeo.server").info("two\nlines\x1b[2J \u00e9")
    found = lines()
    assert len(found) >= 3
    assert found[0]["level"] == "warning"
    assert "UserWarning: old" in written.getvalue()
    assert "\x1b" not in written.getvalue()
    assert "request_id" not in found[0]
