"""The globe: noise, climate, regions."""

import collections

import numpy as np
import pytest

from edgegeo.geo import distance_km
from edgegeo.planet.noise import Dice, mix64, mix64_array, value_noise
from edgegeo.planet.palette import BIOMES
from edgegeo.planet.world import World, world_of


@pytest.fixture(scope="module")
def world() -> World:
    return world_of(2026)


def test_scalar_and_array_hashes_agree() -> None:
    values = np.array([0, 1, -1, 123456789], np.int64)
    folded = mix64_array(0, values)
    assert [int(h) for h in folded] == [mix64(int(v)) for v in values]
    assert mix64(1, 2) != mix64(2, 1)


def test_dice_are_fair() -> None:
    dice = Dice(7)
    draws = [dice.below(6) for _ in range(6000)]
    assert min(collections.Counter(draws).values()) > 850
    assert sorted(dice.shuffled(range(9))) == list(range(9))
    weighted = [dice.weighted("ab", (1.0, 3.0)) for _ in range(4000)]
    assert 0.7 < weighted.count("b") / 4000 < 0.8


def test_noise_is_smooth_and_bounded() -> None:
    t = np.linspace(0.0, 1.0, 2000)
    points = np.stack([np.cos(t), np.sin(t), np.zeros_like(t)], axis=1)
    values = value_noise(points, 8.0, 1)
    assert np.abs(values).max() <= 1.0
    assert np.abs(np.diff(values)).max() < 0.02
    assert np.ptp(values) > 0.4


def test_regions_are_about_a_hundred_and_neighbours_differ(world: World) -> None:
    assert 85 <= len(world.regions) <= 125
    assert len({r.name for r in world.regions}) == len(world.regions)
    assert len({r.culture for r in world.regions}) == 12
    dots = world.centres @ world.centres.T
    np.fill_diagonal(dots, -2.0)
    different = []
    for region, row in zip(world.regions, dots, strict=True):
        near = world.regions[int(np.argmax(row))]
        keys = ("road", "line", "line_colour", "edge", "post", "post_colour", "flag_colours", "wall", "roof")
        different.append(sum(getattr(region, k) != getattr(near, k) for k in keys))
    assert np.mean(different) > 5


def test_regions_hold_together(world: World) -> None:
    points = np.array([(lat, lon) for lat in range(-80, 81, 8) for lon in range(-180, 180, 8)], float)
    points = points[world.is_land(points[:, 0], points[:, 1])]
    far = []
    for lat, lon in points:
        x, y, z = world.centres[world.site(lat, lon).region.index]
        centre = np.degrees(np.arcsin(z)), np.degrees(np.arctan2(y, x))
        far.append(distance_km(lat, lon, *centre))
    assert np.median(far) < 900


def test_every_biome_has_land_and_poles_are_cold(world: World) -> None:
    sites = [world.site(lat, lon) for lat in range(-88, 89, 4) for lon in range(-180, 180, 6)]
    land = [s for s in sites if s.height > 0]
    counts = collections.Counter(s.biome for s in land)
    assert set(counts) == set(BIOMES)
    warm = {lat: np.mean([world.site(lat, lon).warm for lon in range(-180, 180, 10)]) for lat in (0, 80)}
    assert warm[0] > warm[80] + 0.4


def test_sampling_is_continuous_across_the_date_line(world: World) -> None:
    lat = np.linspace(-85, 85, 60)
    a = world.sample(lat, np.full(60, 179.9999))
    b = world.sample(lat, np.full(60, -179.9999))
    assert np.abs(a - b).max() < 0.01


def test_colours_chart_position(world: World) -> None:
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-60, 60, 4000), rng.uniform(-180, 180, 4000)
    table = world.sample(lat, lon)[:, 4:7]
    land = world.is_land(lat, lon)
    assert (table[land].std(0) > 0.2).all()
    near = world.sample(lat + 1.0, lon)[:, 4:7]
    assert np.abs(near - table).mean() < 0.05
