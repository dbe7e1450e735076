"""Starting and ending a real server process while clients are connected: who was let in gets an answer."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live import running

from edgegeo.server.listen import bind

# The model takes its time, so that signals meet it at work.
SLOW = """
import time
from edgegeo.server.engine import Engine
quick = Engine.embed_texts
def slowly(engine, texts):
    time.sleep({seconds})
    return quick(engine, texts)
Engine.embed_texts = slowly
"""
BODY = json.dumps({"input": "a very private river"})
JSON = {"content-type": "application/json"}


class Client:
    """One connection that is kept alive."""

    def __init__(self, address: str) -> None:
        self.line = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)

    def ask(self, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
        self.line.request(method, path, body, JSON if body else {})
        answer = self.line.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        return answer

    def embed(self) -> http.client.HTTPResponse:
        return self.ask("POST", "/v1/embeddings", BODY)


Connect = Callable[[str], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, and closes their connections in the end."""
    made: list[Client] = []

    def connected(address: str) -> Client:
        made.append(Client(address))
        return made[-1]

    yield connected
    for client in made:
        client.line.close()


def code(answer: Any) -> str:
    return str(json.loads(answer.body)["error"]["code"])


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def in_hand(client: Client) -> float:
    found = re.search(r"^edgegeo_requests_in_hand (\S+)$", client.ask("GET", "/metrics").body.decode(), re.M)  # type: ignore[attr-defined]
    assert found is not None
    return float(found[1])


def refused(address: str) -> bool:
    host, port = address.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_loses_nobody(tiny_bundle: Path, planet_gallery: Path, tmp_path: Path, connect: Connect) -> None:
    log = tmp_path / "log"
    settings: dict[str, Any] = {"log_format": "json", "heartbeat_s": 0.0}
    with (
        running(tiny_bundle, planet_gallery, log=log, before=SLOW.format(seconds=1.0), **settings) as (
            process,
            address,
        ),
        ThreadPoolExecutor(4) as pool,
    ):
        kept = [connect(address) for _ in range(4)]
        assert all(client.ask("GET", "/health/ready").status == 200 for client in kept)
        asked = [pool.submit(connect(address).embed) for _ in range(3)]
        until(lambda: in_hand(kept[3]) == 3)
        process.send_signal(signal.SIGTERM)
        until(lambda: refused(address))
        ready = kept[0].ask("GET", "/health/ready")
        assert (ready.status, code(ready)) == (503, "draining")
        late = kept[1].embed()
        assert (late.status, code(late)) == (503, "draining")
        assert (late.headers["connection"], late.headers["retry-after"]) == ("close", "1")
        assert kept[2].ask("GET", "/health/live").status == 200
        assert "edgegeo_draining 1.0" in kept[3].ask("GET", "/metrics").body.decode()  # type: ignore[attr-defined]
        answers = [job.result() for job in asked]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert all(answer.headers["connection"] == "close" for answer in answers)
        assert process.communicate(timeout=20)[0] == "ended\n"
        assert process.returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "edgegeo.server"] == [
        "warm", "ready", "draining", "drained"
    ]  # fmt: skip
    assert "private" not in log.read_text()
    requests = [line for line in lines if line["message"] == "request" and line["method"] == "POST"]
    assert sorted(line["status"] for line in requests) == [200, 200, 200, 503]
    assert all(line["wait_ms"] >= 0 and line["model_ms"] > 0 for line in requests if line["status"] == 200)
    assert max(line["batch"] for line in requests if line["status"] == 200) >= 1
    assert len({line["request_id"] for line in requests}) == 4


@pytest.mark.parametrize("kept", [pytest.param(True, marks=pytest.mark.slow, id="kept"), pytest.param(False, id="new")])
def test_clients_in_a_loop_are_answered_until_they_are_refused(
    tiny_bundle: Path, planet_gallery: Path, kept: bool
) -> None:
    """Each request gets 200 or 503, from the first to the last; then connecting fails, and nothing is reset."""

    def ask(address: str) -> list[int]:
        statuses: list[int] = []
        client = Client(address)
        while True:
            try:
                client.line.connect()
            except ConnectionRefusedError:
                return statuses
            with contextlib.closing(client.line):
                while True:
                    answer = client.embed()
                    statuses.append(answer.status)
                    if answer.headers["connection"] == "close" or not kept:
                        break

    with running(tiny_bundle, planet_gallery, cache_mb=0) as (process, address), ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, address) for _ in range(8)]
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        statuses = [status for job in asking for status in job.result()]
        assert process.wait(20) == 0
    assert set(statuses) == {200, 503}


@pytest.mark.slow
def test_what_does_not_end_in_time_is_told_so(tiny_bundle: Path, planet_gallery: Path, connect: Connect) -> None:
    with (
        running(tiny_bundle, planet_gallery, before=SLOW.format(seconds=1.5), drain_s=0.2) as (process, address),
        ThreadPoolExecutor(1) as pool,
    ):
        probe = connect(address)
        asked = pool.submit(connect(address).embed)
        until(lambda: in_hand(probe) == 1)
        process.send_signal(signal.SIGTERM)
        answer = asked.result()
        assert (answer.status, code(answer)) == (503, "draining")
        assert process.wait(20) == 0


def test_a_second_signal_ends_at_once(tiny_bundle: Path, planet_gallery: Path, connect: Connect) -> None:
    with (
        running(tiny_bundle, planet_gallery, before=SLOW.format(seconds=60)) as (process, address),
        ThreadPoolExecutor(1) as pool,
    ):
        probe = connect(address)
        asked = pool.submit(connect(address).embed)
        until(lambda: in_hand(probe) == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: refused(address))
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert process.wait(10) == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 3
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            asked.result()


def test_before_the_model_is_warm(tiny_bundle: Path, planet_gallery: Path, connect: Connect) -> None:
    """Probes are answered, questions turned away, and a signal ends it as cleanly as later."""
    with bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    program = f"""
import time
from edgegeo.server import ServerSettings, fleet, serve
from pathlib import Path
quick = fleet.warm_up
fleet.warm_up = lambda *given: time.sleep(1.5) or quick(*given)
serve(ServerSettings(bundles=(Path({str(tiny_bundle)!r}),), gallery=Path({str(planet_gallery)!r}), port={port}))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: not refused(address), 20)
        client = connect(address)
        assert client.ask("GET", "/health/live").status == 200
        for answer in (client.ask("GET", "/health/ready"), client.embed()):
            assert (answer.status, code(answer), answer.headers["retry-after"]) == (503, "not_ready", "1")
        assert client.ask("GET", "/").status == 200
        assert "edgegeo_ready 0.0" in client.ask("GET", "/metrics").body.decode()  # type: ignore[attr-defined]
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=20)
        assert (process.returncode, said) == (0, ""), errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_model_that_never_returns_does_not_keep_the_process(
    tiny_bundle: Path, planet_gallery: Path, tmp_path: Path, connect: Connect
) -> None:
    log = tmp_path / "log"
    with (
        running(tiny_bundle, planet_gallery, log=log, before=SLOW.format(seconds=600), drain_s=0.2) as (
            process,
            address,
        ),
        ThreadPoolExecutor(1) as pool,
    ):
        probe = connect(address)
        asked = pool.submit(connect(address).embed)
        until(lambda: in_hand(probe) == 1)
        process.send_signal(signal.SIGTERM)
        assert asked.result().status == 503
        assert process.wait(20) == 1
    assert "in slowly" in log.read_text()
