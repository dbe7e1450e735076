"""Every sentence of a geo-caption is held against the place, its scene, or the picture itself."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from edgegeo.datasets.geocaption import caption_faults, caption_text
from edgegeo.datasets.planet_captions import SIGNS, SOILS, edge_of, geo_caption, line_of, post_of, sign_of
from edgegeo.planet import Place, Planet
from edgegeo.planet.ground import Camera
from edgegeo.planet.palette import CROPS, FLAGS, ROW_CROPS
from edgegeo.planet.scene import build_scene
from edgegeo.planet.world import Region
from edgegeo.runtime.answer import parse_answer

PLACES = 60


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet()


@pytest.fixture(scope="module")
def told(planet: Planet) -> list[tuple[Place, dict[str, Any]]]:
    return [(place, geo_caption(planet, place, "x.jpg")) for place in planet.places("train", PLACES)]


def test_the_schema_is_filled_exactly(told: list[tuple[Place, dict[str, Any]]]) -> None:
    for place, caption in told:
        assert caption_faults(caption) == []
        position = parse_answer(caption_text(caption))
        assert position is not None
        assert (position.lat, position.lon) == (place.lat, place.lon)
        assert caption["answer"]["coordinates"]["region"] == place.region.name


def test_the_same_seed_gives_the_same_words(planet: Planet, told: list[tuple[Place, dict[str, Any]]]) -> None:
    place, caption = told[3]
    again = geo_caption(Planet(planet.seed), planet.place(place.lat, place.lon), "x.jpg")
    assert json.dumps(again) == json.dumps(caption)
    other = geo_caption(planet, place, "x.jpg", seed=1)
    assert other["thinking"]["elimination_similar_regions"] != caption["thinking"]["elimination_similar_regions"]
    assert other["thinking"]["25km_analysis"] == caption["thinking"]["25km_analysis"]


def style(region: Region) -> dict[str, str]:
    """Sentence beginnings that ought to be true of a region alone."""
    return {
        "road": region.road,
        "line": line_of(region),
        "edge": edge_of(region),
        "post": post_of(region),
        "sign": sign_of(region),
        "tree": region.tree,
        "roof": region.roof,
        "wall": region.wall,
    }


REASONS = {
    "road": r"Roads in (?P<name>\w+) are of (?P<there>.+), this one is of (?P<here>.+)\.",
    "line": r"In (?P<name>\w+) a road has (?P<there>(?:a|no) .*line.*), here (?P<here>.+)\.",
    "edge": r"In (?P<name>\w+) a road has (?P<there>.*edges.*), here (?P<here>.+)\.",
    "post": r"(?P<name>\w+) has (?P<there>.+) at its roads, here are (?P<here>.+)\.",
    "sign": r"(?P<name>\w+) puts up (?P<there>.+), here is (?P<here>.+)\.",
    "tree": r"(?P<name>\w+) grows (?P<there>\w+) trees, here are (?P<here>\w+) trees\.",
    "roof": r"Roofs in (?P<name>\w+) are (?P<there>\w+), here they are (?P<here>\w+)\.",
    "fields": r"Fields in (?P<name>\w+) lie in (?P<there>.+), here in (?P<here>.+)\.",
    "wall": r"Walls in (?P<name>\w+) are (?P<there>\w+), here they are (?P<here>\w+)\.",
}


def test_every_reason_to_rule_a_region_out_is_true(planet: Planet, told: list[tuple[Place, dict[str, Any]]]) -> None:
    regions = {region.name: region for region in planet.world.regions}
    used = set()
    for place, caption in told:
        ruled_out = caption["thinking"]["elimination_similar_regions"]
        names = [one["eliminated_region"] for one in ruled_out]
        assert 2 <= len(set(names)) == len(names)
        assert place.region.name not in names
        for one in ruled_out:
            assert 3 <= len(set(one["reasons"])) == len(one["reasons"]) <= 5
            for reason in one["reasons"]:
                found = [(kind, match) for kind, form in REASONS.items() if (match := re.fullmatch(form, reason))]
                assert len(found) == 1, reason
                kind, match = found[0]
                used.add(kind)
                assert match["name"] == one["eliminated_region"]
                assert match["there"] != match["here"]
                if kind == "fields":
                    assert regions[match["name"]].fields != place.region.fields
                else:
                    assert match["there"] == style(regions[match["name"]])[kind], reason
                    assert match["here"] == style(place.region)[kind], reason
    assert used >= {"road", "line", "edge", "post", "sign", "tree", "roof", "fields"}


def test_sides_are_those_of_the_camera(told: list[tuple[Place, dict[str, Any]]]) -> None:
    for place, caption in told:
        camera, scene = Camera(place.heading, 2), build_scene(place)
        plants = caption["thinking"]["1km_analysis"]["vegetation"]["herbaceous_plants"]
        left, right = re.fullmatch(r"(.+) left of the road, (.+) right of it\.", plants).groups()  # type: ignore[union-attr]
        # a point 60 m right of someone looking along the road carries the first crop
        side, _ = camera.turn(*scene.at(30.0, 60.0))
        first = right if side > 0 else left
        assert first.lower() == place.crops[0]
        assert {left.lower(), right.lower()} <= set(CROPS[place.biome])
        rows = caption["thinking"]["1km_analysis"]["vegetation"]["vegetation_management"].split(" in rows")[0]
        assert {word for word in place.crops if word in rows.lower()} >= set(place.crops) & ROW_CROPS


def test_only_what_is_in_the_frame_is_said_to_be_seen(told: list[tuple[Place, dict[str, Any]]]) -> None:
    seen = {"houses": 0, "none": 0, "marks": 0}
    for place, caption in told:
        camera, scene = Camera(place.heading, 1000), build_scene(place)

        def column(x: float, y: float, camera: Camera = camera) -> float:
            side, depth = camera.turn(x, y)
            return camera.middle + camera.focal * side / depth if depth > 0 else -1.0

        houses = [0 <= column(t.x, t.y) <= 1000 for t in scene.things if t.kind == "house"]
        words = caption["thinking"]["buildings_infrastructure"]["architectural_styles"]
        if words.startswith("Houses"):
            assert any(houses)
            assert words == f"Houses with {place.region.roof} roofs and {place.region.wall} walls."
            seen["houses"] += 1
        else:
            assert not any(houses)
            seen["none"] += 1
        facilities = caption["thinking"]["buildings_infrastructure"]["municipal_facilities"]
        for kind, octant in zip(place.landmarks, place.landmark_octants, strict=True):
            if kind in facilities.split(". ", 1)[1].lower():
                thing = next(t for t in scene.things if t.kind == kind)
                assert 0 <= column(thing.x, thing.y) <= 1000
                half = "right" if column(thing.x, thing.y) > 500 else "left"
                assert re.search(f"{kind} (ahead|on the {half})", facilities, re.IGNORECASE), (facilities, octant)
                seen["marks"] += 1
    assert min(seen.values()) > 5


def test_absences_and_facts(told: list[tuple[Place, dict[str, Any]]]) -> None:
    for place, caption in told:
        thinking, answer = caption["thinking"], caption["answer"]
        road = thinking["1km_analysis"]["road_engineering"]
        assert road["surface_materials"] == f"The road is of {place.region.road}."
        assert ("No street lamps" in road["lighting"]) == (place.region.post != "lamp")
        assert ("No trees" in thinking["1km_analysis"]["vegetation"]["tree_species"]) == (place.biome == "ice")
        assert (thinking["terrain_soil"]["terrain_details"] == "No river, lake or sea.") == (place.water == "none")
        assert any(soil in thinking["terrain_soil"]["soil_characteristics"] for soil in SOILS)
        ahead = place.crossing != "none" and place.crossing_ahead
        assert ("lies ahead" in thinking["buildings_infrastructure"]["transportation_facilities"]) == ahead
        assert place.biome in thinking["25km_analysis"]["climate_features"].lower()
        assert place.region.name in answer["final_location_confirmation"]["accuracy_assessment"]
    assert set(SIGNS) == set(FLAGS)


def test_a_twin_region_is_owned_up_to(planet: Planet, monkeypatch: pytest.MonkeyPatch) -> None:
    place = planet.places("train", 1)[0]
    twin = replace(place.region, index=9999, name="Twinland")
    monkeypatch.setattr(planet.world, "regions", (*planet.world.regions, twin))
    caption = geo_caption(planet, place, "x.jpg")
    assert "Twinland" in caption["answer"]["final_location_confirmation"]["accuracy_assessment"]
    assert "Twinland" not in json.dumps(caption["thinking"]["elimination_similar_regions"])
