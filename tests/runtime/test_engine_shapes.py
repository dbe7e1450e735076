"""Ranges of shapes: what a bundle's jobs need, which range a call runs in, what is said where none holds it."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgegeo.bundle import Bundle, ImageSpec, open_bundle
from edgegeo.errors import InputError
from edgegeo.runtime.engines.shapes import (
    LONGEST,
    Limits,
    Profile,
    Sizes,
    Span,
    beyond,
    choose,
    decide,
    head_profiles,
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
    assert longest(bundle, Limits().at_most(length=33)) == 33
    with pytest.raises(InputError, match=r"a prompt of 257 positions is beyond the 256 .*--length, or prompt\.max"):
        longest(bundle, Limits().at_most(length=257))
    with pytest.raises(InputError, match=r"a cache of 300 positions is beyond the 256 .*cache\.max"):
        longest(bundle, Limits(cache=Sizes(max=300)))
    wordy = replace(manifest.roles, embed=replace(manifest.roles.embed, max_text_tokens=10**5))
    long = replace(manifest, trunk=replace(bundle.decoder, max_positions=10**6), roles=wordy)
    assert longest(replace(bundle, manifest=long), Limits()) == LONGEST


@pytest.mark.parametrize("length", [1, 2, 64, 300])
@pytest.mark.parametrize("batch", [1, 4])
def test_total_is_past_and_new_at_every_end(length: int, batch: int) -> None:
    """TensorRT refuses a range whose ends contradict each other."""
    for profile in trunk(batch, length):
        for end in ("least", "usual", "most"):
            past, new, total = (getattr(profile[axis], end) for axis in ("past", "sequence", "total"))
            assert total == past + new, (profile, end)


def trunk(batch: int, length: int) -> tuple[Profile, ...]:
    return trunk_profiles(decide(Limits().at_most(batch), length))


def test_a_call_runs_in_the_first_range_that_holds_it() -> None:
    built = trunk(4, 64)
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
    head = profiles(bundle, "head", Limits().at_most(length=40))
    assert choose(head, {"batch": 32, "asked": 1}) == 0
    assert choose(head, {"batch": 1, "asked": 40}) == 1
    assert len(profiles(bundle, "trunk", Limits())) == 3


@pytest.mark.parametrize("grid", [(1, 64), (64, 1), (8, 8), (5, 12), (1, 1), (3, 21), (2, 32)])
def test_pictures_of_native_resolution_fit(bundle: Bundle, grid: tuple[int, int]) -> None:
    """Whatever the shape of a picture of at most so many tokens, its windows are within the range."""
    spec = ImageSpec("qwen2_5_vl", 28, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3, 0, patch=14, merge=2, window=112,
                     min_pixels=784, max_pixels=64 * 784)  # fmt: skip
    made = replace(bundle, manifest=replace(bundle.manifest, image=spec))
    (profile,) = profiles(made, "vision", Limits().at_most(length=64))
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
        Limits().at_most(batch=0)
    with pytest.raises(InputError, match="--length must be above 0"):
        Limits().at_most(length=-1)
    with pytest.raises(ValueError, match="do not ascend"):
        Span(2, 1, 3)


def test_sizes_that_a_profile_gives() -> None:
    """Kernels are chosen for opt; a max that is left out is the bundle's, and what passes it gives way."""
    given = Limits(Sizes(opt=2, max=4), Sizes(opt=8, max=12), Sizes(opt=96), Sizes(opt=128, max=160))
    calls = decide(given, 150)
    assert (calls.batch, calls.answers) == (Span(1, 2, 4), Span(1, 8, 12))
    assert (calls.prompt, calls.cache) == (Span(1, 96, 150), Span(1, 128, 160))
    step, behind, several = trunk_profiles(calls)
    assert (step["batch"], step["past"], step["total"]) == (Span(1, 8, 12), Span(0, 128, 159), Span(1, 129, 160))
    assert (behind["sequence"], behind["past"]) == (Span(1, 96, 150), Span(0, 0, 160))
    assert (several["batch"], several["past"]) == (Span(1, 2, 4), Span(0, 0, 0))
    assert head_profiles(calls)[0]["batch"] == Span(1, 8, 12)
    short = decide(given.at_most(length=40), 40)
    assert (short.prompt, short.cache) == (Span(1, 40, 40), Span(1, 40, 40))
    assert decide(Limits(prompt=Sizes(min=16, max=32)), 99).prompt == Span(16, 32, 32)


def test_sizes_that_are_none() -> None:
    for wrong in ({"min": 4, "opt": 2, "max": 8}, {"opt": 9, "max": 8}, {"min": 0}, {"min": 4, "max": 3}, {"opt": -1}):
        with pytest.raises(ValueError, match="must ascend from 1"):
            Sizes(**wrong)
    with pytest.raises(ValueError, match=r"batch\.max must be between 1 and 4096, not 0"):
        Limits(batch=Sizes(opt=2))
    with pytest.raises(ValueError, match=r"cache\.max 64 is below prompt\.max 96"):
        Limits(prompt=Sizes(max=96), cache=Sizes(max=64))
    with pytest.raises(InputError, match=r"cache\.max 64 is below the 96 positions of the longest prompt"):
        decide(Limits(cache=Sizes(max=64)), 96)
