"""Hostile pictures by the thousand, the same ones every time.

Every format and mode that Pillow writes, damaged in every way that files are damaged, and files made to be expensive:
what a server on the open sea gets sent. Nothing here is random beyond a seeded generator.
"""

import io
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "I;16B",
    "F",
)  # fmt: skip
ALLOWED = ("JPEG", "PNG", "WEBP")
Named = Iterator[tuple[str, bytes]]


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise over a slope."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 180, width)[None, :, None]
    array = np.clip(slope + rng.integers(0, 70, (height, width, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(array)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(array[:, :, 1]))
    if mode in ("La", "RGBa"):
        return noise(width, height, mode.upper(), seed).convert(mode)
    if mode in ("PA", "I;16", "I;16B", "LAB", "HSV"):
        return Image.new(mode, (width, height))
    return image.convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(head: bytes, *chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file of these chunks."""
    body = b"".join(k + struct.pack("<I", len(d)) + d + b"\0" * (len(d) & 1) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def exif(entries: list[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """EXIF of one directory: (tag, type, count, value or offset) each, then `rest`."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4) + rest


def written() -> Named:
    """What Pillow writes, in every format and mode that go together."""
    Image.init()
    for form in sorted(set(Image.SAVE) - {"PDF", "EPS"}):
        for mode in MODES:
            for size in ((40, 30), (16, 16)):
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        yield f"{form} {mode} {size[0]}", encoded(noise(*size, mode), form)
                except (OSError, ValueError, KeyError, TypeError, SystemError, AttributeError, RuntimeError):
                    continue  # this format has no such mode, or its library isn't there


def variants() -> list[tuple[str, bytes]]:
    """Good pictures of the allowed formats, in all the ways that they can be written."""
    photo, clear, grey = noise(40, 30), noise(40, 30, "RGBA"), noise(40, 30, "L")
    wide = Image.fromarray((np.arange(40 * 30).reshape(30, 40) * 50).astype(np.uint16))
    turned = exif([(0x0112, 3, 1, 6)])
    jpeg = [
        {}, {"progressive": True}, {"optimize": True}, {"quality": 1}, {"quality": 100, "subsampling": 0},
        {"subsampling": 2}, {"restart_marker_rows": 1}, {"exif": turned}, {"xmp": b"<x/>" * 50, "comment": b"c" * 99},
        {"icc_profile": bytes(70_000)}, {"keep_rgb": True},
    ]  # fmt: skip
    made = [(f"jpeg {i}", encoded(photo, "JPEG", **options)) for i, options in enumerate(jpeg)]
    made += [(f"jpeg {m}", encoded(noise(40, 30, m), "JPEG", progressive=True)) for m in ("L", "CMYK")]
    made += [("mpo", encoded(photo, "MPO", save_all=True, append_images=[grey.convert("RGB")]))]
    text = PngInfo()
    text.add_text("key", "value " * 100, zip=True)
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    pictures = {
        "rgb": photo,
        "rgba": clear,
        "grey": grey,
        "la": noise(40, 30, "LA"),
        "16": wide,
        "1": grey.convert("1"),
    }
    made += [(f"png {name}", encoded(image, "PNG")) for name, image in pictures.items()]
    made += [
        ("png text", encoded(photo, "PNG", pnginfo=text, exif=turned)),
        ("png palette", encoded(photo.quantize(16), "PNG", transparency=3)),
        ("png keyed", encoded(photo, "PNG", transparency=(1, 2, 3))),
        ("png interlaced", interlaced(16, 16)),
        ("webp lossy", encoded(photo, "WEBP")),
        ("webp lossless", encoded(clear, "WEBP", lossless=True, exif=turned, xmp=b"<x/>")),
        ("webp alpha", encoded(clear, "WEBP", alpha_quality=10, icc_profile=bytes(500))),
    ]
    return made


def interlaced(width: int, height: int) -> bytes:
    """A PNG in Adam7, which Pillow reads and doesn't write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for x, y, dx, dy in passes:
        columns = len(range(x, width, dx))
        rows += (b"\0" + b"\x40\x80\xc0" * columns) * len(range(y, height, dy)) if columns else b""
    return png(ihdr(width, height, interlace=1), chunk(b"IDAT", zlib.compress(rows)))


def cut_short() -> Named:
    for name, data in variants():
        for i in range(40):
            yield f"{name} cut {i}", data[: 1 + len(data) * i // 40]


def damaged() -> Named:
    """Bits flipped and bytes replaced, most of them where the headers are."""
    rng = random.Random(1)
    for name, data in variants():
        for i in range(96):
            hurt = bytearray(data)
            reach = len(data) if i % 2 else min(len(data), 200)
            for _ in range(rng.choice((1, 1, 2, 8, 30))):
                at = rng.randrange(reach)
                hurt[at] = rng.choice((hurt[at] ^ (1 << rng.randrange(8)), 0, 255, rng.randrange(256)))
            yield f"{name} damaged {i}", bytes(hurt)
        for i in range(12):
            start = rng.randrange(len(data))
            piece = data[start : start + rng.randrange(1, 400)]
            at = rng.randrange(len(data))
            yield f"{name} spliced {i}", data[:at] + piece * rng.choice((1, 2, 50)) + data[at:]


def headers() -> Named:
    """Well-formed headers that say nonsense."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    for depth in (0, 1, 2, 4, 8, 16, 32, 255):
        for colour in range(8):
            for interlace in (0, 1, 2):
                yield f"ihdr {depth} {colour} {interlace}", png(ihdr(32, 32, depth, colour, interlace), pixels)
    for width in (0, 1, 7, 8, 100, 2**16, 2**31 - 1, 2**31, 2**32 - 1):
        for height in (0, 1, 8, 4000, 2**16, 2**32 - 1):
            yield f"png {width} x {height}", png(ihdr(width, height), pixels)
            sides = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
            yield f"jpeg {width} x {height}", patched_jpeg(sides)
            yield f"webp {width} x {height}", riff(canvas(max(1, width & 0xFFFFFF), max(1, height & 0xFFFFFF)))
    good = encoded(noise(40, 30, "RGBA"), "WEBP", lossless=True)[12:]
    for flags in range(0, 256, 5):
        yield f"vp8x {flags}", riff(canvas(40, 30, flags), (good[:4], good[8:]))
    for kinds in range(32):
        parts = [chunk(b"PLTE", bytes(9)), chunk(b"tRNS", bytes(300)), chunk(b"acTL", bytes(8)), pixels, b"\0" * 11]
        yield f"png parts {kinds}", png(ihdr(32, 32, 8, 3), *(p for i, p in enumerate(parts) if kinds >> i & 1))


def patched_jpeg(sides: bytes) -> bytes:
    data = encoded(noise(40, 30), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + sides + data[at + 4 :]


def polyglots() -> Named:
    """Pictures that are something else as well, and something else that calls itself a picture."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../evil.sh", "#!/bin/sh\n")
    tails = {
        "zip": archive.getvalue(), "html": b"<html><script>alert(1)</script></html>", "php": b"<?php system($_GET[0]);",
        "pdf": b"%PDF-1.7\n1 0 obj", "jar": archive.getvalue() * 3, "zeros": bytes(50_000),
        "elf": b"\x7fELF" + bytes(200),
    }  # fmt: skip
    for name, data in variants():
        for tail, more in tails.items():
            yield f"{name} + {tail}", data + more
            yield f"{tail} + {name}", more + data
    for magic in (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"%!PS",
    ):
        for tail, more in tails.items():
            yield f"{magic[:4]!r} + {tail}", magic + more


def bombs() -> Named:
    """Small files that ask for much memory or time."""
    flat = zlib.compress(bytes(30_000_000), 9)
    yield "png zeros, huge", png(ihdr(30_000, 30_000), chunk(b"IDAT", flat))
    yield "png more rows than declared", png(ihdr(16, 16), chunk(b"IDAT", flat))
    yield "png just allowed", encoded(Image.new("L", (7_000, 7_100)), "PNG")
    yield "png transparent, just allowed", encoded(Image.new("P", (7_000, 7_100)), "PNG", transparency=0)
    yield "webp just allowed", encoded(Image.new("RGB", (7_000, 7_100)), "WEBP", lossless=True, quality=0, method=0)
    yield "jpeg just allowed", encoded(Image.new("CMYK", (7_000, 7_100)), "JPEG", progressive=True)
    yield "jpeg 65535 x 65535", patched_jpeg(b"\xff\xff\xff\xff")
    yield "jpeg 50 MP of 40 x 30", patched_jpeg(struct.pack(">HH", 7_000, 7_100))
    yield "webp canvas", riff(canvas(2**24, 2**24, 2), (b"ANIM", bytes(6)))
    frames = [Image.new("RGB", (16, 16), (i % 256, i // 256, 0)) for i in range(2_000)]
    for form in ("PNG", "WEBP", "GIF"):
        yield f"animated {form}", encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=10)
    yield "apng that says so", png(ihdr(16, 16), chunk(b"acTL", struct.pack(">II", 2**31, 0)), chunk(b"IDAT", flat))
    for kind in (b"iTXt", b"zTXt", b"tEXt", b"iCCP"):
        body = {b"iTXt": b"k\0\1\0\0\0", b"tEXt": b"k\0"}.get(kind, b"k\0\0") + flat
        yield f"{kind!r} bomb", png(ihdr(16, 16), *[chunk(kind, body)] * 40, chunk(b"IDAT", zlib.compress(bytes(800))))
    plain = encoded(noise(40, 30), "JPEG")
    scans = encoded(noise(400, 300), "JPEG", progressive=True)
    for count in (60, 100, 20_000):
        yield f"{count} scans", scans[:-2] + scans[scans.rfind(b"\xff\xda") : -2] * count + b"\xff\xd9"
    for marker in (b"\xff\xe1\0\2", b"\xff\xfe\0\2", b"\xff\xd0", b"\xff\xff", b"\xff\0", b"\0", b"\xff\xe2\0\2"):
        yield f"{marker!r} bomb", plain[:2] + marker * 300_000 + plain[2:]
    yield "png chunks", png(ihdr(40, 30), *[chunk(b"teSt", b"")] * 300_000)
    yield "webp chunks", riff(canvas(40, 30), *[(b"JUNK", b"")] * 300_000)
    yield from metadata(plain)


def metadata(plain: bytes) -> Named:
    """EXIF, XMP and colour profiles that bite whoever parses them."""
    overlapping = exif([(40_000 + i, 7, 50_000, 8) for i in range(4_900)])
    looping = exif([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8), (0x0112, 3, 1, 6)])
    blocks = {
        "overlapping": overlapping, "looping": looping, "huge count": exif([(0x0112, 3, 2**32 - 1, 8)]),
        "huge offset": exif([(0x0112, 7, 64, 2**32 - 8)]), "odd types": exif([(i, i, i, i) for i in range(300)]),
        "no end": exif([(0x0112, 3, 1, 6)])[:-9], "not tiff": b"Exif\0\0" + bytes(99), "empty": b"Exif\0\0",
    }  # fmt: skip
    for name, block in blocks.items():
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        for times in (1, 30):
            yield f"exif {name} x {times}", plain[:2] + segment * times + plain[2:]
        yield f"png exif {name}", encoded(noise(40, 30), "PNG", exif=block)
        yield f"webp exif {name}", encoded(noise(40, 30), "WEBP", exif=block)
    profile = b"ICC_PROFILE\0\1\1" + bytes(60_000)
    yield "icc bomb", plain[:2] + (b"\xff\xe2" + struct.pack(">H", len(profile) + 2) + profile) * 100 + plain[2:]
    mpf = b"MPF\0II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0xB001, 4, 1, 2**31)
    yield "mpf", plain[:2] + b"\xff\xe2" + struct.pack(">H", len(mpf) + 2) + mpf + plain[2:]
    yield "webp xmp", encoded(noise(40, 30), "WEBP", xmp=b'tiff:Orientation="' * 100_000)


def shapes() -> Named:
    for form in ALLOWED:
        for width, height in ((1, 1), (1, 500), (500, 1), (8, 1601), (8, 1600), (7, 7), (8, 8), (3000, 9), (9, 3000)):
            yield f"{form} {width} x {height}", encoded(Image.new("RGB", (width, height)), form)
    yield "nothing", b""
    yield from ((f"{count} zeros", bytes(count)) for count in (1, 11, 12, 1000))


def small() -> Named:
    """Bombs that are made in no time."""
    yield from metadata(encoded(noise(40, 30), "JPEG"))
    yield "jpeg 65535 x 65535", patched_jpeg(b"\xff\xff\xff\xff")
    yield "webp canvas", riff(canvas(2**24, 2**24, 2), (b"ANIM", bytes(6)))


QUICK: tuple[Callable[[], Named], ...] = (shapes, headers, polyglots, cut_short, damaged)
WHOLE = (bombs, written, *QUICK)


def pictures(whole: bool) -> Named:
    """All of them, or a few hundred of the kinds that are made quickly."""
    if not whole:
        yield from small()
    for generator in WHOLE if whole else QUICK:
        for i, named in enumerate(generator()):
            if whole or i % 18 == 0:
                yield named
