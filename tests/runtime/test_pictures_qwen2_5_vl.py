"""Qwen2.5-VL pictures against transformers' Pillow processor: bit-equal pixels, grids, windows, token bounds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime.pictures import positions_of, prepare_picture
from edgegeo.runtime.pictures.qwen2_5_vl import fitted, grid_inputs, most_positions

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
SPEC = ImageSpec(
    "qwen2_5_vl", 28, 3, 1 / 255, **CLIP, tokens=0, min_pixels=56 * 56, max_pixels=28 * 28 * 96,
    patch=14, merge=2, window=112, marks={"before": (7, 8), "after": (9,)},
)  # fmt: skip
RNG = np.random.default_rng(3)
SIZES = [
    (28, 28), (56, 56), (112, 112), (224, 224), (225, 223), (448, 448), (1, 1), (8, 8), (13, 11), (14, 14), (42, 42),
    (8, 1600), (1600, 8), (15, 3000), (27, 29), (641, 77), (97, 811), (1280, 960), (999, 1001), (300, 20), (70, 70),
    (8, 1599), (3000, 15), (2000, 1999),
]  # fmt: skip


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def processed(image: Image.Image, spec: ImageSpec = SPEC) -> tuple[np.ndarray, tuple[int, int]]:
    """The processor's patches without the repeated frame, and its grid in patches."""
    made = Qwen2VLImageProcessorPil(min_pixels=spec.min_pixels, max_pixels=spec.max_pixels)(
        image, return_tensors="np"
    )  # fmt: skip
    frames = made["pixel_values"].reshape(-1, 3, 2, 14, 14)
    assert np.array_equal(frames[:, :, 0], frames[:, :, 1])
    _, rows, columns = made["image_grid_thw"][0]
    return frames[:, :, 0].reshape(len(frames), -1), (int(rows), int(columns))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_are_the_processors(width: int, height: int) -> None:
    image = picture(width, height)
    expected, (rows, columns) = processed(image)
    made = prepare_picture(image, SPEC)
    pixels = made.inputs["pixel_values"]
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, expected)
    assert made.grid == (rows // 2, columns // 2)
    assert [part if isinstance(part, int) else part.tolist() for part in made.layout] == [
        [7, 8], rows * columns // 4, [9],
    ]  # fmt: skip
    assert positions_of(made.layout) <= most_positions(SPEC)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_modes_are_the_processors(mode: str) -> None:
    image = picture(75, 91)
    if mode == "I;16":
        image = Image.fromarray(RNG.integers(0, 300, (91, 75), dtype=np.uint16))
    elif mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(RNG.integers(0, 256, (91, 75), dtype=np.uint8)))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    expected, _ = processed(image)
    assert np.array_equal(prepare_picture(image, SPEC).inputs["pixel_values"], expected)


def test_resizing_equals_the_processors_over_many_shapes() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    for least, most in ((3136, 12_845_056), (3136, 75_264), (100_352, 100_352), (3136, 3136)):
        spec = replace(SPEC, min_pixels=least, max_pixels=most)
        shapes = [*RNG.integers(1, 4000, (400, 2)).tolist(), (1, 200), (200, 1), (7, 1400), (41, 8200), (57, 57)]
        for width, height in shapes:
            if max(width, height) <= 200 * min(width, height):
                wide, high = fitted(width, height, spec)
                assert (high, wide) == smart_resize(height, width, 28, least, most)
                assert wide * high // 784 + 3 <= most_positions(spec)


def test_longer_than_200_to_1_is_refused() -> None:
    with pytest.raises(ImageError, match=r"2010 x 10 pixels, longer than 200:1"):
        prepare_picture(Image.new("RGB", (2010, 10)), SPEC)
    with pytest.raises(ValueError, match="aspect ratio"):
        processed(Image.new("RGB", (2010, 10)))


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (3, 5), (8, 4), (9, 1), (1, 13), (5, 8), (16, 16), (7, 11)])
@pytest.mark.parametrize(("merge", "window"), [(2, 112), (2, 56), (1, 112), (4, 112)])
def test_windows_are_those_of_the_model(grid: tuple[int, int], merge: int, window: int) -> None:
    spec = replace(SPEC, size=14 * merge, merge=merge, window=window)
    made: dict[str, Any] = grid_inputs(*grid, spec)
    thw = torch.tensor([[1, grid[0] * merge, grid[1] * merge]])
    assert np.array_equal(made["patch_places"], get_vision_position_ids(thw, merge).numpy())
    order, ends = get_vision_window_index(thw, merge, window, 14)
    patches = (order[:, None] * merge**2 + torch.arange(merge**2)).reshape(-1)
    expected = [set(part.tolist()) for part in patches.tensor_split(ends[1:-1].long())]
    slots = made["window_slots"]
    assert [set(row[row >= 0].tolist()) for row in slots] == expected
    assert np.array_equal(slots.reshape(-1)[made["patch_slots"]], np.arange(len(patches)))
