"""From what a client sent to texts and pictures: data URIs, uploads, content parts. Nothing here opens a connection."""

import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime import Picture, open_image, prepare_picture
from edgegeo.runtime.image import decoding_bytes
from edgegeo.server.faults import NO_URLS, NOT_AN_IMAGE, Refusal
from edgegeo.server.limits import Budget
from edgegeo.server.schemas import Content, GalleryTile, ImagePart, TextDocument, TextPart

Floats = NDArray[np.float32]

LONGEST_TEXT = 50_000
"""Characters; far above what any model takes, so that a tokenizer never chews on megabytes."""

MOST_DECODED = 800 * 2**20
"""Bytes of memory that opened pictures take together; the largest WebP allowed takes as much."""

_LOOKED_AT_HERE = 256 * 2**10
"""Bytes of a file whose header is read on the event loop, in less time than a thread would take to begin."""

_URI = re.compile(
    r"data:(?P<type>[\w.+-]{1,40}/[\w.+-]{1,60})?(?:;[\w.=+-]{1,60}){0,4}?(?P<base64>;base64)?,", re.ASCII
)
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]{0,30}://")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://\S*")

Document = str | TextPart | ImagePart | Content | GalleryTile | TextDocument


@dataclass(frozen=True)
class Upload:
    """Encoded bytes of a picture, not yet looked at, and where in the request they came from."""

    data: bytes
    param: str


class Decoder:
    """Decodes pictures on its own few threads, so that neither the event loop nor the model waits for JPEG.

    A small file can open to hundreds of megabytes, so that pictures wait until there is memory for them.
    """

    def __init__(self, spec: ImageSpec, threads: int = 2, most_bytes: int = MOST_DECODED) -> None:
        """most_bytes: that opened pictures may take together; one that takes more is opened alone."""
        self._spec = spec
        self._limiter = anyio.CapacityLimiter(threads)
        self._memory = Budget(most_bytes)

    async def prepared(self, upload: Upload) -> Picture:
        """What the model sees of it; Refusal as `decode`."""
        async with self._memory.hold(await self._cost(upload)):
            return await run_sync(lambda: prepare_picture(decode(upload), self._spec), limiter=self._limiter)

    async def prepare(self, image: Image.Image) -> Picture:
        """What the model sees of an opened picture."""
        return await run_sync(prepare_picture, image, self._spec, limiter=self._limiter)

    @asynccontextmanager
    async def opened(self, picture: Upload | None) -> AsyncIterator[Image.Image | None]:
        """The picture in RGB, for as long as it is worked on; Refusal as `decode`."""
        if picture is None:
            yield None
            return
        async with self._memory.hold(await self._cost(picture)):
            yield await run_sync(decode, picture, limiter=self._limiter)

    async def _cost(self, picture: Upload) -> int:
        """Bytes of memory that opening will take; 0 where `decode` will refuse without opening."""
        if len(picture.data) <= _LOOKED_AT_HERE:
            return decoding_bytes(picture.data)
        return await run_sync(decoding_bytes, picture.data, limiter=self._limiter)


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


def read_document(item: Document, tile: Callable[[str], bytes | None], param: str) -> str | Upload:
    """A text or a picture of any form that a document may have; `tile` gives the picture of a gallery's tile by id."""
    if isinstance(item, TextDocument):
        return read_text(item.text, f"{param}.text")
    if isinstance(item, GalleryTile):
        picture = tile(item.id)
        if picture is None:
            raise Refusal(422, "unknown_document", f"{param}: the gallery has no tile of this id", param)
        return Upload(picture, param)
    if isinstance(item, str) and (item.startswith("data:") or _ADDRESS.fullmatch(item)):
        return read_picture(item, param)
    return read_part(item, param)


def check_count(count: int, limit: int, param: str) -> None:
    """422 for none or too many."""
    if not 1 <= count <= limit:
        raise Refusal(422, "invalid_input", f"{param}: send between 1 and {limit} at once, not {count}", param)
