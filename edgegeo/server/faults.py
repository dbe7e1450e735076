"""Every refusal and failure as the client sees it: OpenAI's error envelope, constant texts, one table of codes.

A client never sees a path, an address, a traceback or its own bytes back; the log has the detail, under the same
request id.
"""

import logging
import re
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgegeo.errors import BundleError, DeviceError, EdgegeoError, GalleryError, ImageError, InputError

log = logging.getLogger("edgegeo.server")

# A path, a Windows drive or a memory address; "JPEG/PNG" and "1/2" are none of these.
_PRIVATE = re.compile(r"(?:^|[\s'\"(<=:])(?:~|\.{0,2})/[\w.]|\b[A-Za-z]:\\|0x[0-9a-fA-F]{6,}|<[\w.]+ object")
_LONGEST_MESSAGE = 400


class Refusal(Exception):
    """An answer other than 2xx that the server gives on purpose."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.headers = status, code, message, param, headers


NOT_AN_IMAGE = "this is not a JPEG, PNG or WebP picture"
NO_URLS = "the server never fetches URLs: send the picture as a data URI (data:image/jpeg;base64,...) or as an upload"
TOO_LARGE = "the request is larger than this server accepts; send a smaller picture or fewer inputs"
QUEUE_FULL = "the server has as many requests in hand as it accepts; try again shortly"
CLIENT_FULL = "this address has as many requests in hand as the server accepts from one; wait for their answers"
TOO_SLOW = "the request's body came too slowly; send it at once, or a smaller picture"
ENCODED_BODY = "send the body without Content-Encoding; JPEG, PNG and WebP are compressed already"
BAD_REQUEST = "the request could not be understood"
OVERLOADED = "the server has as many connections as it takes; try again shortly"
INVALID_JSON = "the body is not valid JSON"
ADDRESS_TOO_LONG = "the address is longer than this server reads"
TOO_MANY_HEADERS = "the request has more or longer headers than this server reads"
UNKNOWN_HOST = "the server does not answer to the name in the Host header; start it with --allowed-hosts NAME"
CROSS_ORIGIN = "pages of other origins may not send this; open the server's own page"
ADMIN_ONLY = "only the administrator may do this: send the administrator's key as 'X-Admin-Key: KEY'"
NO_ADMIN = "this server takes no changes: it was started without an administrator's key (EDGEGEO_ADMIN_KEY)"
DRAINING = "the server is shutting down; send the request again, to another server or a little later"
TOO_LATE = "the answer was not ready before the deadline"
NO_KEY = "this server needs an API key: send it as 'Authorization: Bearer KEY'"
WRONG_KEY = "the API key is not right"
NO_MEMORY = "the server ran out of memory for this request; send less at once or try again later"
INTERNAL = "internal error; the server's log has the details under this response's x-request-id"
UNAVAILABLE = "the model or gallery can't be used right now; the server's log has the details"

# The one table from kinds of errors to codes. First match wins, so leaves come before their parents.
_TABLE: tuple[tuple[type[BaseException], int, str, str | None], ...] = (
    # None: the error's own message is shown, if it holds nothing private.
    (ImageError, 422, "unusable_image", None),
    (InputError, 422, "invalid_input", None),
    (GalleryError, 503, "gallery_unavailable", UNAVAILABLE),
    (BundleError, 503, "bundle_unavailable", UNAVAILABLE),
    (DeviceError, 503, "device_unavailable", UNAVAILABLE),
    (MemoryError, 503, "out_of_memory", NO_MEMORY),
    (TimeoutError, 504, "deadline_exceeded", TOO_LATE),
)
_HTTP_CODES = {
    400: ("invalid_request", BAD_REQUEST),
    404: ("not_found", "there is nothing at this address; GET /docs lists what there is"),
    405: ("method_not_allowed", "this address does not answer this method; GET /docs lists what there is"),
    413: ("too_large", TOO_LARGE),
    415: ("unsupported_media_type", "send JSON (application/json) or a form upload (multipart/form-data)"),
}


def retry_after(seconds: int = 1) -> dict[str, str]:
    """The header that says when to come back."""
    return {"retry-after": str(seconds)}


def draining() -> Refusal:
    """503 from a server that is about to end."""
    return Refusal(503, "draining", DRAINING, headers={**retry_after(), "connection": "close"})


def public_text(error: BaseException, otherwise: str) -> str:
    """The error's own message if it holds no path and no address, else `otherwise`."""
    text = " ".join(str(error).split())
    return otherwise if not text or _PRIVATE.search(text) else text[:_LONGEST_MESSAGE]


def refusal_for(error: BaseException) -> Refusal:
    """The answer to an error raised while handling a request."""
    if isinstance(error, Refusal):
        return error
    for kind, status, code, text in _TABLE:
        if isinstance(error, kind):
            return Refusal(status, code, text or public_text(error, "the input can't be used"))
    return Refusal(500, "internal_error", INTERNAL)


def respond(refusal: Refusal) -> JSONResponse:
    """OpenAI's error envelope."""
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    if refusal.status == 401:
        kind = "authentication_error"
    elif refusal.status == 403:
        kind = "permission_error"
    elif refusal.status == 429:
        kind = "rate_limit_error"
    body = {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}
    return JSONResponse({"error": body}, refusal.status, headers=refusal.headers)


def handle(error: Exception, request: Request) -> Response:
    """Answer an error; what the client isn't told goes to the log."""
    refusal = refusal_for(error)
    request_id = request.scope.get("edgegeo.request_id", "-")
    if refusal.status == 500:
        log.error("request %s failed", request_id, exc_info=error)
    elif isinstance(error, EdgegeoError) and refusal.message != str(error):
        log.warning("request %s: %s", request_id, error)
    return respond(refusal)


def from_validation(errors: Any) -> Refusal:
    """The first fault that pydantic found, with the place in the request but not what stood there."""
    # Where several forms are allowed, pydantic tells what is wrong with each: the one that got furthest was meant.
    fault = max(errors, key=lambda error: len(error["loc"]))
    if fault["type"] in ("json_invalid", "value_error.jsondecode"):
        return Refusal(400, "invalid_json", INVALID_JSON)
    steps = fault["loc"][1:] if fault["loc"][:1] in (("body",), ("query",), ("path",)) else fault["loc"]
    # The field and the item; steps between them name pydantic's branches, steps below may be the client's own words.
    named = [step for step in steps[:1] if isinstance(step, str) and step.isidentifier() and len(step) < 40]
    place = ".".join(named + [str(step) for step in steps[1:] if isinstance(step, int)][:1]) or None
    message = fault["msg"].removeprefix("Value error, ")
    text = public_text(ValueError(f"{place or 'body'}: {message}"), "the request does not have the expected form")
    return Refusal(422, "invalid_input", text, place)


def install(app: FastAPI) -> None:
    """Let every exception of the app end in the envelope."""

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code, text = _HTTP_CODES.get(error.status_code, ("http_error", "the request was refused"))
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # see guard.HeadAsGet
        return respond(Refusal(error.status_code, code, text, headers=headers))

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(from_validation(error.errors()))

    async def on_error(request: Request, error: Exception) -> Response:
        return handle(error, request)

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    # Exception itself would be answered outside our middleware and raised again; kinds are answered inside.
    for kind in (Refusal, EdgegeoError, MemoryError, TimeoutError):
        app.add_exception_handler(kind, on_error)
