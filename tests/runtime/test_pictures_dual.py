"""CLIP and SigLIP preprocessing against the Pillow processors of transformers: every pixel equal."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import most_positions, prepare_picture

transformers = pytest.importorskip("transformers")

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(64, 64), (31, 97), (200, 37), (224, 224), (225, 223), (640, 480), (333, 1000), (17, 500), (8, 8), (1201, 9)]
MODES = ["RGB", "L", "LA", "RGBA", "P", "CMYK", "1", "I;16"]


def picture(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng((seed, *size))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 4), dtype=np.uint8), "RGBA")
    if mode == "P":
        return image.convert("RGB").quantize(32)
    return image.convert(mode)


def clip(edge: int, crop: int, resample: int = 3) -> tuple[Any, ImageSpec]:
    size = {"height": crop, "width": crop}
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size=size, resample=resample)
    return processor, ImageSpec("clip", crop, resample, 1 / 255, CLIP_MEAN, CLIP_STD, 1, shortest_edge=edge)


def siglip(side: int) -> tuple[Any, ImageSpec]:
    processor = transformers.SiglipImageProcessorPil(size={"height": side, "width": side})
    return processor, ImageSpec("siglip", side, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3, 1)


def check(processor: Any, spec: ImageSpec, image: Image.Image) -> None:
    wanted = processor(image, return_tensors="np")["pixel_values"]
    got = prepare_picture(image, spec)
    assert got.layout == (1,)
    assert got.inputs["pixel_values"].dtype == np.float32
    np.testing.assert_array_equal(got.inputs["pixel_values"], wanted)


@pytest.mark.parametrize("size", SIZES)
def test_clip_sizes_are_bit_equal(size: tuple[int, int]) -> None:
    check(*clip(224, 224), picture(size))


@pytest.mark.parametrize(("edge", "crop"), [(32, 29), (29, 32), (33, 33), (64, 32)])
@pytest.mark.parametrize("size", [(40, 71), (71, 40), (50, 50)])
def test_clip_crops_are_bit_equal_where_the_crop_is_odd_smaller_or_larger(
    edge: int, crop: int, size: tuple[int, int]
) -> None:
    check(*clip(edge, crop), picture(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [224, 33])
def test_siglip_sizes_are_bit_equal(size: tuple[int, int], side: int) -> None:
    check(*siglip(side), picture(size))


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_bit_equal(mode: str) -> None:
    image = picture((61, 47), mode)
    check(*clip(32, 32), image)
    check(*siglip(32), image)


@pytest.mark.parametrize("resample", [1, 2])
def test_other_filters_are_bit_equal(resample: int) -> None:
    check(*clip(48, 40, resample), picture((90, 61)))


def test_a_dual_encoder_takes_no_prompt_positions_but_its_own_row() -> None:
    assert most_positions(clip(32, 32)[1]) == most_positions(siglip(32)[1]) == 1
