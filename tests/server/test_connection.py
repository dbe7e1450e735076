"""A live server, spoken to over bare sockets: clients that are slow, unclear, or too many."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from live import running

from edgegeo.server import connection, limits
from edgegeo.server.guard import SECURITY_HEADERS


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, planet_gallery: Path) -> Iterator[tuple[str, int]]:
    """Host and port of a live server with little patience."""
    before = "import edgegeo.server.limits as l, edgegeo.server.connection as c; l.GRACE_S = 0.5; c.HEAD_S = 0.5\n"
    with running(tiny_bundle, planet_gallery, before=before, queue_size=1, max_body_bytes=2**20) as (_, address):
        parts = urlsplit(address)
        assert parts.hostname is not None
        assert parts.port is not None
        yield parts.hostname, parts.port


def exchange(server: tuple[str, int], *pieces: bytes | float, patience: float = 5.0) -> bytes:
    """Everything that the server says to these pieces until it hangs up or says nothing for a while."""
    with closing(socket.create_connection(server, timeout=patience)) as line:
        said = b""
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    line.sendall(piece)
                else:
                    time.sleep(piece)
            while got := line.recv(65536):
                said += got
        except (TimeoutError, ConnectionError):
            pass
        return said


HEAD = b"POST /v1/locate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize("start", [b"", b"POST /v1/loc", HEAD, b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx: "])
def test_the_end_of_a_head_is_not_waited_for(server: tuple[str, int], start: bytes) -> None:
    begun = time.monotonic()
    assert exchange(server, start) == b""
    assert time.monotonic() - begun < 3


def test_a_dripping_head_is_hung_up(server: tuple[str, int]) -> None:
    drip: list[bytes | float] = [part for _ in range(12) for part in (b"x", 0.1)]
    begun = time.monotonic()
    assert exchange(server, HEAD, *drip) == b""
    assert time.monotonic() - begun < 3


def test_slow_bodies_hold_no_place(server: tuple[str, int]) -> None:
    # The queue has one place; a body on its way does not take it.
    slow = [threading.Thread(target=exchange, args=(server, HEAD + b"content-length: 100\r\n\r\n{")) for _ in range(4)]
    for thread in slow:
        thread.start()
    body = b'{"text": "a river"}'
    whole = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    assert exchange(server, whole).startswith(b"HTTP/1.1 200 ")
    for thread in slow:
        thread.join()
    assert exchange(server, HEAD + b"content-length: 100\r\n\r\n{").startswith(b"HTTP/1.1 408 ")


def test_the_rest_of_a_refused_body_is_not_waited_for(server: tuple[str, int]) -> None:
    begun = time.monotonic()
    said = exchange(server, HEAD + b"content-length: 999999999\r\n\r\n" + bytes(1000))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - begun < 3


def test_a_second_request_has_its_own_time(server: tuple[str, int]) -> None:
    get = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
    said = exchange(server, get, 0.8, get, 0.8, get + b"GET /", patience=3)
    assert said.count(b"HTTP/1.1 200 ") == 3


def test_patience_is_more_than_the_tests_have() -> None:
    assert connection.HEAD_S >= 5
    assert limits.GRACE_S >= 2


def test_crowds_are_turned_away_in_the_envelope(server: tuple[str, int]) -> None:
    # limit_concurrency of the process: 8 queues and 64.
    with ExitStack() as held:
        for _ in range(72):
            held.enter_context(closing(socket.create_connection(server, timeout=5)))
        said = exchange(server, b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"overloaded"' in said
    assert b"nosniff" in said
    assert b"retry-after" in said


def heads(said: bytes) -> list[bytes]:
    """The status lines in it."""
    return [line for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


HOST = b"host: localhost\r\n"
INNER = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n12345" + INNER,
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"content-length: +5\r\n\r\n12345" + INNER,
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"content-length: 0x5\r\n\r\n12345" + INNER,
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"content-length : 5\r\n\r\n12345" + INNER,
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INNER,
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
        b"POST /v1/locate HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n" + INNER,
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"host: localhost\r\n folded: yes\r\n\r\n"[:-2] + b"\x00: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 200_000,
        b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n" * 50 + b"nonsense\r\n\r\n",
    ],
)
def test_unclear_requests_end_the_connection(server: tuple[str, int], request_bytes: bytes) -> None:
    said = exchange(server, request_bytes, patience=1)
    # One refusal, and nothing of what was smuggled behind it.
    assert len(heads(said)) == 1, said
    assert heads(said)[0].split()[1] in (b"400", b"501", b"505"), said
    head, _, body = said.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    lines = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))}
    for name, value in SECURITY_HEADERS.items():
        assert lines[name] == value
    assert lines["cache-control"] == "no-store"
    assert "server" not in lines


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (b"414", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n"),
        (b"431", b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n"),
    ],
)
def test_long_heads_are_refused(server: tuple[str, int], status: bytes, line: bytes) -> None:
    said = exchange(server, line + HOST + b"connection: close\r\n\r\n")
    assert heads(said)[0].split()[1] == status
    assert b"nosniff" in said


def test_length_and_chunks_together_are_read_one_way(server: tuple[str, int]) -> None:
    # RFC 9112 lets a server read the chunks and close; what counts is that the rest is no second request.
    both = b"content-length: 4\r\ntransfer-encoding: chunked\r\n"
    start = b"POST /v1/locate HTTP/1.1\r\n" + HOST + both
    said = exchange(server, start + b"\r\n0\r\n\r\n" + INNER, patience=0.5)
    assert len(heads(said)) <= 2
    assert b" 200 " not in heads(said)[0]


def test_chunks_without_a_length_are_counted(server: tuple[str, int]) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    said = exchange(server, HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk * 20)
    assert said.startswith(b"HTTP/1.1 413 ")


def test_unknown_upgrades_are_ignored(server: tuple[str, int]) -> None:
    for protocol in (b"websocket", b"h2c", b"TLS/1.0"):
        upgrade = b"connection: upgrade, close\r\nupgrade: " + protocol + b"\r\nsec-websocket-key: x\r\n\r\n"
        assert exchange(server, b"GET /health/live HTTP/1.1\r\n" + HOST + upgrade).startswith(b"HTTP/1.1 200 ")


def test_files_beside_the_page_are_out_of_reach(server: tuple[str, int]) -> None:
    for path in (
        b"/page/../app.py", b"/page/..%2fapp.py", b"/page/%2e%2e/app.py", b"/page/..%5capp.py", b"/page//etc/passwd",
        b"/page/%00", b"/page/./../../server/app.py", b"/page/....//app.py", b"//etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/page/app.js/../../app.py", b"/page", b"/page/", b"/v1/gallery/..%2f..%2fetc%2fpasswd/thumbnail",
        b"/v1/gallery/%00/thumbnail", b"/v1/gallery/\xff/thumbnail", b"http://localhost/page/../app.py",
    ):  # fmt: skip
        said = exchange(server, b"GET " + path + b" HTTP/1.1\r\nconnection: close\r\n" + HOST + b"\r\n")
        assert said.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), (path, said[:200])
        assert b"import" not in said
        assert b"root:" not in said


@pytest.mark.parametrize("address", [b"/", b"/health/live", b"/health/ready", b"/v1/models", b"/page/page.css", b"/no"])
def test_head_answers_what_get_does_without_the_body(server: tuple[str, int], address: bytes) -> None:
    asked, told = (
        exchange(server, verb + b" " + address + b" HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n")
        for verb in (b"HEAD", b"GET")
    )
    head, _, body = asked.partition(b"\r\n\r\n")
    whole, _, content = told.partition(b"\r\n\r\n")
    assert not body
    assert content
    assert steady(head) == steady(whole)


def test_head_of_what_is_no_get_is_refused_and_counted_by_its_route(server: tuple[str, int]) -> None:
    end = b" HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n"
    assert exchange(server, b"HEAD /v1/locate" + end).startswith(b"HTTP/1.1 405 ")
    assert exchange(server, b"HEAD /health/live" + end).startswith(b"HTTP/1.1 200 ")
    assert b'method="HEAD",route="/health/live",status="200"' in exchange(server, b"GET /metrics" + end)


def steady(head: bytes) -> list[bytes]:
    """The lines of an answer's head that do not change from one request to the next."""
    return [line for line in head.split(b"\r\n") if not line.lower().startswith((b"date:", b"x-request-id:"))]
