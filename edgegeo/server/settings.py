"""What the server is told before it starts, checked at once."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from edgegeo.errors import ServerError

KEY_VARIABLE = "EDGEGEO_API_KEY"
"""Environment variable that holds the API key; a key is never taken from the command line, where `ps` shows it."""

ADMIN_KEY_VARIABLE = "EDGEGEO_ADMIN_KEY"
"""Environment variable that holds the administrator's key."""

SHORTEST_KEY = 16
"""Characters a key must have at least."""

LOG_FORMATS = ("text", "json")
ANY_HOST = "*"

_POSITIVE = ("queue_size", "deadline_s", "max_body_bytes", "max_inputs", "max_batch", "memory_budget_mb", "per_client")
_NOT_NEGATIVE = ("batch_wait_ms", "cache_mb", "drain_s", "heartbeat_s")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True)
class ServerSettings:
    """How to serve. Raises ServerError for settings that can't work or would be unsafe."""

    bundles: tuple[Path, ...]
    """Folders of the bundles; the first answers requests that name no model."""
    gallery: Path | str | None = None
    """The first bundle's gallery, its folder or its address; without one, /v1/search answers 404 and /v1/locate uses
    generation alone."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs `api_key`."""
    port: int = 8080
    """0 lets the system choose; `serve` announces what it chose."""
    api_key: str | None = field(default=None, repr=False)
    """Clients send it as `Authorization: Bearer KEY`. None: no key is asked for (loopback only)."""
    admin_key: str | None = field(default=None, repr=False)
    """Changes the gallery and reloads bundles. None: nobody may."""
    provider: str = "cpu"
    """Execution provider of onnxruntime, as in edgegeo.runtime."""
    threads: int | None = None
    """Intra-op threads of the model; None leaves it to the runtime."""
    queue_size: int = 64
    """Requests in hand at once, the running ones included; one more is answered 429."""
    deadline_s: float = 30.0
    """Seconds from admission to answer; later, the answer is 504."""
    max_body_bytes: int = 32 * 1024 * 1024
    """A larger request is answered 413 without being read."""
    max_inputs: int = 256
    """Texts, pictures or documents in one request."""
    max_batch: int = 16
    """Inputs of all requests together in one call of the model."""
    batch_wait_ms: float = 0.0
    """Milliseconds an idle model waits for a batch to fill; 0 takes what came while it was busy."""
    memory_budget_mb: int | None = None
    """Resident MB (2**20 bytes) that the bundles may take together; None: no limit of our own."""
    cache_mb: int = 64
    """MB (2**20 bytes) of embeddings kept for inputs that come again; 0 keeps none."""
    per_client: int | None = None
    """Requests in hand of one client address; one more is answered 429. None: the queue is the only limit."""
    allowed_hosts: tuple[str, ...] = ()
    """Names accepted in the Host header beside loopback's and the bound address; `*` accepts any."""
    log_format: str = "text"
    """`text`, or `json` for one object a line."""
    drain_s: float = 25.0
    """Seconds that the requests in hand have to end after SIGTERM."""
    heartbeat_s: float = 30.0
    """Seconds between trial answers that show that the model isn't stuck; 0 makes none."""

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ServerError("there is no bundle to serve; name one with --bundle")
        if not 0 <= self.port <= 65535:
            raise ServerError(f"port must be between 0 and 65535, got {self.port}")
        self._check_numbers()
        if self.log_format not in LOG_FORMATS:
            raise ServerError(f"log_format must be one of {', '.join(LOG_FORMATS)}, got {self.log_format!r:.40}")
        for name in self.allowed_hosts:
            if name != ANY_HOST and not _HOST_NAME.fullmatch(name) and not _is_address(name):
                raise ServerError(f"allowed_hosts takes names and addresses without port, or *, got {name!r:.80}")
        self._check_keys()

    def _check_numbers(self) -> None:
        for name in (*_POSITIVE, *_NOT_NEGATIVE):
            value = getattr(self, name)
            if value is None:
                continue
            least = "greater than 0" if name in _POSITIVE else "0 or more"
            if not math.isfinite(value) or value < 0 or (value == 0 and name in _POSITIVE):
                raise ServerError(f"{name} must be {least}, got {value}")

    def _check_keys(self) -> None:
        if self.admin_key is not None:
            check_key(self.admin_key, ADMIN_KEY_VARIABLE)
            if self.admin_key == self.api_key:
                raise ServerError("the administrator's key is the API key, so every client could change the gallery")
        if self.api_key is not None:
            check_key(self.api_key, KEY_VARIABLE)
        elif not is_loopback(self.host):
            raise ServerError(
                f"listening on {self.host} lets other machines in, and no API key is set: "
                f"set {KEY_VARIABLE} or name a key file, or listen on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Names other than localhost count as reachable by others."""
    return host == "localhost" or (_is_address(host) and ip_address(host.strip("[]")).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def check_key(key: str, origin: str) -> str:
    """The key itself, or ServerError when it can't be sent in a header or is too short to protect anything."""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ServerError(f"the key in {origin} must be printable ASCII without spaces")
    if len(key) < SHORTEST_KEY:
        raise ServerError(f"the key in {origin} is shorter than {SHORTEST_KEY} characters; choose a longer one")
    return key


def read_api_key(file: Path | None = None, environ: Mapping[str, str] | None = None) -> str | None:
    """The key from `file` (its first line) where one is named, else from EDGEGEO_API_KEY, else None."""
    return _read_key(file, KEY_VARIABLE, environ)


def read_admin_key(file: Path | None = None, environ: Mapping[str, str] | None = None) -> str | None:
    """The administrator's key from `file` where one is named, else from EDGEGEO_ADMIN_KEY, else None."""
    return _read_key(file, ADMIN_KEY_VARIABLE, environ)


def _read_key(file: Path | None, variable: str, environ: Mapping[str, str] | None) -> str | None:
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ServerError(f"can't read the key file {file} ({reason}); name another or fix it") from None
        return check_key(lines[0].strip() if lines else "", str(file))
    key = (os.environ if environ is None else environ).get(variable)
    return check_key(key, variable) if key else None
