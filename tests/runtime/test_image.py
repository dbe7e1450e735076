import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime.image import ImageLimits, open_image, to_rgb
from edgegeo.runtime.image_header import read_header
from edgegeo.runtime.pictures import prepare_picture

HALF = (0.5, 0.5, 0.5)


def spec(size: int, edge: int, resample: int, rescale: float, mean: tuple, std: tuple) -> ImageSpec:
    return ImageSpec("smolvlm", size, resample, rescale, mean, std, tokens=16, longest_edge=edge)


SPECS = [
    spec(128, 128, 1, 1 / 255, HALF, HALF),
    spec(96, 256, 1, 0.00392156862745098, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    spec(64, 4400, 2, 1 / 255, HALF, HALF),
]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise over a gradient, so that resampling has both edges and slopes to get wrong."""
    rng = np.random.default_rng(seed)
    bands = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2}[mode]
    slope = np.linspace(0, 200, width)[None, :, None]
    array = np.clip(slope + rng.integers(0, 120, (height, width, bands)), 0, 255).astype(np.uint8)
    return Image.fromarray(array[:, :, 0] if bands == 1 else array, mode if bands != 1 else None)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def palette_with_transparency() -> Image.Image:
    image = picture(50, 40).quantize(16)
    image.info["transparency"] = 3
    return image


def sixteen_bit() -> Image.Image:
    return Image.fromarray((np.arange(64 * 48).reshape(48, 64) * 20).astype(np.uint16))


KINDS = {
    "square": picture(128, 128),
    "wide": picture(301, 77),
    "tall": picture(77, 301),
    "odd": picture(33, 129),
    "one row": picture(97, 1),
    "one column": picture(1, 97),
    "one pixel": picture(1, 1),
    "rgba": picture(64, 80, "RGBA"),
    "grey": picture(70, 50, "L"),
    "grey with alpha": picture(70, 50, "LA"),
    "palette": picture(50, 40).quantize(16),
    "transparent palette": palette_with_transparency(),
    "bilevel": picture(60, 60, "L").convert("1"),
    "cmyk": picture(60, 60).convert("CMYK"),
    "16 bit": sixteen_bit(),
}


@pytest.mark.parametrize("spec", SPECS, ids=["same size", "two steps", "above the cap"])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_hugging_face_processor(kind: str, spec: ImageSpec) -> None:
    pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.smolvlm.image_processing_pil_smolvlm")
    processor = module.SmolVLMImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": spec.longest_edge},
        max_image_size={"longest_edge": spec.size},
        resample=spec.resample,
        rescale_factor=spec.rescale,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )
    image = KINDS[kind]
    expected = processor(image.copy(), return_tensors="np")["pixel_values"][0, 0]
    ours = prepare_picture(image, spec).inputs["pixel_values"][0]
    assert ours.dtype == np.float32
    assert ours.shape == (3, spec.size, spec.size)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_those_of_load_image(tmp_path: Path, orientation: int) -> None:
    pytest.importorskip("torch")
    load_image = pytest.importorskip("transformers.image_utils").load_image
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "photo.jpg"
    picture(60, 40).save(file, exif=exif)
    expected = load_image(str(file))
    np.testing.assert_array_equal(np.asarray(open_image(file)), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(open_image(Image.open(file))), np.asarray(expected))


def exif_of(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """EXIF with nothing but an orientation, as SHORT (3) or as LONG (4)."""
    value = struct.pack(order + ("I" if kind == 4 else "HH"), *([orientation] if kind == 4 else [orientation, 0]))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1)
    return b"Exif\0\0" + head + value + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_read_as_pillow_reads_it(form: str, kind: int, order: str) -> None:
    lossless = {"lossless": True} if form == "WEBP" else {}
    for orientation in (0, 1, 3, 6, 9, 500):
        data = encoded(picture(40, 30), form, exif=exif_of(orientation, order, kind), **lossless)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        opened = open_image(data)
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(expected))
        np.testing.assert_array_equal(np.asarray(open_image(opened)), np.asarray(expected))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_orientation_in_xmp_counts_where_exif_is_silent(form: str) -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    for more, size in (({}, (30, 40)), ({"exif": exif_of(1)}, (40, 30))):
        data = encoded(picture(40, 30), form, xmp=xmp, **more)
        assert open_image(data).size == size == ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size


def overlapping_exif(size: int) -> bytes:
    """EXIF whose entries all claim the whole block: read naively, it takes `size` squared over twelve bytes."""
    count = min(size // 12 - 10, 65_000)
    entries = b"".join(struct.pack("<HHII", 40_000 + i % 20_000, 7, size - 100, 8) for i in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(size - len(entries) - 10)


def test_metadata_reaches_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("metadata was parsed")

    bomb = overlapping_exif(60_000)
    pictures = [encoded(picture(40, 30), form, exif=b"Exif\0\0" + bomb) for form in ("JPEG", "PNG", "WEBP")]
    text = PngInfo()
    for i in range(40):
        text.add_text(f"key{i}", "x" * 200_000, zip=True)
    pictures.append(encoded(picture(40, 30), "PNG", pnginfo=text, icc_profile=bytes(3_000_000)))
    pictures.append(encoded(picture(40, 30), "JPEG", icc_profile=bytes(3_000_000), comment=bytes(60_000)))
    monkeypatch.setattr(Image.Exif, "load", refuse)
    for data in pictures:
        opened = open_image(data)
        assert opened.size == (40, 30)
        assert not {"icc_profile", "comment", "key1"} & set(opened.info)


@pytest.mark.parametrize(
    ("more", "size"), [({}, (900, 700)), ({"progressive": True}, (40, 30)), ({"restart_marker_rows": 1}, (400, 300))]
)
def test_what_is_left_out_of_a_file_changes_no_pixel(more: dict[str, object], size: tuple[int, int]) -> None:
    for image in (picture(*size), picture(*size, "L"), picture(*size).convert("CMYK")):
        data = encoded(image, "JPEG", **more, exif=exif_of(1), xmp=b"x", comment=b"hello", dpi=(72, 72))
        expected = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(np.asarray(open_image(data)), np.asarray(expected))
        header = read_header(data)
        assert header is not None
        assert (header.width, header.height) == size
        assert b"hello" not in header.pixels


def test_junk_between_segments_is_skipped_as_pillow_does() -> None:
    data = encoded(picture(40, 30), "JPEG")
    odd = data[:20] + b"\xff\xff\xff" + data[20:]
    np.testing.assert_array_equal(np.asarray(open_image(odd)), np.asarray(Image.open(io.BytesIO(odd))))


def test_large_transparent_pictures_are_laid_on_white_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    for image in (picture(301, 77, "RGBA"), picture(300, 70, "LA"), palette_with_transparency()):
        whole = np.asarray(to_rgb(image))
        monkeypatch.setattr("edgegeo.runtime.image._STRIP_PIXELS", 1000)
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), whole)
        monkeypatch.undo()


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (16, 16), (10, 20, 30, 0))
    assert to_rgb(clear).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_opens_the_allowed_formats_from_bytes_path_and_str(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "picture"
    file.write_bytes(encoded(picture(40, 30), kind))
    for source in (file, str(file), file.read_bytes()):
        assert open_image(source).size == (40, 30)
        assert open_image(source).mode == "RGB"


def test_an_opened_picture_is_not_changed() -> None:
    image = picture(40, 30, "RGBA")
    open_image(image)
    assert image.mode == "RGBA"


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    frames = [picture(20, 20, seed=i) for i in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP that declares a canvas and holds nothing."""
    body = struct.pack("<4sI4x", b"VP8X", 10)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again, each a pass over the whole picture."""
    data = encoded(picture(90, 90), "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * count + b"\xff\xd9"


def many_segments(count: int) -> bytes:
    data = encoded(picture(90, 90), "JPEG")
    return data[:2] + b"\xff\xfe\0\2" * count + data[2:]


def many_chunks(count: int) -> bytes:
    data = encoded(picture(90, 90), "PNG")
    return data[:33] + (struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))) * count + data[33:]


BAD = {
    "text": (b"this is no picture", "not a JPEG, PNG or WebP"),
    "nothing": (b"", "is empty"),
    "another format": (encoded(picture(20, 20), "BMP"), "not a JPEG, PNG or WebP"),
    "gif": (encoded(picture(20, 20), "GIF"), "not a JPEG, PNG or WebP"),
    "one pixel": (encoded(picture(1, 1), "PNG"), "1 x 1 pixels"),
    "1 x 4000": (encoded(picture(1, 4000), "PNG"), "1 x 4000 pixels"),
    "a strip": (encoded(picture(8, 4000), "PNG"), "longer than 200:1"),
    "bomb": (png_header(20_000, 20_000), "more than the allowed 50,000,000"),
    "big": (png_header(10_000, 9_000), "more than the allowed 50,000,000"),
    "just too big": (png_header(8_000, 8_000), "more than the allowed 50,000,000"),
    "cut JPEG": (encoded(picture(90, 90), "JPEG")[:2000], "damaged or cut off"),
    "cut PNG": (encoded(picture(90, 90), "PNG")[:2000], "damaged or cut off"),
    "cut WebP": (encoded(picture(90, 90), "WEBP")[:1000], "could not create decoder"),
    "a header cut off": (encoded(picture(90, 90), "PNG")[:20], "header ends early"),
    "no scan": (encoded(picture(90, 90), "JPEG")[:300], "header ends early"),
    "huge WebP canvas": (webp_canvas(16_383, 16_383), "more than the allowed 50,000,000"),
    "many scans": (many_scans(200), "more than 64 scans"),
    "many segments": (many_segments(6_000), "more than 5,000 segments"),
    "many chunks": (many_chunks(6_000), "more than 5,000 chunks"),
    "animated PNG": (animated("PNG"), "animated"),
    "animated WebP": (animated("WEBP"), "animated"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pictures_are_one_clear_error(case: str) -> None:
    data, words = BAD[case]
    with pytest.raises(ImageError) as caught:
        open_image(data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_bytes_are_capped_before_anything_is_read(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(encoded(picture(40, 30), "PNG"))
    limits = ImageLimits(max_bytes=100)
    for source in (file, file.read_bytes()):
        with pytest.raises(ImageError, match="more than the allowed 100"):
            open_image(source, limits)


@pytest.mark.parametrize("source", [Path("nowhere.jpg"), "nowhere.jpg", "a\0b", Path(".")])
def test_a_path_without_a_file_is_named(source: Path | str) -> None:
    with pytest.raises(ImageError, match=r"no picture at|can't be opened"):
        open_image(source)


def test_something_else_is_refused() -> None:
    with pytest.raises(ImageError, match="not int"):
        open_image(5)  # type: ignore[arg-type]


def test_a_phone_photo_with_a_preview_is_a_still_picture() -> None:
    frames = [picture(40, 30), picture(20, 15)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert open_image(data).size == (40, 30)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_an_image_error_or_a_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(picture(40, 30), ["JPEG", "PNG", "WEBP"][seed % 3]))
    for at in rng.integers(0, len(data), 8):
        data[at] = rng.integers(0, 256)
    with contextlib.suppress(ImageError):
        assert open_image(bytes(data)).mode == "RGB"


def test_unknown_preprocessing_is_refused() -> None:
    spec = ImageSpec("llava", 8, 8, 1, 1.0, HALF, HALF, 1)
    with pytest.raises(ImageError, match="llava"):
        prepare_picture(picture(10, 10), spec)
