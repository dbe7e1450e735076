"""Gemma 3's preprocessing against the Hugging Face processor (Pillow backend), over sizes, shapes and modes."""

import numpy as np
import pytest
from PIL import Image
from tiny_gemma import SIZE

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import most_positions, positions_of, prepare_picture

pytest.importorskip("transformers")

SIZES = [
    (1, 1), (3, 3), (32, 32), (33, 31), (64, 64), (65, 64), (64, 32), (63, 32), (96, 32), (97, 33), (128, 64),
    (37, 119), (200, 9), (9, 200), (400, 2), (160, 120), (120, 160), (120, 100), (119, 100), (200, 40), (45, 46),
    (301, 17), (36, 30), (30, 36), (31, 89), (250, 100), (100, 250), (349, 100), (351, 100),
]  # fmt: skip
MODES = ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16", "RGB"]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with noise, and half-transparent parts where the mode has them."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 4))
    ramp = np.linspace(0, 195, width)[None, :, None] + np.zeros((height, 1, 4))
    image = Image.fromarray((noise + ramp).astype(np.uint8), "RGBA")
    return image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)


def spec(max_tiles: int = 1, min_crop: int = 10, min_ratio: float = 1.2, size: int = SIZE) -> ImageSpec:
    return ImageSpec(
        "gemma3", size, 2, 1 / 255, (0.5,) * 3, (0.5,) * 3, 16, max_tiles=max_tiles, min_crop=min_crop,
        min_ratio=min_ratio,
        marks={"before": (3,), "after": (4,), "whole": (9, 3), "crops": (4, 8, 3), "crop": (4, 7, 3),
               "lines": (20, 21, 22, 23)},
    )  # fmt: skip


def check(image: Image.Image, asked: ImageSpec) -> int:
    """Compare with the Hugging Face processor; returns the number of crops."""
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    oracle = Gemma3ImageProcessorPil(size={"height": asked.size, "width": asked.size})
    made = oracle(
        image, do_pan_and_scan=asked.max_tiles > 1, pan_and_scan_min_crop_size=asked.min_crop,
        pan_and_scan_max_num_crops=asked.max_tiles, pan_and_scan_min_ratio_to_activate=asked.min_ratio,
        return_tensors="np",
    )  # fmt: skip
    got = prepare_picture(image, asked)
    pixels = got.inputs["pixel_values"]
    assert pixels.dtype == np.float32
    assert pixels.shape == made["pixel_values"].shape == (1 + made["num_crops"][0], 3, asked.size, asked.size)
    np.testing.assert_array_equal(pixels, made["pixel_values"])
    assert sum(part for part in got.layout if isinstance(part, int)) == 16 * len(pixels)
    assert positions_of(got.layout) <= most_positions(asked)
    return int(made["num_crops"][0])


@pytest.mark.parametrize("max_tiles", [1, 2, 3, 4, 7])
def test_sizes_are_bit_equal(max_tiles: int) -> None:
    counts = {check(picture(w, h, seed=w + h), spec(max_tiles)) for w, h in SIZES}
    assert counts >= {0, *range(2, min(max_tiles, 5) + 1)}
    assert max(counts) == (max_tiles if max_tiles > 1 else 0)


@pytest.mark.parametrize(("min_crop", "min_ratio"), [(1, 1.0), (17, 1.0), (30, 1.5), (100, 1.2), (10, 3.5)])
def test_crop_settings_are_the_processors(min_crop: int, min_ratio: float) -> None:
    for width, height in SIZES:
        if max(width, height) > 3:  # a picture of one pixel has no halves
            check(picture(width, height), spec(4, min_crop, min_ratio))


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_bit_equal(mode: str) -> None:
    check(picture(90, 41, mode), spec())
    check(picture(90, 41, mode), spec(4))


def test_true_size_is_bit_equal() -> None:
    assert check(picture(1500, 700), spec(4, 256, size=896)) == 2
