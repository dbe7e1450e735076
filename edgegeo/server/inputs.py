"""From what a client sent to texts and pictures: data URIs, uploads, content parts. Nothing here opens a connection."""

import base64
import binascii
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import numpy as np
from anyio.to_thread import run_sync
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime import Picture, open_image, prepare_picture
from edgegeo.server.faults import NO_URLS, NOT_AN_IMAGE, Refusal
from edgegeo.server.schemas import Content, ImagePart, Query, TextPart

Floats = NDArray[np.float32]

LONGEST_TEXT = 50_000
"""Characters; far above what any model takes, so that a tokenizer never chews on megabytes."""

_URI = re.compile(
    r"data:(?P<type>[\w.+-]{1,40}/[\w.+-]{1,60})?(?:;[\w.=+-]{1,60}){0,4}?(?P<base64>;base64)?,", re.ASCII
)
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]{0,30}://")
_FORM_FILES = ("image", "photo", "file")

QueryModel = TypeVar("QueryModel", bound=Query)


@dataclass(frozen=True)
class Upload:
    """Encoded bytes of a picture, not yet looked at, and where in the request they came from."""

    data: bytes
    param: str


class Decoder:
    """Decodes pictures on its own few threads, so that neither the event loop nor the model waits for JPEG.

    A small file can open to hundreds of megabytes, so that only a few opened pictures exist at once.
    """

    def __init__(self, spec: ImageSpec, threads: int = 2, held: int = 4) -> None:
        self._spec = spec
        self._limiter = anyio.CapacityLimiter(threads)
        self._held = anyio.Semaphore(held)

    async def prepared(self, upload: Upload) -> Picture:
        """What the model sees of it; Refusal as `decode`."""
        return await run_sync(lambda: prepare_picture(decode(upload), self._spec), limiter=self._limiter)

    @asynccontextmanager
    async def opened(self, picture: Upload | None) -> AsyncIterator[Image.Image | None]:
        """The picture in RGB, for as long as it is worked on; Refusal as `decode`."""
        if picture is None:
            yield None
            return
        async with self._held:
            yield await run_sync(decode, picture, limiter=self._limiter)


def decode(picture: Upload) -> Image.Image:
    """The picture in RGB. Refusal 415 where the bytes aren't an image, ImageError where it can't be used."""
    head = picture.data[:12]
    if not head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) and (head[:4], head[8:]) != (b"RIFF", b"WEBP"):
        raise Refusal(415, "not_an_image", NOT_AN_IMAGE, picture.param)
    try:
        return open_image(picture.data)
    except ImageError as error:
        error.args = (f"{picture.param}: {error}",)
        raise


def read_text(text: str, param: str) -> str:
    """The text, or 422 where it is empty, far too long, or not encodable."""
    if not text.strip():
        raise Refusal(422, "empty_text", f"{param}: the text is empty", param)
    if len(text) > LONGEST_TEXT:
        raise Refusal(422, "text_too_long", f"{param}: the text has more than {LONGEST_TEXT} characters", param)
    if not text.isprintable():
        # A lone surrogate can't become UTF-8, and a tokenizer would stumble over it.
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refusal(422, "invalid_text", f"{param}: the text is not valid Unicode", param) from None
    return text


def read_picture(uri: str, param: str, bare: bool = False) -> Upload:
    """The bytes in a data URI, or in bare base64 where `bare` allows it; never fetched from anywhere."""
    if _SCHEME.match(uri):
        raise Refusal(422, "url_not_fetched", f"{param}: {NO_URLS}", param)
    match = _URI.match(uri)
    if match is None and (not bare or uri.startswith("data:")):
        raise Refusal(422, "invalid_data_uri", f"{param}: expected data:image/jpeg;base64,... (or png, webp)", param)
    if match is not None:
        kind = match["type"] or ""
        if not kind.startswith("image/"):
            raise Refusal(415, "not_an_image", f"{param}: {NOT_AN_IMAGE}", param)
        if not match["base64"]:
            raise Refusal(422, "invalid_data_uri", f"{param}: the data URI must be base64 (;base64,)", param)
    try:
        data = base64.b64decode(uri[match.end() :] if match else uri, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, "invalid_base64", f"{param}: the picture is not valid base64", param) from None
    return Upload(data, param)


def read_part(item: str | TextPart | ImagePart | Content, param: str) -> str | Upload:
    """A text or a picture from one input in any of its forms; a plain string is a text."""
    if isinstance(item, str):
        if item.startswith("data:image/"):
            # Else the letters of its base64 would be taken for words.
            raise Refusal(422, "invalid_input", f"{param}: put a picture into a part of type image_url", param)
        return read_text(item, param)
    if isinstance(item, Content):
        return read_part(item.content[0], f"{param}.content.0")
    if isinstance(item, TextPart):
        return read_text(item.text, param)
    return read_picture(item.image_url.url, f"{param}.image_url.url")


async def read_query(request: Request, schema: type[QueryModel]) -> tuple[QueryModel, str | None, Upload | None]:
    """A `Query` from JSON or from a multipart upload, with its text and its picture, at least one of them.

    Raises Refusal 415 for another content type, 422 for a query without either or with two pictures.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    upload: Upload | None = None
    try:
        if kind == "multipart/form-data":
            fields, upload = await _read_form(request)
            model = schema.model_validate(fields, strict=False)  # a form holds texts only
        elif kind == "application/json":
            model = schema.model_validate_json(await request.body())
        else:
            raise Refusal(415, "unsupported_media_type", "send application/json or multipart/form-data")
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None
    if model.image is not None and upload is not None:
        raise Refusal(422, "invalid_input", "send one picture, as an upload or as a data URI")
    if model.text is None and model.image is None and upload is None:
        raise Refusal(422, "invalid_input", "send a text, an image, or both")
    text = None if model.text is None else read_text(model.text, "text")
    return model, text, upload if model.image is None else read_picture(model.image, "image", bare=True)


async def _read_form(request: Request) -> tuple[dict[str, Any], Upload | None]:
    fields: dict[str, Any] = {}
    upload = None
    async with request.form(max_files=1, max_fields=16) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise Refusal(422, "invalid_input", "a form field was sent twice")
            if not isinstance(value, UploadFile):
                fields[name] = value
            elif name in _FORM_FILES:
                upload = Upload(await value.read(), name)
            else:
                raise Refusal(422, "invalid_input", f"send the picture in one of the fields {', '.join(_FORM_FILES)}")
    return fields, upload
