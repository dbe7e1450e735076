"""Pictures in: guarded opening, and the pixel arithmetic of the Hugging Face processors without transformers."""

import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError

Source = str | Path | bytes | Image.Image
"""What a picture can come from: a path, the bytes of a file, or an opened Pillow image."""

FORMATS = ("JPEG", "PNG", "WEBP")
_SMOLVLM_MAX_EDGE = 4096
# What Pillow's decoders raise on damaged input, beyond OSError.
_DECODER_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, EOFError, struct.error, zlib.error,
    UserWarning,  # where the caller made warnings errors
)  # fmt: skip


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
        _check_shape(src, "the picture", limits)
        return to_rgb(_upright(src))
    data, name = _read(src, limits)
    try:
        with warnings.catch_warnings():
            # Pillow only warns of bombs below its own limit; ours is lower and an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a JPEG, PNG or WebP picture; convert it to one of them") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"{name} declares more than {limits.max_pixels:,} pixels; scale it down before sending it"
        ) from None
    except _DECODER_FAULTS as error:
        raise ImageError(f"{name} is damaged or cut off ({_short(error)}); copy or save it again") from None
    _check_shape(image, name, limits)
    # Phones write JPEGs with a preview behind the picture ("MPO"): several frames, but a still picture.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError(f"{name} is animated; send a single frame of it")
    try:
        image.load()
        return to_rgb(_upright(image))
    except _DECODER_FAULTS as error:
        raise ImageError(f"{name} is damaged or cut off ({_short(error)}); copy or save it again") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, transparency composited on white: transformers 5 `image_transforms.convert_to_rgb`."""
    if image.mode == "RGB" and image.info.get("transparency") is None:
        return image
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def pixels(image: Image.Image, spec: ImageSpec) -> NDArray[np.float32]:
    """The vision tower's input for one RGB picture: (3, size, size) float32, equal to the HF processor's."""
    out = np.empty((3, spec.size, spec.size), np.float32)
    write_pixels(image, spec, out)
    return out


def write_pixels(image: Image.Image, spec: ImageSpec, out: NDArray[np.float32]) -> None:
    """As `pixels`, into `out` (3, size, size) float32, so that a batch is filled in place."""
    if spec.kind != "smolvlm":
        raise ImageError(f"this edgegeo doesn't know the image preprocessing '{spec.kind}'; update edgegeo")
    array = np.asarray(_resize_smolvlm(to_rgb(image), spec))
    tables = _tables(spec.rescale, spec.mean, spec.std)
    for channel in range(3):
        np.take(tables[channel], array[:, :, channel], out=out[channel], mode="clip")


def _resize_smolvlm(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """First the longest edge with the aspect kept, then the square: two resamplings, as the processor does.

    SmolVLMImageProcessorPil of transformers 5.23 with do_image_splitting=False. The second step does not keep the
    aspect: the picture fills the square and nothing is padded.
    """
    width, height = image.size
    target = _longest_edge(width, height, spec.longest_edge)
    if target[0] > _SMOLVLM_MAX_EDGE or target[1] > _SMOLVLM_MAX_EDGE:
        target = _below(*target, _SMOLVLM_MAX_EDGE)
    resample = Image.Resampling(spec.resample)
    return image.resize(target, resample).resize((spec.size, spec.size), resample)


def _longest_edge(width: int, height: int, edge: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
        height += height % 2
    else:
        width, height = int(edge * ratio), edge
        width += width % 2
    return max(width, 1), max(height, 1)


def _below(width: int, height: int, edge: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
    else:
        width, height = int(edge * ratio), edge
    return max(width, 1), max(height, 1)


@lru_cache(maxsize=8)
def _tables(rescale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    # A pixel has 256 values, so rescaling and normalising are one look-up, computed once in the processor's own
    # order of roundings (float64 product, float32 difference and quotient): bit-equal and several times faster.
    levels = (np.arange(256).astype(np.float64) * rescale).astype(np.float32)
    shift, scale = np.array(mean, np.float32), np.array(std, np.float32)
    return np.asarray((levels[None, :] - shift[:, None]) / scale[:, None], np.float32)


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


def _check_shape(image: Image.Image, name: str, limits: ImageLimits) -> None:
    width, height = image.size
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


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:120]
