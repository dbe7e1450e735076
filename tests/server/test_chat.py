"""/v1/chat/completions: what it answers, what it refuses, and how a stream ends."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from edgegeo.runtime import Decoding, Generator
from edgegeo.runtime.decoding import Decoder
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings

ADDRESS = "/v1/chat/completions"


def part(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(data).decode()}}


def asking(photo: bytes, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part(photo)]}], **more}


def lively(photo: bytes, **more: Any) -> dict[str, Any]:
    """Drawn wildly: the tiny model's likeliest tokens are halves of letters, which a stream holds back."""
    return asking(photo, temperature=2.0, seed=1, max_tokens=200, stream=True, **more)


def events(text: str) -> list[Any]:
    """The data of every event; the last one is "[DONE]"."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every step of the decode loop takes 20 ms longer; the list counts them."""
    steps: list[int] = []
    tell: Callable[..., None] = Decoder._tell

    def slowly(self: Decoder, answers: Any) -> None:
        steps.append(1)
        time.sleep(0.02)
        tell(self, answers)

    monkeypatch.setattr(Decoder, "_tell", slowly)
    return steps


def test_settings_reach_the_model(client: TestClient, tiny_bundle: Path, photo: bytes) -> None:
    generator = Generator.open(tiny_bundle, threads=1)
    for sent, decoding in (
        ({}, Decoding()),
        ({"max_tokens": 3}, Decoding(max_new_tokens=3)),
        ({"max_completion_tokens": 5, "temperature": 0}, Decoding(max_new_tokens=5)),
        ({"temperature": 1.5, "top_p": 0.8, "seed": 7}, Decoding(temperature=1.5, top_p=0.8, seed=7)),
    ):
        answer = client.post(ADDRESS, json=asking(photo, **sent))
        assert answer.status_code == 200, answer.text
        expected = generator.answer(photo, decoding)
        (choice,) = answer.json()["choices"]
        assert choice["message"]["content"] == expected.text
        assert choice["finish_reason"] == ("length" if expected.cut else "stop")
        assert answer.json()["usage"]["completion_tokens"] == len(expected.tokens)
    assert answer.json()["warnings"] == []


def test_without_a_seed_draws_differ(client: TestClient, photo: bytes) -> None:
    texts = {
        client.post(ADDRESS, json=asking(photo, temperature=2.0)).json()["choices"][0]["message"]["content"]
        for _ in range(4)
    }
    assert len(texts) > 1


def test_several_answers(client: TestClient, tiny_bundle: Path, photo: bytes) -> None:
    answer = client.post(ADDRESS, json=asking(photo, n=3, temperature=1.0, seed=4)).json()
    expected = Generator.open(tiny_bundle, threads=1).candidates(photo, 3, Decoding(temperature=1.0, seed=4))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in answer["choices"]] == [one.text for one in expected]
    assert answer["usage"]["completion_tokens"] == sum(len(one.tokens) for one in expected)


def test_words_are_said_not_to_be_read(client: TestClient, photo: bytes) -> None:
    silent = client.post(ADDRESS, json=asking(photo)).json()
    body = {
        "messages": [
            {"role": "system", "content": "You are a geographer."},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, part(photo)]},
        ]
    }
    spoken = client.post(ADDRESS, json=body).json()
    assert spoken["choices"] == silent["choices"]
    assert silent["warnings"] == []
    assert "not read" in spoken["warnings"][0]
    first = events(client.post(ADDRESS, json={**body, "stream": True}).text)[0]
    assert first["warnings"] == spoken["warnings"]


def test_a_stream_has_openais_form(client: TestClient, photo: bytes) -> None:
    whole = client.post(ADDRESS, json=asking(photo)).json()
    answer = client.post(ADDRESS, json=asking(photo, stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer.text)
    assert all(set(chunk) >= {"id", "object", "created", "model", "system_fingerprint", "choices"} for chunk in chunks)
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[0]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    counted = events(client.post(ADDRESS, json=asking(photo, stream=True, stream_options={"include_usage": True})).text)
    assert [chunk["usage"] for chunk in counted[:-1]] == [None] * (len(counted) - 1)
    assert counted[-1]["choices"] == []
    assert counted[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": ["x"]}, "stop"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_k": 5}, "top_k"),
        ({"temperatur": 0.5}, "temperatur"),
        ({"a field with blanks": 1}, None),
    ],
)
def test_what_is_not_supported_is_refused(client: TestClient, photo: bytes, more: dict[str, Any], param: str) -> None:
    answer = client.post(ADDRESS, json=asking(photo, **more))
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert answer.json()["error"]["param"] == param
    assert "blanks" not in answer.text


def test_what_asks_for_nothing_is_accepted(client: TestClient, photo: bytes) -> None:
    neutral = {
        "tools": None, "logprobs": False, "stop": [], "frequency_penalty": 0, "response_format": {"type": "text"},
        "user": "me", "metadata": {"a": "b"}, "n": 1, "stream": False, "logit_bias": {}, "presence_penalty": 0.0,
    }  # fmt: skip
    assert client.post(ADDRESS, json=asking(photo, **neutral)).status_code == 200


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": 2, "temperature": 1.0, "stream": True}, "n"),
        ({"n": 33}, "n"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "Where?"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Here."}]}, "messages.0"),
    ],
)
def test_settings_that_mean_nothing(client: TestClient, photo: bytes, more: dict[str, Any], param: str) -> None:
    answer = client.post(ADDRESS, json={**asking(photo), **more})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] == param


def test_pictures_of_messages(client: TestClient, photo: bytes, tile: bytes) -> None:
    two = client.post(ADDRESS, json={"messages": [{"role": "user", "content": [part(photo), part(tile)]}]})
    assert two.json()["error"]["param"] == "messages"
    loose = {"messages": [{"role": "user", "content": part(photo)["image_url"]["url"]}]}
    assert client.post(ADDRESS, json=loose).json()["error"]["param"] == "messages.0.content"
    remote = {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}}
    for stream in (False, True):
        body = {"messages": [{"role": "user", "content": [remote]}], "stream": stream}
        answer = client.post(ADDRESS, json=body)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "url_not_fetched"
        # What fails before the first word has its own status, streamed or not.
        answer = client.post(ADDRESS, json=asking(b"no picture", stream=stream))
        assert answer.status_code == 415


def test_a_failure_in_the_middle_becomes_an_event(
    client: TestClient, photo: bytes, slow: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell: Callable[..., None] = Decoder._tell

    def failing(self: Decoder, answers: Any) -> None:
        if len(slow) >= 20:
            raise RuntimeError("/secret/path")
        tell(self, answers)

    monkeypatch.setattr(Decoder, "_tell", failing)
    answer = client.post(ADDRESS, json=lively(photo))
    assert answer.status_code == 200
    *chunks, last = events(answer.text)
    assert any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)
    assert last["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert client.post(ADDRESS, json=asking(b"", stream=True)).status_code == 415


def test_a_deadline_in_the_middle_becomes_an_event(
    engine: Engine, settings: ServerSettings, photo: bytes, slow: list[int]
) -> None:
    with TestClient(create_app(engine, replace(settings, deadline_s=0.5))) as client:
        answer = client.post(ADDRESS, json=lively(photo))
        *chunks, last = events(answer.text)
        assert len(chunks) > 2
        assert last["error"]["code"] == "deadline_exceeded"
        stopped = len(slow)
        client.post("/v1/embeddings", json={"input": "river"})  # waits until the model is free
        assert len(slow) <= stopped + 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_model(
    engine: Engine, settings: ServerSettings, photo: bytes, slow: list[int], stream: bool
) -> None:
    """The app is driven by hand, since no test client leaves in the middle."""
    app = create_app(engine, settings)
    body = json.dumps(asking(photo, stream=stream, max_tokens=200)).encode()

    async def leave_early() -> None:
        gone = anyio.Event()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            pass

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
            "path": ADDRESS, "raw_path": ADDRESS.encode(), "query_string": b"", "scheme": "http", "root_path": "",
            "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        async with app.router.lifespan_context(app), anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope, receive, send)
            with anyio.fail_after(10):
                while len(slow) < 3:
                    await anyio.sleep(0.01)
            gone.set()
            await anyio.sleep(0.2)
            stopped = len(slow)
            await anyio.sleep(0.2)
            assert len(slow) <= stopped + 1
            tasks.cancel_scope.cancel()

    anyio.run(leave_early)
    assert len(slow) < 60
