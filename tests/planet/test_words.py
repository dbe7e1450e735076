"""Descriptions: length, variety, a small vocabulary, and nothing that the place does not hold."""

import re

import pytest

from edgegeo.planet import Place, Planet
from edgegeo.planet.palette import CROP_COLOURS, LANDMARKS


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet()


@pytest.fixture(scope="module")
def places(planet: Planet) -> list[Place]:
    return planet.places("validation", 150)


def test_length_and_vocabulary(planet: Planet, places: list[Place]) -> None:
    words: set[str] = set()
    for p in places:
        for variant in range(8):
            text = planet.describe(p.lat, p.lon, variant)
            assert 12 <= len(text.split()) <= 45, text
            assert 1 <= text.count(".") <= 3
            assert "  " not in text
            assert text[0].isupper()
            assert not re.search(r"\d", text)
            words |= set(re.findall(r"[a-z]+", text.lower()))
    assert 100 < len(words) < 350


def test_variants_tell_different_things(planet: Planet, places: list[Place]) -> None:
    for p in places[:40]:
        texts = [planet.describe(p.lat, p.lon, v) for v in range(10)]
        assert len(set(texts)) >= 9
        assert texts[3] == planet.describe(p.lat, p.lon, 3)
    farms = [planet.describe(p.lat, p.lon, v) for p in places for v in range(6) if p.settlement == "village"]
    told = sum("village" in text for text in farms) / len(farms)
    assert 0.2 < told < 0.9


def test_only_what_is_there(planet: Planet, places: list[Place]) -> None:
    for p in places:
        for variant in range(6):
            text = planet.describe(p.lat, p.lon, variant)
            lower = text.lower()
            for kind in LANDMARKS:
                assert (kind not in lower) or kind in p.landmarks, text
            for crop in CROP_COLOURS:
                if crop not in ("tea", "rye"):  # parts of other words
                    assert (crop not in lower) or any(crop in own for own in p.crops), text
            if re.search(r"\b(a|round) lake\b|\bcoast\b|\bthe sea\b|\ba river\b", lower):
                assert p.water != "none"
            if " lake to" in lower or "round lake" in lower:
                assert p.water == "lake"
            if "roofs" in lower:
                assert f"{p.region.roof} roofs" in lower


def test_descriptions_tell_places_apart(planet: Planet) -> None:
    texts = [planet.describe(p.lat, p.lon) for p in planet.places("test", 1000)]
    assert len(set(texts)) == 1000
