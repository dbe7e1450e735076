"""One client's connection: uvicorn's HTTP/1.1 over h11, with the patience and the manners that it lacks.

uvicorn waits for ever for the end of a request's head, and answers broken requests and overload in plain text without
the headers that every other answer has.
"""

import asyncio
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgegeo.server.faults import BAD_REQUEST, OVERLOADED, Refusal, respond, retry_after
from edgegeo.server.guard import SECURITY_HEADERS

HEAD_S = 10.0
"""Seconds for the head of a request, and for the rest of a body that nobody waits for any more."""


class Connection(H11Protocol):
    """For `uvicorn.Config(http=Connection)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        crowded = self._most is not None and len(self.connections) > self._most
        self.app = _overloaded if crowded else self.app
        self._watch(owed=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch(owed=False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch(self._owed())

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch(self._owed())

    def send_400_response(self, msg: str) -> None:
        """What h11 can't read, in the envelope of all errors."""
        answer = respond(Refusal(400, "invalid_request", BAD_REQUEST))
        headers = [*answer.raw_headers, *((name.encode(), value.encode()) for name, value in _HEADERS.items())]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _owed(self) -> bool:
        """Whether the client has begun something that it has to end, and no request is being worked on."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # the gate's limits hold
        if self.conn.their_state is h11.IDLE:
            return bool(self.conn.trailing_data[0])  # between requests, uvicorn's keep-alive holds
        return self.conn.their_state is h11.SEND_BODY

    def _watch(self, owed: bool) -> None:
        if owed and self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_S, self.transport.close)
        elif not owed and self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


_HEADERS = {**SECURITY_HEADERS, "cache-control": "no-store", "connection": "close"}


async def _overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        headers = {**_HEADERS, **retry_after()}
        await respond(Refusal(503, "overloaded", OVERLOADED, headers=headers))(scope, receive, send)
