"""What the service manager is told: systemd's notify protocol over the datagram socket that it names.

Source: sd_notify(3). Without NOTIFY_SOCKET in the environment every call does nothing.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger("edgegeo.server")


class Notifier:
    """The line to the service manager."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        known = os.environ if environ is None else environ
        self._address = known.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog(known) if self._address else None
        """Seconds without a sign of life after which the manager restarts the process; None: it does not watch."""
        self._failed = False

    def ready(self, status: str) -> None:
        """Requests are answered; also the end of a reload."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # The time of Type=notify-reload: CLOCK_MONOTONIC, which is also what Python's clock reads.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """The server drains and will end."""
        self._send("STOPPING=1", "STATUS=draining")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract socket.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.connect(address)
                line.send("\n".join(lines).encode())
        except OSError as error:
            if not self._failed:
                log.warning("the service manager can't be reached over NOTIFY_SOCKET (%s)", error.strerror)
            self._failed = True


def _line(text: str) -> str:
    return " ".join(text.split())


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """WatchdogSec of the unit in seconds, if it is meant for this process."""
    pid = environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        if (microseconds := int(environ.get("WATCHDOG_USEC", ""))) > 0:
            return microseconds / 1e6
    return None
