"""What schemathesis can't tell from a JSON schema: pictures. Loaded by it through SCHEMATHESIS_HOOKS."""

import base64
import io

import schemathesis
from hypothesis import strategies
from PIL import Image


def picture(kind: str, width: int, height: int, level: int) -> bytes:
    """A file of a plain colour."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (level, 255 - level, 90)).save(stream, kind)
    return stream.getvalue()


SIDES = strategies.integers(8, 80)
FILES = strategies.builds(picture, strategies.sampled_from(("JPEG", "PNG", "WEBP")), SIDES, SIDES, SIDES)


def uri(data: bytes) -> str:
    """The picture as requests of JSON carry it; its type is found in its bytes."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


schemathesis.openapi.format("picture-data-uri", FILES.map(uri))
