"""What a server needs of its machine: a free port, a clock that is right, file descriptors."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import edgegeo
from edgegeo.field.finding import FAIL, OK, WARN, Finding

LEAST_FILES = 1024
"""File descriptors: connections of a server, and the memory maps of its galleries."""
_DAY = 86_400.0


def examine_port(host: str, port: int) -> Finding:
    """Whether `edgegeo serve` could listen there; a running edgegeo is named as such."""
    where = f"{host}:{port}"
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if _is_ours(host, port):
                return Finding("port", OK, f"{where} is served by edgegeo")
            remedy = "choose another one: edgegeo serve --port 8081"
            return Finding("port", WARN, f"{where} can't be listened on ({error.strerror})", remedy)
    return Finding("port", OK, f"{where} is free")


def examine_clock(now: float | None = None, installed: float | None = None) -> Finding:
    """A clock behind this installation is wrong for sure: boards without a battery start in the past."""
    present = time.time() if now is None else now
    made = Path(edgegeo.__file__).stat().st_mtime if installed is None else installed
    said = datetime.fromtimestamp(present, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if present < made - _DAY:
        remedy = "it is behind this installation, so positions would carry wrong times: sudo timedatectl set-ntp true"
        return Finding("clock", FAIL, said, remedy)
    return Finding("clock", OK, said)


def examine_files(soft: int | None = None) -> Iterator[Finding]:
    """The limit of open files."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if soft is None else soft
    if 0 <= limit < LEAST_FILES:
        remedy = "few for a server: ulimit -n 4096, or LimitNOFILE= in a systemd unit"
        yield Finding("open files", WARN, f"at most {limit:,}", remedy)
    else:
        yield Finding("open files", OK, "no limit" if limit < 0 else f"at most {limit:,}")


def _is_ours(host: str, port: int) -> bool:
    """Whether edgegeo's own health page answers there."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        talk = http.client.HTTPConnection(host, port, timeout=0.3)
        try:
            talk.request("GET", "/health/live")
            answer = json.loads(talk.getresponse().read(4096))
        finally:
            talk.close()
        return bool(answer == {"status": "live"})
    return False
