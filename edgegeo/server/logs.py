"""The server's log on stderr: one line a request, as text or JSON, and everything uvicorn says in the same form.

A line holds what happened and how long it took; never a picture, a text, a key or a query string.
"""

import json
import logging
import math
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TextIO

from edgegeo.errors import EdgegeoError

ACCESS = "edgegeo.access"
"""Logger of the line that each request gets."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN = re.compile(r"[!#-<>-~]+")
_FACTS = "facts"


@dataclass
class Trace:
    """What is known of the request in hand; whoever works for it adds to it."""

    request_id: str
    wait_ms: float = 0.0
    """The longest wait of any of its inputs."""
    model_ms: float = 0.0
    """Its share of the model's time."""
    batch: int = 0
    """Inputs, of all requests together, in the largest call of the model that it had a part in."""
    deadline: float = math.inf
    """On the event loop's clock; set by whoever limits the request."""
    begun: float = field(default_factory=time.perf_counter)

    def add(self, wait_ms: float, model_ms: float, batch: int) -> None:
        """One input was computed: its wait for the call of the model, the call's time, and the inputs in it."""
        self.wait_ms = max(self.wait_ms, wait_ms)
        self.model_ms += model_ms / batch
        self.batch = max(self.batch, batch)


_trace: ContextVar[Trace | None] = ContextVar("edgegeo_trace", default=None)


def current() -> Trace | None:
    """The trace of the request that this task works for; None outside a request."""
    return _trace.get()


@contextmanager
def tracing(given: str) -> Iterator[Trace]:
    """A request's trace while it is in hand. `given` is the client's own id, used if it is a sane one."""
    trace = Trace(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def request(trace: Trace, method: str, route: str, status: int, client: str) -> None:
    """The line of an answered request. `route` is the pattern that matched, not the path that was sent."""
    facts: dict[str, Any] = {
        "method": method,
        "route": route,
        "status": status,
        "ms": round((time.perf_counter() - trace.begun) * 1000.0, 1),
        "client": client,
    }
    if trace.batch:
        facts |= {"wait_ms": round(trace.wait_ms, 1), "model_ms": round(trace.model_ms, 1), "batch": trace.batch}
    logging.getLogger(ACCESS).info("request", extra={_FACTS: facts})


def event(message: str, facts: Mapping[str, Any] | None = None, level: int = logging.INFO) -> None:
    """A line about the process: started, reloaded, draining."""
    logging.getLogger("edgegeo.server").log(level, message, extra={_FACTS: dict(facts or {})})


def failure(message: str, error: BaseException, facts: Mapping[str, Any] | None = None) -> None:
    """A line about something that failed: with the reason where it is a known one, else with its traceback."""
    known = isinstance(error, EdgegeoError)
    said = {**(facts or {}), **({"why": str(error)} if known else {})}
    logging.getLogger("edgegeo.server").error(message, exc_info=None if known else error, extra={_FACTS: said})


@contextmanager
def configured(form: str, stream: TextIO | None = None) -> Iterator[None]:
    """The log of the whole process, uvicorn's and Python's warnings included, goes to stderr as `text` or `json`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(_identified)
    root, own = logging.getLogger(), logging.getLogger("edgegeo")
    before = root.handlers, root.level, own.level
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    own.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers = before[0]
        root.setLevel(before[1])
        own.setLevel(before[2])


def _identified(record: logging.LogRecord) -> bool:
    """Every line written while a request is in hand carries its id."""
    trace = _trace.get()
    record.request_id = None if trace is None else trace.request_id
    return True


class JsonLines(logging.Formatter):
    """One JSON object a line; a traceback is one string in it."""

    def format(self, record: logging.LogRecord) -> str:
        shown: dict[str, Any] = {
            "time": f"{_clock(record)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", None):
            shown["request_id"] = request_id
        shown |= getattr(record, _FACTS, {})
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown, ensure_ascii=True, default=str)


class TextLines(logging.Formatter):
    """`time LEVEL message key=value ...`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {"request_id": getattr(record, "request_id", None), **getattr(record, _FACTS, {})}
        words = [f"{name}={_word(value)}" for name, value in facts.items() if value is not None]
        # A line break would let a message pass for a line of its own, an escape sequence for the terminal's.
        line = " ".join([f"{_clock(record)}Z", record.levelname, _escaped(record.getMessage()), *words])
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n  {_escaped(part)}" for part in trace.split("\n"))
        return line


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _word(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _clock(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
