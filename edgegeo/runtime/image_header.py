"""What a picture's file says of itself, read before any decoder sees it.

Pillow's plugins parse metadata while they open a file, before a caller learns the size: EXIF whose entries overlap,
millions of empty segments, compressed text. None of it makes a pixel, so it is dropped here; of EXIF and XMP only the
orientation is read.
"""

import re
import struct
from dataclasses import dataclass

MOST_SEGMENTS = 5_000
"""Segments (JPEG) or chunks (PNG, WebP) of one file; a 32 MB PNG in pieces of 8 KB has 4,000."""

MOST_SCANS = 64
"""Scans of a progressive JPEG; encoders write about ten, and each one costs a pass over the whole picture."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_BARE = {0x01, *range(0xD0, 0xD9)}
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# Frames, tables and restart intervals, the JFIF and Adobe marks (they tell the colour space).
_JPEG_PIXELS = {*_SIZES, 0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xE0, 0xEE}
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 0x0112


class HeaderFault(ValueError):
    """A file that is damaged, cut off or made to be expensive; the text says which."""


@dataclass(frozen=True)
class ImageHeader:
    """Declared by the file, not yet proven by its pixels."""

    format: str
    """"JPEG", "PNG" or "WEBP"."""
    width: int
    height: int
    orientation: int
    """EXIF's 1 to 8; 1 where nothing readable is said."""
    frames: int
    """Pictures in the file, as an animation declares them."""
    pixels: bytes
    """The file without what isn't needed for the pixels."""


def read_header(data: bytes) -> ImageHeader | None:
    """The header, None for a file of another format. Raises HeaderFault."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith(_PNG):
            return _read_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp(data)
    except (struct.error, IndexError):
        raise HeaderFault("its header ends early") from None
    return None


def _read_jpeg(data: bytes) -> ImageHeader:
    kept = [b"\xff\xd8"]
    size: tuple[int, int] | None = None
    exif = xmp = b""
    at, components, progressive = 2, 0, False
    for _ in range(MOST_SEGMENTS):
        match = _MARKER.search(data, at)  # skips what libjpeg skips: fill bytes and junk between segments
        if match is None or data[match.start() + 1] == _END:
            break
        start, marker = match.start(), data[match.start() + 1]
        if marker in _BARE:
            at = start + 2
            continue
        (length,) = struct.unpack_from(">H", data, start + 2)
        at = start + 2 + length
        if length < 2 or at > len(data):
            break
        if marker in _SIZES:
            height, width, components = struct.unpack_from(">HHB", data, start + 5)
            size = size or (width, height)
            progressive = progressive or marker in _PROGRESSIVE
        if marker in _JPEG_PIXELS:
            kept.append(data[start:at])
        elif marker == _APP1:
            body = data[start + 4 : at]
            exif = exif or (body if body.startswith(b"Exif\0\0") else b"")
            xmp = xmp or (body if body.startswith(_XMP_HEAD) else b"")
        elif marker == _START_OF_SCAN:
            if size is None:
                break
            # A first scan of all components is the only one that a sequential picture has.
            several = progressive or data[start + 4] < components
            if several and data.count(b"\xff\xda", start) > MOST_SCANS:
                raise HeaderFault(f"it has more than {MOST_SCANS} scans")
            kept.append(data[start:])
            return ImageHeader("JPEG", *size, _orientation(exif, xmp), 1, b"".join(kept))
    else:
        raise HeaderFault(f"it has more than {MOST_SEGMENTS:,} segments")
    raise HeaderFault("its header ends early")


def _read_png(data: bytes) -> ImageHeader:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        raise HeaderFault("its first chunk is not IHDR")
    kept = [_PNG]
    exif = xmp = b""
    frames, at = 1, 8
    for _ in range(MOST_SEGMENTS):
        if at + 8 > len(data):
            break  # cut off; the decoder tells whether pixels are missing
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in _PNG_PIXELS:
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0", at + 8):
            xmp = data[at + 8 : end - 4]
        elif kind == b"acTL" and length >= 4:
            (frames,) = struct.unpack_from(">I", data, at + 8)
        if kind == b"IEND":
            break
        at = end
    else:
        raise HeaderFault(f"it has more than {MOST_SEGMENTS:,} chunks")
    return ImageHeader("PNG", width, height, _orientation(exif, xmp), frames, b"".join(kept))


def _read_webp(data: bytes) -> ImageHeader:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27))
        data[29]  # a header cut off is an IndexError, not a picture of 1 x 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise HeaderFault("its first chunk is none of WebP's")
    exif = xmp = b""
    frames, at = 0, 12
    for _ in range(MOST_SEGMENTS):
        if at + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length
        if name == b"EXIF":
            exif = data[at + 8 : end]
        elif name == b"XMP ":
            xmp = data[at + 8 : end]
        frames += name == b"ANMF"
        at = end + (length & 1)
    else:
        raise HeaderFault(f"it has more than {MOST_SEGMENTS:,} chunks")
    return ImageHeader("WEBP", width, height, _orientation(exif, xmp), max(frames, 1), data)


def _orientation(exif: bytes, xmp: bytes) -> int:
    """EXIF's first directory decides, XMP where it is silent, as in Pillow's `getexif`."""
    found = _exif_orientation(exif.removeprefix(b"Exif\0\0"))
    if found is None and (match := _XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _exif_orientation(tiff: bytes) -> int | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for i in range(count):
            tag, kind, _ = struct.unpack_from(order + "HHI", tiff, first + 2 + 12 * i)
            if tag == _ORIENTATION:
                # SHORT, or the LONG that some cameras write.
                value = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, first + 10 + 12 * i)
                return int(value[0])
    except struct.error:
        pass
    return None
