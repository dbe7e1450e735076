"""Bind, open the bundle, serve until SIGTERM or Ctrl-C."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from edgegeo.errors import ServerError
from edgegeo.server.settings import ServerSettings


def serve(settings: ServerSettings, announce: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in hand and return.

    The port is bound before the bundle is opened, so that a port in use is known at once. `announce` is called once,
    with one line that names the address and the bundle, as soon as requests are answered.

    Raises ServerError for a port that can't be had or when the serve extra isn't installed; BundleError,
    GalleryError, DeviceError as the runtime does.
    """
    try:
        import uvicorn

        from edgegeo.server.app import create_app
        from edgegeo.server.engine import Engine
    except ImportError as error:
        raise ServerError(f"the server needs {error.name}; install it with: pip install 'edgegeo[serve]'") from None
    with closing(bind(settings.host, settings.port)) as listener:
        engine = Engine.open(settings)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        line = f"serving {engine.summary} at http://{shown}:{port}/ (API: /docs)"
        config = uvicorn.Config(
            create_app(engine, settings, on_start=lambda: announce(line)),
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(settings.deadline_s) + 1,
            # Connections, not requests: the queue answers 429 long before; this only caps idle sockets.
            limit_concurrency=8 * settings.queue_size + 64,
            h11_max_incomplete_event_size=64 * 1024,
        )
        with quiet_signals():
            uvicorn.Server(config).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket, not yet listening. Raises ServerError in one line when it can't be had."""
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
def quiet_signals() -> Iterator[None]:
    """Let a drained server return instead of dying of the signal that stopped it.

    uvicorn raises the signals it caught once more after shutdown, for the handlers that stood before it; with
    the default ones the process would end with status 143 or a KeyboardInterrupt although all went well.
    """
    caught = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
