"""Ranges of shapes: what a bundle's jobs need, which range a call runs in, what is said where none holds it."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgegeo.bundle import Bundle, ImageSpec, open_bundle
from edgegeo.errors import InputError
from edgegeo.runtime.engines.shapes import (
    LONGEST,
    Limits,
    Span,
    beyond,
    choose,
    longest,
    most_rows,
    profiles,
    sizes,
    trunk_profiles,
)
from edgegeo.runtime.pictures.qwen2_5_vl import grid_inputs


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def test_the_longest_job_sets_the_length(bundle: Bundle) -> None:
    found = longest(bundle, Limits())
    manifest = bundle.manifest
    assert manifest.roles.embed is not None
    assert manifest.roles.embed.max_text_tokens < found <= bundle.decoder.max_positions
    assert longest(bundle, Limits(length=33)) == 33
    with pytest.raises(InputError, match="--length 257 is beyond the 256 positions"):
        longest(bundle, Limits(length=257))
    wordy = replace(manifest.roles, embed=replace(manifest.roles.embed, max_text_tokens=10**5))
    long = replace(manifest, trunk=replace(bundle.decoder, max_positions=10**6), roles=wordy)
    assert longest(replace(bundle, manifest=long), Limits()) == LONGEST


@pytest.mark.parametrize("length", [1, 2, 64, 300])
@pytest.mark.parametrize("batch", [1, 4])
def test_total_is_past_and_new_at_every_end(length: int, batch: int) -> None:
    """TensorRT refuses a range whose ends contradict each other."""
    for profile in trunk_profiles(batch, 32, length):
        for end in ("least", "usual", "most"):
            past, new, total = (getattr(profile[axis], end) for axis in ("past", "sequence", "total"))
            assert total == past + new, (profile, end)


def test_a_call_runs_in_the_first_range_that_holds_it() -> None:
    built = trunk_profiles(4, 32, 64)
    step = {"batch": 32, "sequence": 1, "asked": 1, "past": 63, "total": 64}
    assert choose(built, step) == 0
    assert choose(built, {"batch": 1, "sequence": 5, "asked": 5, "past": 10, "total": 15}) == 1
    rows = {"batch": 4, "sequence": 64, "asked": 64, "past": 0, "total": 64}
    assert choose(built, rows) == 2
    assert choose(built, rows | {"batch": 9}) is None
    assert most_rows(built, rows | {"batch": 9}) == 4
    assert most_rows(built, rows | {"sequence": 65, "total": 65}) == 0
    assert beyond(built, step | {"batch": 33}) == "batch 33 (it takes 1 to 32)"
    assert beyond(built, rows | {"past": 3, "batch": 2}).endswith("together")


def test_components(bundle: Bundle) -> None:
    (vision,) = profiles(bundle, "vision", Limits())
    assert vision["batch"] == Span(1, 1, 2**18 // 32**2)  # as many tiles as the runtime puts in a run
    head = profiles(bundle, "head", Limits(length=40))
    assert choose(head, {"batch": 32, "asked": 1}) == 0
    assert choose(head, {"batch": 1, "asked": 40}) == 1
    assert len(profiles(bundle, "trunk", Limits())) == 3


@pytest.mark.parametrize("grid", [(1, 64), (64, 1), (8, 8), (5, 12), (1, 1), (3, 21), (2, 32)])
def test_pictures_of_native_resolution_fit(bundle: Bundle, grid: tuple[int, int]) -> None:
    """Whatever the shape of a picture of at most so many tokens, its windows are within the range."""
    spec = ImageSpec("qwen2_5_vl", 28, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3, 0, patch=14, merge=2, window=112,
                     min_pixels=784, max_pixels=64 * 784)  # fmt: skip
    made = replace(bundle, manifest=replace(bundle.manifest, image=spec))
    (profile,) = profiles(made, "vision", Limits(length=64))
    inputs = grid_inputs(*grid, spec)
    found = {"patches": len(inputs["patch_slots"]), "windows": len(inputs["window_slots"])}
    assert choose([profile], found) == 0, (profile, found)


def test_sizes_by_axis() -> None:
    dims = {"x": ("batch", "rows", 64), "mask": ("batch", "total")}
    assert sizes(dims, {"x": (2, 5, 64), "mask": (2, 7)}) == {"batch": 2, "rows": 5, "total": 7}
    with pytest.raises(InputError, match=r"mask has the shape \(3, 7\), where batch is 2"):
        sizes(dims, {"x": (2, 5, 64), "mask": (3, 7)})


def test_limits_that_are_none() -> None:
    with pytest.raises(InputError, match="--batch must be between 1 and 4096, not 0"):
        Limits(batch=0)
    with pytest.raises(InputError, match="--length must be above 0"):
        Limits(length=-1)
    with pytest.raises(ValueError, match="do not ascend"):
        Span(2, 1, 3)
