"""The process around one app: signals, the service manager, the heartbeat, reloads and the drain."""

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator

import uvicorn
from fastapi import FastAPI

from edgegeo.server import logs
from edgegeo.server.connection import Connection
from edgegeo.server.context import Context
from edgegeo.server.notify import Notifier
from edgegeo.server.settings import ServerSettings

ATTACH_S = 0.02
"""What asyncio needs to set up the connections that it took last."""

LINGER_S = 0.25
"""How long a connection kept alive is still answered (503) although nothing is in hand any more."""

GRACE_S = 8.0
"""Seconds after the drain until a process that still can't end is ended, with the stacks of its threads in the log."""


class Process:
    """Runs one app until a signal stops it.

    SIGTERM and SIGINT drain, a second one ends at once; SIGHUP opens the bundles and galleries anew.
    """

    def __init__(self, app: FastAPI, settings: ServerSettings, notifier: Notifier) -> None:
        self._context: Context = app.state.context
        self._life = self._context.life
        self._settings = settings
        self._notifier = notifier
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                http=Connection,
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=15,
                # The drain is ours and has ended by then.
                timeout_graceful_shutdown=1,
                # Connections, not requests: the queue answers 429 long before; this only caps idle sockets.
                limit_concurrency=8 * settings.queue_size + 64,
                h11_max_incomplete_event_size=32 * 1024,
            )
        )
        self._reload = asyncio.Event()
        self._stops = 0

    async def run(self, listener: socket.socket) -> None:
        """Serve on a listening socket until stopped. Raises what the warm-up failed with."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        with _running(self._drained(listener), self._reloads(), self._heartbeats()):
            await self._server.serve(sockets=[listener])
        if self._life.failure is not None:
            raise self._life.failure

    def _stop(self, number: int) -> None:
        self._stops += 1
        if self._stops > 1:
            logs.event("ending at once", {"signal": number, "in_hand": self._life.in_hand}, logging.WARNING)
            # A model call can't be interrupted, and every orderly way out would wait for it.
            os._exit(128 + number)
        self._life.drain()

    async def _drained(self, listener: socket.socket) -> None:
        """Wait for the signal, let what is in hand end, and stop the server."""
        await self._life.ended()
        if self._life.draining:
            await self._drain(listener)
        self._server.should_exit = True

    async def _drain(self, listener: socket.socket) -> None:
        begun = time.monotonic()
        logs.event("draining", {"in_hand": self._life.in_hand})
        self._notifier.stopping()
        _end_within(self._settings.drain_s + GRACE_S)
        await self._server.stop_listening(listener)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._life.idle(), self._settings.drain_s)
        if cut := self._life.cut():
            logs.event("drain took too long", {"requests_cut": cut}, logging.WARNING)
        await asyncio.sleep(LINGER_S)
        logs.event("drained", {"seconds": round(time.monotonic() - begun, 2)})

    async def _reloads(self) -> None:
        """Open the bundles in use and their galleries anew whenever SIGHUP asks for it."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            if (refusal := self._life.refusal()) is not None:
                logs.event("reload ignored", {"why": refusal.message}, logging.WARNING)
                continue
            self._notifier.reloading()
            failed = [
                card.name for card in self._context.fleet.cards() if card.loaded and not await self._renew(card.name)
            ]
            async with self._context.fleet.use() as serving:
                status = serving.engine.summary
            if not self._life.draining:
                self._notifier.ready(f"{status}; could not reload {', '.join(failed)}" if failed else status)

    async def _renew(self, model: str) -> bool:
        try:
            report = await self._context.fleet.reload(model)
        except Exception as error:
            # The old bundle keeps serving; whoever sent the signal reads the log.
            logs.failure("reload failed", error, {"bundle": model})
            return False
        logs.event("reloaded", vars(report))
        return True

    async def _heartbeats(self) -> None:
        """Ask the model for a trial answer now and then; only what it answers feeds the watchdog."""
        watched, every = self._notifier.watchdog_s, self._settings.heartbeat_s
        if not every and watched is None:
            return
        pause = min(every or float("inf"), watched / 2 if watched else float("inf"))
        # Requests go first; each leaves the line at its deadline, so that no longer wait is sound.
        patience = self._settings.deadline_s + pause
        if watched is not None and watched <= patience:
            facts = {"watchdog_s": watched, "needed_s": patience}
            logs.event("the watchdog may end a server that is only busy; give it longer", facts, logging.WARNING)
        while True:
            if self._life.warm:
                await self._beat(patience)
            await asyncio.sleep(pause if self._life.warm else 0.1)

    async def _beat(self, patience: float) -> None:
        try:
            await asyncio.wait_for(self._context.fleet.heartbeat(), patience)
            sound = True
        except Exception as error:
            sound = False
            if not self._life.draining:
                logs.failure("the model gave no trial answer", error, {"waited_s": patience})
        self._context.metrics.beat(sound)
        self._life.sound = sound
        if sound:
            self._notifier.alive()


class _Server(uvicorn.Server):
    """uvicorn without its signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop_listening(self, listener: socket.socket) -> None:
        """Take no further connections; those made before go on, and those the kernel holds for us are taken first."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        await asyncio.sleep(ATTACH_S)
        taken = list(_accepted(listener))
        for server in getattr(self, "servers", ()):
            server.close()
        for line in taken:
            await loop.connect_accepted_socket(self._connection, line)

    def _connection(self) -> asyncio.Protocol:
        return Connection(self.config, self.server_state, self.lifespan.state)


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait in the kernel."""
    listener.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            yield listener.accept()[0]


def _end_within(seconds: float) -> None:
    """End the process with status 1 and the stacks of its threads on stderr, unless it has ended by then.

    A model call that never returns can be waited for by no orderly way out.
    """
    # Needs a real stderr, which a process started by hand may lack.
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
        faulthandler.dump_traceback_later(seconds, exit=True)


@contextlib.contextmanager
def _running(*jobs: Coroutine[object, object, None]) -> Iterator[None]:
    """Jobs that run beside the body and end with it."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
