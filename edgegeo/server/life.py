"""Where a server stands between its start and its end, and the layer that turns requests away while it isn't open."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgegeo.server.faults import Refusal, draining, respond, retry_after
from edgegeo.server.metrics import Metrics

_PROBE = re.compile(r"/(health/(live|ready)|metrics)")
_SWALLOW_S = 1.0

_WARMING = "the model is warming up; try again shortly"
_STUCK = "the model does not answer; the server's log has the details"


class Life:
    """Starting, open, draining; and the requests in hand. For one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self.warm = False
        """Every role has answered once."""
        self.sound = True
        """The last trial answer came."""
        self.draining = False
        self.failure: BaseException | None = None
        """What the warm-up after the start ended with."""
        self._held: set[anyio.CancelScope] = set()
        self._changed = asyncio.Event()
        metrics.ready.set_function(lambda: float(self.refusal() is None))
        metrics.draining.set_function(lambda: float(self.draining))

    def refusal(self) -> Refusal | None:
        """Why the server is not ready; None while it is."""
        if self.draining:
            return draining()
        if self.warm and self.sound:
            return None
        return Refusal(503, "not_ready", _STUCK if self.warm else _WARMING, headers=retry_after())

    @property
    def in_hand(self) -> int:
        """Requests of any kind that are not answered to the end."""
        return len(self._held)

    def started(self, task: "asyncio.Task[None]") -> None:
        """The warm-up has ended; what it failed with is kept for whoever runs the process."""
        if not task.cancelled():
            self.failure = task.exception()
        self._changed.set()

    def drain(self) -> None:
        """From now on every request is turned away; those in hand go on."""
        self.draining = True
        self._changed.set()

    def cut(self) -> int:
        """Give up what is still in hand, and tell its clients; how many there were."""
        held = list(self._held)
        for scope in held:
            scope.cancel()
        return len(held)

    async def ended(self) -> None:
        """Wait until the server is told to stop, or can't start."""
        while not self.draining and self.failure is None:
            self._changed.clear()
            await self._changed.wait()

    async def idle(self) -> None:
        """Wait until nothing is in hand."""
        while self._held:
            self._changed.clear()
            await self._changed.wait()

    @contextmanager
    def holding(self) -> Iterator[anyio.CancelScope]:
        """A request in hand, for as long as it lasts."""
        with anyio.CancelScope() as scope:
            self._held.add(scope)
            try:
                yield scope
            finally:
                self._held.discard(scope)
                self._changed.set()


class Door:
    """Turns requests away before the model is warm and while the server drains; keeps count of those let in."""

    def __init__(self, app: ASGIApp, life: Life, metrics: Metrics) -> None:
        self.app = app
        self.life = life
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self.life.draining and not _PROBE.fullmatch(scope["path"]):
            self.metrics.refuse("draining")
            # What is sent on while the connection closes would reset it, and the answer with it.
            await _swallow(receive)
            await respond(draining())(scope, receive, send)
        elif not self.life.warm and scope["path"].startswith("/v1/") and (refusal := self.life.refusal()) is not None:
            self.metrics.refuse("not_ready")
            await respond(refusal)(scope, receive, send)
        else:
            await self._let_in(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start" and self.life.draining:
                # The client's next request belongs to another connection.
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        with self.life.holding() as held:
            await self.app(scope, receive, noted)
        if held.cancelled_caught and not begun:
            await respond(draining())(scope, receive, send)


async def _swallow(receive: Receive) -> None:
    """Read a request's body to its end and forget it, within reason."""
    with anyio.move_on_after(_SWALLOW_S):
        while (await receive()).get("more_body"):
            pass
