"""JSON from outside: one meaning, few values, no deeper than a parser goes.

Python's parser takes the last of two equal names, NaN and half a surrogate pair, and makes a gigabyte of objects of
thirty megabytes of `{},`. None of this passes here.
"""

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edgegeo.server.faults import INVALID_JSON, TOO_LARGE, Refusal

MOST_VALUES = 20_000
"""Values in one body; a request of 256 inputs has a few thousand."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def read_json(body: bytes) -> Any:
    """The parsed body. Refusal 400 where it is no JSON or ambiguous, 413 where it has too many values."""
    if _separators(body) > MOST_VALUES and _separators(_STRING.sub(b"", body)) > MOST_VALUES:
        raise Refusal(413, "too_large", TOO_LARGE)
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        if b"\\" in body:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can't become UTF-8
    except (ValueError, RecursionError):
        raise Refusal(400, "invalid_json", INVALID_JSON) from None
    return value


class JsonRoute(APIRoute):
    """A route whose declared body is read by `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return read_json(await self.body())
        except Refusal as refusal:
            # The two kinds of exceptions that FastAPI lets through while it reads a body.
            if refusal.status == 400:
                raise json.JSONDecodeError("", "", 0) from None
            raise HTTPException(refusal.status) from None


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        raise ValueError("a name comes twice")
    return named


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
