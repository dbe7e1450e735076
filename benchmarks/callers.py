"""Callers of a server: raw HTTP/1.1 on kept-alive connections, so that asking costs little beside answering."""

import asyncio
import base64
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

SIDES = (96, 128, 200, 256, 320, 480, 640)


@dataclass(frozen=True)
class Call:
    """A request ready to be written, and how its answer is judged."""

    name: str
    data: bytes
    statuses: tuple[int, ...] = (200,)
    """What a right server may answer; 429 is always allowed."""


@dataclass
class Told:
    """What came back for one call."""

    call: int
    status: int
    seconds: float
    body: bytes = field(repr=False)


def post(path: str, body: Any, name: str, statuses: tuple[int, ...] = (200,)) -> Call:
    """A JSON request; bytes go out as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    return Call(name, "\r\n".join([*lines, "", ""]).encode() + data, statuses)


def data_uri(data: bytes) -> str:
    """As OpenAI's image parts have it."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def jpeg(photo: Image.Image, side: int) -> bytes:
    """The picture at another size, as a camera's file."""
    stream = io.BytesIO()
    photo.resize((side, round(side * 0.75))).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def embedding_calls(count: int, texts: bool) -> list[Call]:
    """Pictures of the planet at mixed sizes, one a request; with texts, every third is a description.

    Embeddings are asked for in base64, as OpenAI's client does by itself.
    """
    from edgegeo.planet import Planet

    planet = Planet()
    calls = []
    for index, (lat, lon) in enumerate(planet.coordinates("test", count)):
        if texts and index % 3 == 2:
            calls.append(
                post("/v1/embeddings", {"input": planet.describe(lat, lon), "encoding_format": "base64"}, "text")
            )
            continue
        uri = data_uri(jpeg(planet.ground(lat, lon), SIDES[index % len(SIDES)]))
        part = {"type": "image_url", "image_url": {"url": uri}}
        calls.append(post("/v1/embeddings", {"input": [part], "encoding_format": "base64"}, "picture"))
    return calls


def vector(body: bytes) -> Any:
    """The unit vector of an embeddings answer."""
    return np.frombuffer(base64.b64decode(json.loads(body)["data"][0]["embedding"]), np.float32)


class Line:
    """One kept-alive connection; opened again when the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """(status, body). ConnectionError when no whole answer came."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(data)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status = int(head.split(" ", 2)[1])
            length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
            body = await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError, StopIteration) as error:
            self.close()
            raise ConnectionError(str(error)) from None
        if "connection: close" in head:
            self.close()
        return status, body

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(
    port: int, calls: Sequence[Call], clients: int, total: int, each: Callable[[int], None] = lambda done: None
) -> tuple[list[Told], float]:
    """Every client asks again as soon as it is answered; (answers, seconds). each: told how many are answered."""
    told: list[Told] = []
    numbers = iter(range(total))

    async def client() -> None:
        line = Line(port)
        for number in numbers:
            index = number % len(calls)
            begun = time.perf_counter()
            try:
                status, body = await line.ask(calls[index].data)
            except (ConnectionError, OSError):
                status, body = 0, b""
            told.append(Told(index, status, time.perf_counter() - begun, body))
            each(len(told))
        line.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return told, time.perf_counter() - begun


async def open_loop(
    port: int, calls: Sequence[Call], rate: float, total: int, seed: int = 0
) -> tuple[list[Told], float]:
    """Calls come when they come (Poisson), answered or not; the time of each counts from when it was due."""
    told: list[Told] = []
    idle: list[Line] = []
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, total))

    async def one(index: int, at: float) -> None:
        line = idle.pop() if idle else Line(port)
        try:
            status, body = await line.ask(calls[index].data)
        except (ConnectionError, OSError):
            status, body = 0, b""
        told.append(Told(index, status, time.perf_counter() - at, body))
        idle.append(line)

    begun = time.perf_counter()
    running = []
    for number, offset in enumerate(due.tolist()):
        await asyncio.sleep(max(0.0, begun + offset - time.perf_counter()))
        running.append(asyncio.create_task(one(number % len(calls), begun + offset)))
    await asyncio.gather(*running)
    spent = time.perf_counter() - begun
    for line in idle:
        line.close()
    return told, spent
