"""What the server is told before it starts, checked at once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from edgegeo.errors import ServerError

KEY_VARIABLE = "EDGEGEO_API_KEY"
"""Environment variable that holds the API key; a key is never taken from the command line, where `ps` shows it."""

SHORTEST_KEY = 16
"""Characters a key must have at least."""


@dataclass(frozen=True)
class ServerSettings:
    """How to serve. Raises ServerError for settings that can't work or would be unsafe."""

    bundle: Path
    """Folder of the bundle."""
    gallery: Path | None = None
    """Folder of the gallery; without one, /v1/search answers 404 and /v1/locate uses generation alone."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs `api_key`."""
    port: int = 8080
    """0 lets the system choose; `serve` announces what it chose."""
    api_key: str | None = field(default=None, repr=False)
    """Clients send it as `Authorization: Bearer KEY`. None: no key is asked for (loopback only)."""
    provider: str = "cpu"
    """Execution provider of onnxruntime, as in edgegeo.runtime."""
    threads: int | None = None
    """Intra-op threads of the model; None leaves it to the runtime."""
    queue_size: int = 32
    """Requests in hand at once, the running one included; one more is answered 429."""
    deadline_s: float = 30.0
    """Seconds from admission to answer; later, the answer is 504."""
    max_body_bytes: int = 32 * 1024 * 1024
    """A larger request is answered 413 without being read."""
    max_inputs: int = 256
    """Texts, pictures or documents in one request."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ServerError(f"port must be between 0 and 65535, got {self.port}")
        for name in ("queue_size", "deadline_s", "max_body_bytes", "max_inputs"):
            if not getattr(self, name) > 0:
                raise ServerError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if self.api_key is not None:
            check_key(self.api_key, KEY_VARIABLE)
        elif not is_loopback(self.host):
            raise ServerError(
                f"listening on {self.host} lets other machines in, and no API key is set: "
                f"set {KEY_VARIABLE} or name a key file, or listen on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Names other than localhost count as reachable by others."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_key(key: str, origin: str) -> str:
    """The key itself, or ServerError when it can't be sent in a header or is too short to protect anything."""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ServerError(f"the API key in {origin} must be printable ASCII without spaces")
    if len(key) < SHORTEST_KEY:
        raise ServerError(f"the API key in {origin} is shorter than {SHORTEST_KEY} characters; choose a longer one")
    return key


def read_api_key(file: Path | None = None, environ: Mapping[str, str] | None = None) -> str | None:
    """The key from `file` (its first line) where one is named, else from EDGEGEO_API_KEY, else None."""
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ServerError(f"can't read the API key file {file} ({reason}); name another or fix it") from None
        return check_key(lines[0].strip() if lines else "", str(file))
    key = (os.environ if environ is None else environ).get(KEY_VARIABLE)
    return check_key(key, KEY_VARIABLE) if key else None
