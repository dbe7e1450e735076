"""Over a real socket: a client that closes its connection takes its work along."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("uvicorn")

import uvicorn
from fastapi import FastAPI

from edgegeo.server.app import create_app
from edgegeo.server.connection import Connection
from edgegeo.server.context import Context
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings


class Server:
    """An app behind uvicorn, in a thread of this process so that a test can look inside."""

    def __init__(self, app: FastAPI) -> None:
        self.context: Context = app.state.context
        config = uvicorn.Config(app, port=0, log_config=None, http=Connection, lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self.loop: asyncio.AbstractEventLoop | None = None

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._server.serve()

    def __enter__(self) -> "Server":
        self._thread.start()
        until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def send(self, route: str, body: dict[str, Any]) -> socket.socket:
        """A connection on which a request was sent whole."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        data = json.dumps(body).encode()
        head = f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The model thread at work."""
        release = threading.Event()
        assert self.loop is not None
        scheduler = self.context.fleet.scheduler
        job = asyncio.run_coroutine_threadsafe(scheduler.run("heartbeat", release.wait, 10), self.loop)
        until(lambda: scheduler.busy_s > 0)
        try:
            yield
        finally:
            release.set()
            job.result(10)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module")
def server(engine: Engine, settings: ServerSettings) -> Iterator[Server]:
    with Server(create_app(engine, replace(settings, allowed_hosts=(), cache_mb=0))) as started:
        yield started


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/embeddings", {"input": ["a river", "a roof"]}),
        ("/v1/locate", {"text": "a river"}),
        ("/v1/rerank", {"query": "a river", "documents": ["test-00001", "test-00002"]}),
    ],
)
def test_what_waits_leaves_the_line_with_its_client(server: Server, route: str, body: dict[str, Any]) -> None:
    scheduler, admission = server.context.fleet.scheduler, server.context.admission
    before = batches(server)
    with server.busy():
        leaving, staying = server.send(route, body), server.send("/v1/embeddings", {"input": "it stays"})
        until(lambda: admission.in_hand == 2 and scheduler.waiting > 1)
        leaving.close()
        until(lambda: scheduler.waiting == 1)
        until(lambda: admission.in_hand == 1)
    assert staying.recv(4096).startswith(b"HTTP/1.1 200")
    staying.close()
    assert batches(server) - before == 2  # the one that held the model, and the one that stayed


def batches(server: Server) -> float:
    """Calls of the model so far."""
    text = server.context.metrics.text().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("edgegeo_batch_size_count"))
