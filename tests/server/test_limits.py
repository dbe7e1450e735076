"""Places, bodies and memory: who gets how much, and what happens to the others."""

import asyncio
import io
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import wraps
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from test_guard import code, model_busy, started

from edgegeo.runtime.image import decoding_bytes
from edgegeo.server import limits
from edgegeo.server.engine import Engine
from edgegeo.server.faults import Refusal
from edgegeo.server.inputs import Decoder, Upload
from edgegeo.server.limits import Admission, Budget, Intake, client_of
from edgegeo.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:ffff::1", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("odd:one", "odd:one"),
    ],
)
def test_an_ipv6_network_is_one_client(host: str, client: str) -> None:
    assert client_of({"client": (host, 5)}) == client
    assert client_of({"client": None}) == client_of({}) == ""


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Cancel scopes are made where they are used: on an event loop."""

    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


@in_a_loop
async def test_a_client_alone_has_every_place() -> None:
    admission = Admission(3)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(admission.enter("a"))
        assert admission.in_hand == 3
        with pytest.raises(Refusal) as caught, admission.enter("a"):
            pass
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        assert caught.value.headers is not None
        assert int(caught.value.headers["retry-after"]) >= 1
    assert admission.in_hand == 0


@in_a_loop
async def test_the_greediest_gives_its_last_place_to_another() -> None:
    admission = Admission(4)
    with ExitStack() as held:
        places = [held.enter_context(admission.enter("a")) for _ in range(4)]
        places[3].answering = True
        first = held.enter_context(admission.enter("b"))
        # The youngest that has no answer yet.
        assert [place.given_up for place in places] == [False, False, True, False]
        assert places[2].scope.cancel_called
        assert admission.in_hand == 4
        held.enter_context(admission.enter("c"))
        # Two and one: another would only change who has more.
        with pytest.raises(Refusal), admission.enter("b"):
            pass
        assert not first.given_up
    assert admission.in_hand == 0


@in_a_loop
async def test_a_client_has_no_more_than_its_share() -> None:
    admission = Admission(10, per_client=2)
    with admission.enter("a"), admission.enter("a"), admission.enter("b"):
        with pytest.raises(Refusal) as caught, admission.enter("a"):
            pass
        assert caught.value.code == "client_limit"
        with admission.enter("b"):
            assert admission.in_hand == 4


class Sender:
    """An ASGI `receive` over pieces of a body; a number is a pause in seconds, None the end of the connection."""

    def __init__(self, *pieces: bytes | float | None) -> None:
        self.pieces = list(pieces)

    async def __call__(self) -> dict[str, Any]:
        piece = self.pieces.pop(0)
        if isinstance(piece, (int, float)):
            await anyio.sleep(piece)
            piece = self.pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}


async def taken(intake: Intake, *pieces: bytes | float | None) -> bytes | None:
    async with intake.body(Sender(*pieces)) as body:
        return body


def test_a_body_is_read_whole() -> None:
    intake = Intake(most_bytes=100, patience_s=5)
    assert asyncio.run(taken(intake, b"ab", 0.01, b"cd", b"")) == b"abcd"
    assert asyncio.run(taken(intake, b"ab", None)) is None
    with pytest.raises(Refusal) as caught:
        asyncio.run(taken(intake, bytes(60), bytes(41), b""))
    assert caught.value.status == 413


def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_S", 0.1)
    monkeypatch.setattr(limits, "SLOWEST_BYTES_S", 100)
    intake = Intake(most_bytes=1000, patience_s=5)
    # A byte now and then is a pause as well; a body that comes at a pace has its time.
    drip = [part for _ in range(20) for part in (b"x", 0.03)]
    with pytest.raises(Refusal) as caught:
        asyncio.run(taken(intake, *drip, b""))
    assert (caught.value.status, caught.value.code) == (408, "request_timeout")
    steady = [part for _ in range(8) for part in (bytes(20), 0.03)]
    assert asyncio.run(taken(intake, *steady, b"")) == bytes(160)


@in_a_loop
async def test_bodies_are_bounded_together() -> None:
    intake = Intake(most_bytes=10, patience_s=5)
    async with AsyncExitStack() as held:
        for _ in range(limits.BODIES):
            await held.enter_async_context(intake.body(Sender(bytes(10))))
        with pytest.raises(Refusal) as caught:
            await taken(intake, bytes(10))
        assert caught.value.status == 429
    assert await taken(intake, bytes(10)) == bytes(10)


def test_memory_is_lent_in_turn() -> None:
    async def run() -> list[str]:
        budget = Budget(10)
        told: list[str] = []

        async def use(name: str, amount: int, seconds: float) -> None:
            async with budget.hold(amount):
                told.append(f"{name} begins")
                await anyio.sleep(seconds)
                told.append(f"{name} ends")

        async with anyio.create_task_group() as tasks:
            for name, amount, seconds in (("a", 6, 0.05), ("b", 4, 0.1), ("large", 99, 0.01), ("c", 1, 0.01)):
                tasks.start_soon(use, name, amount, seconds)
                await anyio.sleep(0)
        return told

    assert asyncio.run(run()) == [
        "a begins", "b begins", "a ends", "b ends", "large begins", "large ends", "c begins", "c ends",
    ]  # fmt: skip


@in_a_loop
async def test_waiting_for_memory_can_be_given_up() -> None:
    budget = Budget(10)
    async with budget.hold(10):
        with anyio.move_on_after(0.02) as limit:
            async with budget.hold(1):
                pass
        assert limit.cancelled_caught
    with anyio.fail_after(1):
        async with budget.hold(10):
            pass


def test_large_pictures_are_opened_one_after_another(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = most = 0

    def slow(upload: Upload) -> Image.Image:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.05)
        now -= 1
        return Image.new("RGB", (32, 32))

    monkeypatch.setattr("edgegeo.server.inputs.decode", slow)
    stream = io.BytesIO()
    Image.new("RGB", (400, 300)).save(stream, "PNG")
    upload = Upload(stream.getvalue(), "image")
    cost = decoding_bytes(upload.data)
    assert cost >= 400 * 300 * 8

    async def run(decoder: Decoder) -> None:
        async def opened() -> None:
            async with decoder.opened(upload):
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(opened)
                tasks.start_soon(decoder.prepared, upload)

    for room, together in ((cost, 1), (2 * cost, 2), (100 * cost, 2)):
        most = 0
        asyncio.run(run(Decoder(engine.image_spec, threads=2, most_bytes=room)))
        assert most == together


def from_address(client: TestClient, address: str) -> TestClient:
    other = TestClient(client.app, raise_server_exceptions=False, client=(address, 1))
    other.portal = client.portal
    return other


def test_one_client_cant_keep_another_out(engine: Engine, settings: ServerSettings) -> None:
    with started(engine, settings, queue_size=3) as client, ThreadPoolExecutor(4) as pool:
        other = from_address(client, "10.9.8.7")
        with model_busy(client):
            greedy = [pool.submit(client.post, "/v1/locate", json={"text": "a river"}) for _ in range(3)]
            await_in_hand(client, 3)
            polite = pool.submit(other.post, "/v1/locate", json={"text": "a river"})
            end = time.monotonic() + 10
            while not any(job.done() for job in greedy):
                assert time.monotonic() < end
                time.sleep(0.01)
        statuses = sorted(job.result().status_code for job in greedy)
        assert statuses == [200, 200, 429]
        assert polite.result().status_code == 200
        assert 'edgegeo_refused_total{reason="queue"} 1.0' in client.get("/metrics").text


def test_a_clients_share_is_answered_429(engine: Engine, settings: ServerSettings) -> None:
    with started(engine, settings, per_client=1) as client, ThreadPoolExecutor(1) as pool:
        with model_busy(client):
            job = pool.submit(client.post, "/v1/locate", json={"text": "a river"})
            await_in_hand(client, 1)
            answer = client.post("/v1/locate", json={"text": "a river"})
            assert (answer.status_code, code(answer)) == (429, "client_limit")
            assert int(answer.headers["retry-after"]) >= 1
        assert job.result().status_code == 200


def await_in_hand(client: TestClient, count: int) -> None:
    end = time.monotonic() + 10
    while client.app.state.context.admission.in_hand < count:  # type: ignore[attr-defined]
        assert time.monotonic() < end
        time.sleep(0.01)
