"""How much a server takes in: requests in hand, fairly shared between clients; bodies, by their bytes and pace."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv6Address

import anyio
from starlette.types import Receive, Scope

from edgegeo.server.faults import CLIENT_FULL, QUEUE_FULL, TOO_LARGE, TOO_SLOW, Refusal, retry_after

GRACE_S = 5.0
"""Seconds that a body may pause, or take before its pace counts."""
SLOWEST_BYTES_S = 4096
"""Pace below which a body is given up: a radio link does better, a client that only wants to hold on does not."""
BODIES = 4
"""Bodies of the largest size that may be held at once; smaller ones accordingly more."""


def client_of(scope: Scope) -> str:
    """Who counts as one client: an IPv4 address, an IPv6 network of 64 bits, "" where the transport has none."""
    host = str((scope.get("client") or ("",))[0])
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or address.exploded[:19])


class Place:
    """One request in hand."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.scope = anyio.CancelScope()
        """Around the work; cancelled when the place goes to another client."""
        self.answering = False
        """The first bytes of the answer are out, so that it can't be refused any more."""
        self.given_up = False


class Admission:
    """Bounds the requests in hand, so that memory and waiting are bounded too. For one event loop.

    A client alone may have every place. When none is left, one that has more places than the next gives up the
    request that it sent last and has no answer to yet.
    """

    def __init__(self, limit: int, per_client: int | None = None) -> None:
        self.limit = limit
        self.per_client = per_client
        self._places: list[Place] = []

    @property
    def in_hand(self) -> int:
        """Requests admitted and not yet answered."""
        return len(self._places)

    def check(self, client: str) -> None:
        """Raise the Refusal (429) that `enter` would; a body need not be read before it."""
        held = Counter(place.client for place in self._places)
        if self.per_client is not None and held[client] >= self.per_client:
            raise busy("client_limit", CLIENT_FULL)
        if len(self._places) >= self.limit and self._youngest_of_greediest(client) is None:
            raise busy()

    @contextmanager
    def enter(self, client: str) -> Iterator[Place]:
        """A place for as long as the request is in hand; Refusal 429 where none is left for this client."""
        self.check(client)
        place = Place(client)
        if len(self._places) >= self.limit and (given := self._youngest_of_greediest(client)) is not None:
            given.given_up = True
            given.scope.cancel()
            self._places.remove(given)
        self._places.append(place)
        try:
            yield place
        finally:
            if not place.given_up:
                self._places.remove(place)

    def _youngest_of_greediest(self, client: str) -> Place | None:
        held = Counter(place.client for place in self._places)
        waiting = [place for place in self._places if not place.answering]
        most = max((held[place.client] for place in waiting), default=0)
        # Two more, or the newcomer would only take the other's part.
        if most < held[client] + 2:
            return None
        return next(place for place in reversed(waiting) if held[place.client] == most)


class Intake:
    """Reads bodies whole before they take a place: within a size, at a pace, and bounded all together."""

    def __init__(self, most_bytes: int, patience_s: float) -> None:
        """most_bytes: of one body; patience_s: for one body at any pace."""
        self.most_bytes = most_bytes
        self.patience_s = patience_s
        self._held = 0

    @asynccontextmanager
    async def body(self, receive: Receive) -> AsyncIterator[bytes | None]:
        """The body, counted for as long as it is worked on; None if the client left before its end.

        Raises Refusal 408 (too slow), 413 (too large), 429 (too much of other clients in hand).
        """
        pieces: list[bytes] = []
        begun = anyio.current_time()
        size, more = 0, True
        try:
            while more:
                patience = min(self.patience_s, GRACE_S + size / SLOWEST_BYTES_S)
                with anyio.move_on_after(begun + patience - anyio.current_time()) as limit:
                    message = await receive()
                if limit.cancelled_caught:
                    raise Refusal(408, "request_timeout", TOO_SLOW, headers={"connection": "close"})
                if message["type"] == "http.disconnect":
                    yield None
                    return
                piece = message.get("body", b"")
                size += len(piece)
                self._held += len(piece)
                if size > self.most_bytes:
                    raise Refusal(413, "too_large", TOO_LARGE)
                if self._held > BODIES * self.most_bytes:
                    raise busy()
                pieces.append(piece)
                more = message.get("more_body", False)
            yield b"".join(pieces)
        finally:
            self._held -= size


class Budget:
    """Bytes that may be in use at once; whoever asks for more than is left waits in line. For one event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total
        self._line = anyio.Lock()
        self._freed: anyio.Event | None = None

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """So many bytes; what is larger than the whole budget has it to itself."""
        amount = min(amount, self.total)
        async with self._line:  # first come, first served, or a large one would wait for ever
            while self._left < amount:
                self._freed = anyio.Event()
                await self._freed.wait()
            self._left -= amount
        try:
            yield
        finally:
            self._left += amount
            if self._freed is not None:
                self._freed.set()


def busy(code: str = "queue_full", message: str = QUEUE_FULL) -> Refusal:
    """429, with the time to come back."""
    return Refusal(429, code, message, headers=retry_after())
