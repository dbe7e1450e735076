"""What stands before every request: headers, key, size, queue and deadline, as plain ASGI layers."""

import hashlib
import hmac
import re
import time

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgegeo.server import logs
from edgegeo.server.faults import NO_KEY, QUEUE_FULL, TOO_LARGE, TOO_LATE, WRONG_KEY, Refusal, handle, respond
from edgegeo.server.metrics import Metrics
from edgegeo.server.worker import Admission

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
}
# Pages and probes that hold nothing secret; the page asks its reader for the key and sends it with every call.
_OPEN = re.compile(r"/(health/(live|ready)|docs|openapi\.json|page/.*)?")
RETRY_AFTER_S = 1


class Porch:
    """Outermost layer: request id, security headers, metrics, one log line, and the last word on failures."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class KeyCheck:
    """Asks for the API key, compared in constant time. Without a key in the settings it lets everyone pass."""

    def __init__(self, app: ASGIApp, key: str | None, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        self._digest = None if key is None else hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        self.metrics.refused.labels("key").inc()
        await respond(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if self._digest is None or _OPEN.fullmatch(scope["path"]):
            return None
        challenge = {"www-authenticate": "Bearer"}
        scheme, _, sent = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not sent:
            return Refusal(401, "missing_api_key", NO_KEY, headers=challenge)
        # Digests, so that neither length nor content shows in the time.
        if not hmac.compare_digest(hashlib.sha256(sent.strip().encode()).digest(), self._digest):
            return Refusal(401, "invalid_api_key", WRONG_KEY, headers=challenge)
        return None


class Gate:
    """Bounds what is in hand: a place in the queue before the body is read, a cap on the body, a deadline over all."""

    def __init__(
        self, app: ASGIApp, admission: Admission, deadline_s: float, max_body_bytes: int, metrics: Metrics
    ) -> None:
        self.app = app
        self.admission = admission
        self.deadline_s = deadline_s
        self.max_body_bytes = max_body_bytes
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.max_body_bytes:
            self.metrics.refused.labels("size").inc()
            await respond(Refusal(413, "too_large", TOO_LARGE))(scope, receive, send)
        elif scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif not self.admission.enter():
            self.metrics.refused.labels("queue").inc()
            busy = Refusal(429, "queue_full", QUEUE_FULL, headers={"retry-after": str(RETRY_AFTER_S)})
            await respond(busy)(scope, receive, send)
        else:
            try:
                await self._admitted(scope, receive, send)
            finally:
                self.admission.leave()

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_body_bytes:
                # The one exception that Starlette and FastAPI let through while they read a body.
                raise HTTPException(413)
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        with anyio.move_on_after(self.deadline_s) as limit:
            await self.app(scope, counted, noted)
        if limit.cancelled_caught and not begun:
            self.metrics.refused.labels("deadline").inc()
            await respond(Refusal(504, "deadline_exceeded", TOO_LATE))(scope, receive, send)
