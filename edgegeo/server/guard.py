"""What stands before every request: headers, host, key, size, queue and deadline, as plain ASGI layers."""

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Collection
from ipaddress import ip_address

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgegeo.server import faults, logs
from edgegeo.server.faults import Refusal, handle, respond
from edgegeo.server.limits import Admission, Intake, Place, busy, client_of
from edgegeo.server.metrics import Metrics, Reason

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(self), microphone=(), payment=(), usb=(), serial=()",
    "x-permitted-cross-domain-policies": "none",
}
# Pages and probes that hold nothing secret; the page asks its reader for the key and sends it with every call.
_OPEN = re.compile(r"/(health/(live|ready)|docs|openapi\.json|page/.*)?")
_READING = ("GET", "HEAD", "OPTIONS")
_CHALLENGE = {"www-authenticate": "Bearer"}
ADMIN_HEADER = "x-admin-key"
MOST_HEADERS = 100
MOST_HEADER_BYTES = 16 * 1024
MOST_ADDRESS_BYTES = 4 * 1024
_REASONS: dict[str, Reason] = {
    "client_limit": "client",
    "queue_full": "queue",
    "too_large": "size",
    "request_timeout": "slow",
    "encoded_body": "encoding",
    "deadline_exceeded": "deadline",
}


class Porch:
    """Outermost layer: request id, security headers, metrics, one log line, and the last word on failures."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with logs.tracing(Headers(scope=scope).get("x-request-id", "")) as trace:
            await self._answered(trace, scope, receive, send)

    async def _answered(self, trace: logs.Trace, scope: Scope, receive: Receive, send: Send) -> None:
        scope["edgegeo.request_id"] = trace.request_id
        begun = time.perf_counter()
        status = 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = trace.request_id
                headers.setdefault("cache-control", "no-store")
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            _check_head(scope)
            await self.app(scope, receive, with_headers)
        except Exception as error:
            answer = handle(error, Request(scope))
            if not status:
                await answer(scope, receive, with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "DELETE") else "other"
            # 499, as nginx has it: the client left before there was an answer.
            self.metrics.request_seconds.labels(route, method, str(status or 499)).observe(time.perf_counter() - begun)
            client = scope.get("client") or ("-", 0)
            logs.request(trace, method, route, status or 499, str(client[0]))


class HeadAsGet:
    """Innermost layer: HEAD is answered as GET is; the server that sends it leaves the body out (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}
        try:
            await self.app(asked, receive, send)
        finally:
            scope["route"] = asked.get("route")  # what metrics and log call it


def _check_head(scope: Scope) -> None:
    """h11 bounds a head only as long as it is incomplete."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_ADDRESS_BYTES:
        raise Refusal(414, "address_too_long", faults.ADDRESS_TOO_LONG)
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if len(scope["headers"]) > MOST_HEADERS or size > MOST_HEADER_BYTES:
        raise Refusal(431, "too_many_headers", faults.TOO_MANY_HEADERS)


class HostCheck:
    """Answers to its own names only, and changes nothing for pages of other origins.

    A page whose name was made to point here (DNS rebinding) shows by the Host header; addresses can't be rebound, so
    they pass. A page that posts here across origins shows by Origin or Sec-Fetch-Site; there is no CORS that would let
    it read an answer.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], metrics: Metrics) -> None:
        """names: accepted beside localhost; "*" accepts any."""
        self.app = app
        self.metrics = metrics
        self._names = {"localhost", *(_host_of(name) for name in names)}
        self._any = "*" in names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not self._any and not self._known(_host_of(headers.get("host", ""))):
                self.metrics.refuse("host")
                await respond(Refusal(421, "unknown_host", faults.UNKNOWN_HOST))(scope, receive, send)
                return
            if scope["method"] not in _READING and _is_foreign(headers):
                self.metrics.refuse("origin")
                await respond(Refusal(403, "cross_origin", faults.CROSS_ORIGIN))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _known(self, host: str) -> bool:
        if host in self._names:
            return True
        try:
            ip_address(host)
        except ValueError:
            return False
        return True


def _host_of(netloc: str) -> str:
    """The host of "host:port" or "[host]:port", in lower case."""
    if netloc.startswith("["):
        inside, closed, _ = netloc[1:].partition("]")
        return inside.lower() if closed else ""
    host = netloc.rpartition(":")[0] if netloc.count(":") == 1 else netloc
    return host.lower().rstrip(".")


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that a page of another origin sends this. Other clients say nothing."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    # A proxy in front may speak https, so that the scheme says nothing.
    return origin.lower().partition("://")[2] != headers.get("host", "").lower()


class KeyCheck:
    """Asks for the API key, and for the administrator's as well where something is changed; in constant time.

    Without an API key in the settings everyone may ask; without an administrator's key nobody may change anything.
    """

    def __init__(self, app: ASGIApp, key: str | None, metrics: Metrics, admin_key: str | None = None) -> None:
        self.app = app
        self.metrics = metrics
        self._key, self._admin = (None if one is None else _digest(one) for one in (key, admin_key))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        self.metrics.refuse("key" if refusal.status == 401 else "admin_key")
        await respond(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        if self._key is not None and not _OPEN.fullmatch(scope["path"]):
            scheme, _, sent = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not sent.strip():
                return Refusal(401, "missing_api_key", faults.NO_KEY, headers=_CHALLENGE)
            if not _same(sent.strip(), self._key):
                return Refusal(401, "invalid_api_key", faults.WRONG_KEY, headers=_CHALLENGE)
        if needs_admin(scope["method"], scope["path"]):
            if self._admin is None:
                return Refusal(403, "no_admin_key", faults.NO_ADMIN)
            # A header of its own, which no form of another site can send.
            if not _same(headers.get(ADMIN_HEADER, ""), self._admin):
                return Refusal(403, "not_the_administrator", faults.ADMIN_ONLY)
        return None


def needs_admin(method: str, path: str) -> bool:
    """Whether a request changes what is served; questions are POSTs and change nothing."""
    if path.startswith("/v1/admin"):
        return True
    return method not in _READING and (method != "POST" or path.startswith("/v1/gallery"))


def _same(sent: str, digest: bytes) -> bool:
    # Digests, so that neither length nor content shows in the time.
    return hmac.compare_digest(_digest(sent), digest)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Gate:
    """Bounds what is in hand: the body whole and small enough, then a place in the queue, a deadline over the work.

    The body comes first, so that a client who sends slowly holds up nobody.
    """

    def __init__(
        self, app: ASGIApp, admission: Admission, deadline_s: float, max_body_bytes: int, metrics: Metrics
    ) -> None:
        self.app = app
        self.admission = admission
        self.deadline_s = deadline_s
        self.max_body_bytes = max_body_bytes
        self.metrics = metrics
        self.intake = Intake(max_body_bytes, deadline_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READING:
            await self.app(scope, receive, send)
            return
        try:
            await self._read(scope, receive, send)
        except Refusal as refusal:
            self.metrics.refuse(_REASONS[refusal.code])
            await respond(refusal)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(scope)
        self._check_form(Headers(scope=scope))
        self.admission.check(client)
        async with self.intake.body(receive) as body:
            if body is not None:
                with self.admission.enter(client) as place:
                    await self._admitted(place, body, scope, receive, send)

    def _check_form(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()) or int(length[:20]) > self.max_body_bytes:
            raise Refusal(413, "too_large", faults.TOO_LARGE)
        # A compressed body could unfold to any size.
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "encoded_body", faults.ENCODED_BODY)

    async def _admitted(self, place: Place, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        unread = [body]
        left = False

        async def replayed() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        async def watch() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True
            place.scope.cancel()

        async def noted(message: Message) -> None:
            place.answering = True
            if message["type"] == "http.response.body" and not message.get("more_body"):
                watcher.cancel()  # after the end of an answer, servers say "disconnect" as well
            await send(message)

        watcher = asyncio.create_task(watch())
        try:
            with place.scope as limit:
                limit.deadline = anyio.current_time() + self.deadline_s
                if trace := logs.current():
                    trace.deadline = limit.deadline
                await self.app(scope, replayed, noted)
        finally:
            watcher.cancel()
        if limit.cancelled_caught and not place.answering and not left:
            raise busy() if place.given_up else Refusal(504, "deadline_exceeded", faults.TOO_LATE)
