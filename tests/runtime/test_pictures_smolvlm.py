"""SmolVLM's tiles against the Hugging Face processor (Pillow backend), over sizes, shapes and modes."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import most_positions, positions_of, prepare_picture

pytest.importorskip("torch")
pytest.importorskip("transformers")

HALF = (0.5, 0.5, 0.5)
SIZES = [
    (1, 1), (1, 97), (97, 1), (33, 31), (31, 33), (64, 64), (65, 64), (64, 65), (128, 96), (96, 128), (129, 128),
    (640, 480), (480, 641), (299, 300), (300, 299), (700, 350), (350, 701), (1000, 5), (5, 1000), (400, 2), (200, 1),
]  # fmt: skip
MODES = ["L", "LA", "RGBA", "P", "CMYK", "1", "RGB"]
TOKENS = 4


def spec(size: int, side: int, resample: int = 1, mean: tuple = HALF, std: tuple = HALF) -> ImageSpec:
    """Pictures of up to side x side tiles; each mark has ids of its own, and lengths like true ones."""
    lines = range(1, side + 1)
    names = [f"row_{row}_col_{column}" for row in lines for column in lines]
    marks = {name: (100 + i, 200 + i, 300 + i)[: 2 + (i % side == 0)] for i, name in enumerate(names)}
    marks |= {"before": (1, 2), "whole": (9, 1, 2), "after": (1,)}
    return ImageSpec(
        "smolvlm", size, resample, 1 / 255, mean, std, TOKENS, longest_edge=side * size, max_tiles=side**2, marks=marks
    )


def oracle(spec: ImageSpec, split: bool, family: str = "SmolVLM") -> Any:
    from importlib import import_module

    home = import_module(f"transformers.models.{family.lower()}.image_processing_pil_{family.lower()}")
    return getattr(home, f"{family}ImageProcessorPil")(
        size={"longest_edge": spec.longest_edge}, max_image_size={"longest_edge": spec.size}, do_image_splitting=split,
        resample=spec.resample, rescale_factor=spec.rescale, image_mean=list(spec.mean), image_std=list(spec.std),
        return_row_col_info=True,
    )  # fmt: skip


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with noise, and half-transparent parts where the mode has them."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 4))
    ramp = np.linspace(0, 195, width)[None, :, None] + np.zeros((height, 1, 4))
    return Image.fromarray((noise + ramp).astype(np.uint8), "RGBA").convert(mode)


def check(image: Image.Image, asked: ImageSpec, family: str = "SmolVLM") -> tuple[int, int]:
    """Compare one picture with the processor; returns the grid."""
    got = prepare_picture(image, asked)
    made = oracle(asked, asked.max_tiles > 1, family)(image.copy(), return_tensors="np")
    np.testing.assert_array_equal(got.inputs["pixel_values"], made["pixel_values"][0], strict=True)
    # Nothing of a single picture is padding.
    assert made["pixel_attention_mask"].all()
    rows, columns = made["rows"][0][0], made["cols"][0][0]
    names = [f"row_{row + 1}_col_{column + 1}" for row in range(rows) for column in range(columns)]
    marks = [*names, "whole"] if names else ["before"]
    wanted = [part for name in marks for part in (list(asked.marks[name]), TOKENS)]
    assert [p if isinstance(p, int) else p.tolist() for p in got.layout] == [*wanted, list(asked.marks["after"])]
    assert positions_of(got.layout) <= most_positions(asked)
    return rows, columns


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_sizes_are_bit_equal(side: int) -> None:
    grids = {check(picture(width, height, seed=width), spec(32, side)) for width, height in SIZES}
    if side == 1:
        assert grids == {(0, 0)}
    else:
        assert {(side, side), (1, side), (side, 1)} <= grids
        # Every picture is split, and into no more tiles than asked for.
        assert all(1 <= rows <= side and 1 <= columns <= side for rows, columns in grids)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [1, 2])
def test_modes_are_bit_equal(mode: str, side: int) -> None:
    check(picture(70, 45, mode), spec(32, side))


@pytest.mark.parametrize(("size", "side"), [(364, 4), (364, 1), (512, 2)])
def test_true_sizes_of_idefics3_and_smolvlm(size: int, side: int) -> None:
    settings = spec(size, side, 1, (0.48, 0.45, 0.4), (0.26, 0.26, 0.27))
    check(picture(301, 167), settings, "Idefics3" if size == 364 else "SmolVLM")


@pytest.mark.parametrize("resample", [2, 3])
def test_other_filters(resample: int) -> None:
    check(picture(301, 167), spec(48, 3, resample))


def test_most_positions_are_those_of_a_square_picture() -> None:
    asked = spec(32, 3)
    assert positions_of(prepare_picture(picture(90, 90), asked).layout) == most_positions(asked)
    assert most_positions(spec(32, 1)) == 2 + TOKENS + 1
