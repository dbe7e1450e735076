"""InternVL's preprocessing against the Hugging Face processors (Pillow backend), over sizes, shapes and modes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import most_positions, positions_of, prepare_picture

transformers = pytest.importorskip("transformers")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [
    (1, 1), (3, 3), (32, 32), (33, 31), (64, 64), (65, 64), (64, 32), (63, 32), (96, 32), (97, 33), (128, 64),
    (37, 119), (200, 9), (9, 200), (400, 2), (160, 120), (120, 160), (45, 46), (46, 45), (300, 200), (512, 512),
]  # fmt: skip
MODES = ["L", "LA", "RGBA", "P", "CMYK", "1", "RGB"]


def spec(max_tiles: int, min_tiles: int = 1, size: int = 32) -> ImageSpec:
    return ImageSpec(
        "internvl", size, 3, 1 / 255, MEAN, STD, 4, min_tiles=min_tiles, max_tiles=max_tiles, thumbnail=True,
        marks={"before": (3,), "after": (4,)},
    )  # fmt: skip


def oracle(max_tiles: int, min_tiles: int = 1, size: int = 32) -> Any:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    return GotOcr2ImageProcessorPil(
        size={"height": size, "width": size}, image_mean=list(MEAN), image_std=list(STD), resample=3,
        crop_to_patches=max_tiles > 1, min_patches=min_tiles, max_patches=max_tiles,
    )  # fmt: skip


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with noise, and half-transparent parts where the mode has them."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 4))
    ramp = np.linspace(0, 195, width)[None, :, None] + np.zeros((height, 1, 4))
    return Image.fromarray((noise + ramp).astype(np.uint8), "RGBA").convert(mode)


def check(image: Image.Image, max_tiles: int, min_tiles: int = 1, size: int = 32) -> int:
    got = prepare_picture(image, spec(max_tiles, min_tiles, size))
    made = oracle(max_tiles, min_tiles, size)(image)
    want, count = np.stack(made["pixel_values"]), made["num_patches"][0]
    assert got.inputs["pixel_values"].shape == want.shape
    assert got.inputs["pixel_values"].dtype == want.dtype == np.float32
    np.testing.assert_array_equal(got.inputs["pixel_values"], want)
    assert [p if isinstance(p, int) else p.tolist() for p in got.layout] == [[3], 4 * count, [4]]
    assert positions_of(got.layout) <= most_positions(spec(max_tiles, min_tiles, size))
    return int(count)


@pytest.mark.parametrize("max_tiles", [1, 2, 6, 12])
def test_sizes_are_bit_equal(max_tiles: int) -> None:
    counts = {check(picture(w, h, seed=w + h), max_tiles) for w, h in SIZES}
    assert max(counts) == {1: 1, 2: 3, 6: 7, 12: 13}[max_tiles]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_tiles", [1, 5])
def test_modes_are_bit_equal(mode: str, max_tiles: int) -> None:
    check(picture(70, 45, mode), max_tiles)


def test_transparent_palette_is_bit_equal() -> None:
    image = picture(70, 45, "P")
    image.info["transparency"] = 7
    check(image, 4)


@pytest.mark.parametrize(("low", "high"), [(2, 4), (4, 4), (5, 5), (3, 12), (12, 12)])
def test_least_tiles(low: int, high: int) -> None:
    for size in SIZES[2:14]:
        assert check(picture(*size), high, low) > low


def test_true_size() -> None:
    """448-pixel tiles, and a photo of a phone's shape."""
    assert check(picture(1200, 900), 12, size=448) == 13
    assert check(picture(1200, 900), 1, size=448) == 1


def test_whole_prompt_has_the_processors_ids(tmp_path: Path) -> None:
    """Two pictures in one chat, tiles on and off: the marks and counts are those of InternVLProcessor."""
    from tiny_internvl import IMAGE_TOKEN, make_model, make_processor, save_checkpoint
    from tokenizers import Tokenizer

    folder = save_checkpoint(make_model(), tmp_path / "tiny")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = "Do these show the same place? Answer Yes or No."
    content: list[dict[str, str]] = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": words}]
    images = [picture(64, 32), picture(31, 97)]
    for tiles in (1, 6):
        processor = make_processor(folder, tiles)
        chat = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        want = processor(images=images, text=text)["input_ids"][0]
        got: list[int] = []
        pieces: list[str | int] = ["<|im_start|>user\n", 0, "\n", 1]
        for piece in [*pieces, f"\n{words}<|im_end|>\n<|im_start|>assistant\n"]:
            if isinstance(piece, str):
                got += tokenizer.encode(piece, add_special_tokens=False).ids
                continue
            for part in prepare_picture(images[piece], spec(tiles)).layout:
                got += [IMAGE_TOKEN] * part if isinstance(part, int) else part.tolist()
        assert got == list(want)
