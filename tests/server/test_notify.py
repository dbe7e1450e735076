"""The notify protocol, spoken to a real datagram socket."""

import contextlib
import logging
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import running

from edgegeo.server.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end, and what it puts into NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgegeo-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        line.settimeout(5)
        yield line, name


def test_every_message(manager: tuple[socket.socket, str]) -> None:
    line, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("serving tiny\nREADY=0")
    assert line.recv(4096) == b"READY=1\nSTATUS=serving tiny READY=0"
    notifier.status("warming up")
    assert line.recv(4096) == b"STATUS=warming up"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    begun, stamp, _ = line.recv(4096).decode().split("\n")
    assert begun == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.stopping()
    assert line.recv(4096).startswith(b"STOPPING=1\n")
    notifier.alive()
    assert line.recv(4096) == b"WATCHDOG=1"


def test_the_watchdog_is_meant_for_one_process() -> None:
    known = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "20000000"}
    assert Notifier(known).watchdog_s == 20.0
    assert Notifier({**known, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 20.0
    assert Notifier({**known, "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "20000000"}).watchdog_s is None
    for odd in ("", "0", "-5", "soon"):
        assert Notifier({**known, "WATCHDOG_USEC": odd}).watchdog_s is None


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready("serving")
    assert caplog.records == []


def test_a_manager_that_is_gone_is_told_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")})
    with caplog.at_level(logging.WARNING):
        notifier.alive()
        notifier.alive()
    assert len(caplog.records) == 1


def test_a_stuck_model_does_not_feed_the_watchdog(tiny_bundle: Path, planet_gallery: Path, tmp_path: Path) -> None:
    """The process goes on, and says that it is not ready; systemd would end it. When the model answers, all is well."""
    stuck = tmp_path / "stuck"
    before = f"""
import time
from pathlib import Path
from edgegeo.server import fleet
quick = fleet.heartbeat
def slowly(engine):
    while Path({str(stuck)!r}).exists():
        time.sleep(0.02)
    quick(engine)
fleet.heartbeat = slowly
"""

    def ready(address: str) -> int:
        try:
            with urllib.request.urlopen(f"{address}/health/ready", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(5)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
        changes: dict[str, Any] = {"environ": environ, "before": before, "heartbeat_s": 0.1, "deadline_s": 0.3}
        with running(tiny_bundle, planet_gallery, **changes) as (_, address):
            while line.recv(4096) != b"WATCHDOG=1":
                pass
            assert ready(address) == 200
            stuck.touch()
            end = time.monotonic() + 5
            while ready(address) == 200:
                assert time.monotonic() < end
                time.sleep(0.05)
            line.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while line.recv(4096):
                    pass  # said before it was stuck
            time.sleep(0.5)
            with pytest.raises(BlockingIOError):
                line.recv(4096)
            stuck.unlink()
            line.settimeout(5)
            assert line.recv(4096) == b"WATCHDOG=1"
            assert ready(address) == 200
