"""Bind, open the bundle, serve until SIGTERM or Ctrl-C."""

import asyncio
import faulthandler
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from edgegeo.errors import ServerError
from edgegeo.server import logs
from edgegeo.server.settings import ServerSettings


def serve(settings: ServerSettings, announce: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in hand and return.

    The port is bound before the bundle is opened, so that a port in use is known at once. `announce` is called once,
    with one line that names the address and the bundle, as soon as requests are answered. For the main thread.

    Raises ServerError for a port that can't be had or when the serve extra isn't installed; BundleError,
    GalleryError, DeviceError as the runtime does; MemoryError where a full batch has no room.
    """
    try:
        from prometheus_client import disable_created_metrics

        from edgegeo.server.app import create_app
        from edgegeo.server.engine import Engine
        from edgegeo.server.notify import Notifier
        from edgegeo.server.process import Process
        from edgegeo.server.sensors import Sensors
    except ImportError as error:
        if (error.name or "edgegeo").partition(".")[0] == "edgegeo":
            raise
        raise ServerError(f"the server needs {error.name}; install it with: pip install 'edgegeo[serve]'") from None
    begun = time.perf_counter()
    with (
        signals_restored(),
        closing(bind(settings.host, settings.port)) as listener,
        logs.configured(settings.log_format),
    ):
        # A second series beside every counter, which says when it began; nothing here needs it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        notifier = Notifier()
        notifier.status("opening the bundle")
        engine = Engine.open(settings)
        summary = engine.summary
        opened = time.perf_counter()
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host

        def started() -> None:
            ready = time.perf_counter()
            spent = {"open_s": round(opened - begun, 3), "warm_up_s": round(ready - opened, 3)}
            logs.event("ready", {"serving": summary, "port": port, **spent})
            notifier.ready(summary)
            announce(f"serving {summary} at http://{shown}:{port}/ (API: /docs)")

        notifier.status("warming up")
        app = create_app(engine, settings, started, early=True)
        app.state.context.metrics.watch(Sensors())
        del engine  # a reload replaces it, and nothing here may keep its memory
        asyncio.run(Process(app, settings, notifier).run(listener))
        faulthandler.cancel_dump_traceback_later()


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises ServerError in one line when it can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ServerError(f"host {host} can't be resolved; name an address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Linux lets two sockets bind with SO_REUSEADDR until one listens; listening here settles it.
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServerError(
            f"can't listen on {host} port {port} ({error.strerror}); stop what holds it or choose another with --port"
        ) from None
    return listener


@contextmanager
def signals_restored() -> Iterator[None]:
    """Give the signals back to the handlers that stood before; until then a hangup does not end the start."""
    caught = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in caught}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
