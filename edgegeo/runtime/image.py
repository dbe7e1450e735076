"""Pictures in: opened behind limits, upright, RGB."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps

from edgegeo.errors import ImageError
from edgegeo.runtime.image_header import HeaderFault, read_header

Source = str | Path | bytes | Image.Image
"""What a picture can come from: a path, the bytes of a file, or an opened Pillow image."""

# What Pillow's decoders raise on damaged input, beyond OSError.
_DECODER_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, EOFError, RuntimeError, AttributeError,
    AssertionError, struct.error, zlib.error, Image.DecompressionBombError,
    Warning,  # where the caller made warnings errors
)  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Measured at 50 megapixels: WebP keeps two canvases beside the picture, progressive JPEG its coefficients.
_BYTES_A_PIXEL = {"JPEG": 13, "PNG": 9, "WEBP": 17}
_METADATA = ("exif", "xmp", "icc_profile")
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before any pixel is decoded."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_aspect: float = 200.0
    """Longest over shortest side."""
    min_side: int = 8
    """A picture with a side below this shows nothing."""


def open_image(src: Source, limits: ImageLimits | None = None) -> Image.Image:
    """A picture as upright RGB: header first, then the limits, then the pixels.

    Turned by its EXIF orientation as transformers' `load_image` does; transparency is laid on white as the
    processors' `convert_to_rgb` does; 16-bit grey is clipped to 8 bits as both do. Raises ImageError for anything
    that is not a whole, still, sensibly shaped JPEG, PNG or WebP.
    """
    limits = limits or ImageLimits()
    if isinstance(src, Image.Image):
        _check_shape(src.size, "the picture", limits)
        return to_rgb(_upright(src))
    data, name = _read(src, limits)
    try:
        header = read_header(data)
    except HeaderFault as fault:
        raise _damaged(name, fault) from None
    if header is None:
        raise ImageError(f"{name} is not a JPEG, PNG or WebP picture; convert it to one of them")
    _check_shape((header.width, header.height), name, limits)
    if header.frames > 1:
        raise ImageError(f"{name} is animated; send a single frame of it")
    try:
        image = Image.open(BytesIO(header.pixels), formats=(header.format,))
        # The decoder reads sizes of its own; it must not find more than was checked.
        _check_shape(image.size, name, limits)
        image.load()
        for key in _METADATA:
            image.info.pop(key, None)  # read already; an upright picture is not turned twice
        turn = _TURNS.get(header.orientation)
        return to_rgb(image if turn is None else image.transpose(turn))
    except _DECODER_FAULTS as error:
        raise _damaged(name, error) from None


def decoding_bytes(data: bytes, limits: ImageLimits | None = None) -> int:
    """Most memory that `open_image` takes for these bytes beside themselves; 0 where it refuses them unopened."""
    limits = limits or ImageLimits()
    try:
        header = read_header(data)
        if header is None:
            return 0
        _check_shape((header.width, header.height), "", limits)
    except (HeaderFault, ImageError):
        return 0
    return header.width * header.height * _BYTES_A_PIXEL[header.format]


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, transparency composited on white: transformers 5 `image_transforms.convert_to_rgb`."""
    if image.mode == "RGB" and image.info.get("transparency") is None:
        return image
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """In strips: whole layers would take four times the picture's memory."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    laid = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        layer = image.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        laid.paste(Image.alpha_composite(white, layer).convert("RGB"), (0, top))
    return laid


def _read(src: Any, limits: ImageLimits) -> tuple[bytes, str]:
    if isinstance(src, (bytes, bytearray, memoryview)):
        data, name = bytes(src), "the picture"
    elif isinstance(src, (str, Path)):
        path, name = Path(src), str(src)
        try:
            if not path.is_file():
                raise ImageError(f"no picture at {name}; check the path")
            size = path.stat().st_size
            data = path.read_bytes() if size <= limits.max_bytes else b""
        except (OSError, ValueError) as error:
            raise ImageError(f"{name} can't be opened ({_short(error)}); check the path") from None
        if size > limits.max_bytes:
            raise ImageError(_too_many_bytes(name, size, limits))
    else:
        raise ImageError(f"a picture is a path, bytes or a Pillow image, not {type(src).__name__}")
    if len(data) > limits.max_bytes:
        raise ImageError(_too_many_bytes(name, len(data), limits))
    if not data:
        raise ImageError(f"{name} is empty; send a JPEG, PNG or WebP picture")
    return data, name


def _too_many_bytes(name: str, size: int, limits: ImageLimits) -> str:
    return f"{name} has {size:,} bytes, more than the allowed {limits.max_bytes:,}; scale it down or compress it"


def _check_shape(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the allowed {limits.max_pixels:,}; scale it down"
        )
    if min(width, height) < limits.min_side:
        raise ImageError(
            f"{name} has {width} x {height} pixels; both sides need at least {limits.min_side}, send a larger picture"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ImageError(
            f"{name} has {width} x {height} pixels, longer than {limits.max_aspect:g}:1; crop it to the scene"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Without a turn, exif_transpose would copy every pixel.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except _DECODER_FAULTS:
        return image  # metadata that can't be read gives no orientation


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is damaged or cut off ({_short(error)}); copy or save it again")


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:120]
