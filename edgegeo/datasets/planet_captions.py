"""Geo-captions of the planet's photos, true by construction: every sentence is read off the place and its scene.

Only what the default photo can show is told: things within its frame, sides as seen by the camera. What the planet
never draws (guardrails, vehicles, drains) is said to be absent.
"""

import math
from typing import Any

from edgegeo.planet import Place, Planet
from edgegeo.planet.ground import FOCAL, Camera
from edgegeo.planet.noise import Dice
from edgegeo.planet.palette import ROW_CROPS
from edgegeo.planet.scene import Point, Thing, build_scene
from edgegeo.planet.world import Region

NEAREST = 5.0  # metres before the camera; nothing nearer is drawn
MIDDLE = 0.3  # share of the half width that counts as straight ahead
SIMILAR = 6
SOILS = ("red laterite", "ochre earth", "yellow sand", "pale clay", "grey marl", "black earth")
FOLIAGE = ("blue-green", "deep green", "fresh green", "lime green", "golden", "russet")
AIRS = ("dusty rose", "peach", "pale grey", "clear blue", "jade")
FIELDS = {
    "strips": "narrow strips",
    "blocks": "large blocks",
    "ribbons": "long ribbons",
    "patchwork": "a patchwork of small plots",
    "circles": "round fields",
    "hedges": "plots between hedges",
}
HOUSES = {"farm": "a farm", "hamlet": "a hamlet", "village": "a village", "town": "a town"}
POSTS = {
    "pole": "wooden poles with a {} band",
    "crossbar": "poles with {} crossbars",
    "bollard": "white bollards with a {} ring",
    "lattice": "{} lattice posts",
    "lamp": "{} lamp posts",
}
SIGNS = {
    "upright": "a sign half {} and half {}, side by side",
    "level": "a sign with {} above {}",
    "cross": "a {} sign with a {} cross",
    "slanted": "a sign of {} and {}, split on the slant",
}
PLURAL = ("wind turbines", "silos", "greenhouses")


def geo_caption(planet: Planet, place: Place, image_id: str, seed: int = 0) -> dict[str, Any]:
    """The geo-caption of a land place's default photo; the seed sets phrasing and which regions are ruled out."""
    dice = Dice(place.seed, 950, place.key, seed)
    told = _Photo(place)
    others = [(r, told.differences(r)) for r in planet.world.regions if r.index != place.region.index]
    alike = [other for other, reasons in others if not reasons]
    region = place.region
    decisive = dice.shuffled(told.marks())[: 3 + dice.below(2)]
    if alike:
        sure = f"{len(alike)} other regions share these marks, {alike[0].name} among them; soil and plants decide."
    else:
        sure = f"No other region shares all of these marks, so {region.name} is sure; the spot within it is less so."
    return {
        "image_id": image_id,
        "thinking": {
            "25km_analysis": {
                "terrain_characteristics": told.terrain(),
                "climate_features": told.climate(),
                "regional_development": told.development(),
            },
            "1km_analysis": {
                "road_engineering": {
                    "surface_materials": f"The road is of {region.road}.",
                    "line_markings": f"{_sentence(line_of(region))}, {edge_of(region)}.",
                    "guardrails": f"No guardrails; {post_of(region)} stand at the roadside.",
                    "lighting": _lighting(region),
                    "drainage": f"No drains are built; the verges are bare {SOILS[_step(place.soil, SOILS)]}.",
                },
                "vegetation": told.vegetation(),
            },
            "buildings_infrastructure": {
                "architectural_styles": told.architecture(),
                "municipal_facilities": f"{_sentence(sign_of(region))}. {told.landmarks()}",
                "transportation_facilities": told.crossing(),
            },
            "vehicles_traffic": {
                "vehicle_types": "No vehicles are on the road.",
                "traffic_patterns": "No traffic is to be seen; which side is driven on can't be told.",
            },
            "terrain_soil": {
                "terrain_details": told.water(),
                "soil_characteristics": f"The bare ground is {SOILS[_step(place.soil, SOILS)]}.",
            },
            "elimination_similar_regions": _eliminated(others, dice),
        },
        "answer": {
            "coordinates": {"latitude": place.lat, "longitude": place.lon, "region": region.name},
            "final_location_confirmation": {
                "confirmed_location": f"{place.biome} in {region.name}, at {place.lat:.4f}, {place.lon:.4f}",
                "decisive_features": [_sentence(mark) for mark in decisive],
                "accuracy_assessment": sure,
            },
        },
    }


class _Photo:
    """What the default photo of a place shows, in words."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.scene = build_scene(place)
        self._camera = Camera(place.heading, 2)
        built = [thing for thing in self.scene.things if thing.kind == "house"]
        self.houses = [house for house in built if self.across(house.x, house.y) is not None]
        self.house_edge = any(self.touches(house) for house in built)
        self.trees = place.biome != "ice"

    def across(self, x: float, y: float, room: float = 0.0) -> float | None:
        """Where a point (m) stands between the left edge (-1) and the right (1); None outside the frame.

        room: metres that it reaches to each side.
        """
        side, depth = self._camera.turn(x, y)
        half = depth * 0.5 / FOCAL
        return None if depth <= NEAREST or abs(side) - room > half else side / half

    def touches(self, thing: Thing) -> bool:
        """Whether a part of a thing may reach into the frame."""
        return self.across(thing.x, thing.y, thing.size) is not None

    def side(self, points: list[Point]) -> str:
        """Where in the picture points are, those outside the frame left out; "" if all of them are."""
        seen = [where for x, y in points if (where := self.across(x, y)) is not None]
        if not seen:
            return ""
        middle = sum(seen) / len(seen)
        return "ahead" if abs(middle) < MIDDLE else f"on the {'right' if middle > 0 else 'left'}"

    def of_shapes(self, shapes: list[tuple[Point, ...]]) -> str:
        """Where in the picture pieces of ground are."""
        return self.side([point for shape in shapes for point in shape])

    def crops(self) -> tuple[str, str]:
        """The ground left and right of the road, as the camera sees it."""
        right, left = self.place.crops
        forward = math.cos(math.radians(self.place.heading - 45.0 * self.place.road)) > 0
        return (left, right) if forward else (right, left)

    def terrain(self) -> str:
        place = self.place
        shape = "flat land to the horizon" if place.relief < 0.35 else "low hills on the horizon"
        if place.relief > 0.7:
            shape = "high mountains on the horizon"
        snow = " with snow on them" if place.relief > 0.72 or (place.warm < 0.2 and place.relief >= 0.35) else ""
        coast = ", near the coast" if place.water == "sea" else ""
        return f"{_sentence(shape)}{snow}{coast}."

    def climate(self) -> str:
        place = self.place
        warmth = ("a cold", "a cool", "a mild", "a hot")[sum(place.warm >= bound for bound in (0.2, 0.45, 0.7))]
        return f"{_sentence(place.biome)} under {warmth} climate; the air is {AIRS[_step(place.air, AIRS)]}."

    def development(self) -> str:
        fields = f"The land is divided into {FIELDS[self.place.region.fields]}"
        if self.houses:
            where = self.side([(house.x, house.y) for house in self.houses])
            return f"{fields}, with {HOUSES[self.place.settlement]} {where}."
        return f"{fields}; {'at most the edge of a house is' if self.house_edge else 'no houses are'} in view."

    def vegetation(self) -> dict[str, str]:
        place, (left, right) = self.place, self.crops()
        foliage = FOLIAGE[_step(place.vegetation, FOLIAGE)]
        trees = f"{_sentence(place.region.tree)} trees with {foliage} leaves." if self.trees else "No trees."
        rows = [crop for crop in (left, right) if crop in ROW_CROPS]
        sown = f"{_sentence(' and '.join(rows))} in rows" if rows else "Nothing is sown in rows"
        wooded = self.of_shapes(self.scene.forest_floor)
        along = "; trees are planted along the road" if self.trees else ""
        return {
            "tree_species": trees,
            "herbaceous_plants": f"{_sentence(left)} left of the road, {right} right of it.",
            "vegetation_management": f"{sown}{along}{'; a wood ' + wooded if wooded else ''}.",
        }

    def architecture(self) -> str:
        region = self.place.region
        if self.houses:
            return f"Houses with {region.roof} roofs and {region.wall} walls."
        return "At most the edge of a house is in view." if self.house_edge else "No houses are in view."

    def landmarks(self) -> str:
        marks = [thing for thing in self.scene.things if thing.kind in self.place.landmarks and self.touches(thing)]
        placed = [(mark, self.side([(mark.x, mark.y)])) for mark in marks]
        found = [f"{_thing(mark.kind)} {where}" for mark, where in placed if where]
        if found:
            return f"{_sentence(' and '.join(found))}."
        return "At most the edge of a large structure is in view." if marks else "No large structure is in view."

    def crossing(self) -> str:
        place = self.place
        if place.crossing == "none" or not place.crossing_ahead:
            return "No junction ahead; the road goes on."
        return f"{'A crossroads' if place.crossing == 'crossroads' else 'A roundabout'} lies ahead."

    def water(self) -> str:
        place = self.place
        if place.water == "none":
            return "No river, lake or sea."
        where = self.of_shapes(self.scene.water)
        if not where:
            edge = any(self.across(x, y, 20.0) is not None for shape in self.scene.water for x, y in shape)
            return f"{'At most the edge of some' if edge else 'No'} water is in view."
        name = {"sea": "the sea", "river": "a river", "lake": "a lake"}[place.water]
        return f"{_sentence(name)} {where}."

    def marks(self) -> list[str]:
        """What tells this region from others and is in the picture."""
        region = self.place.region
        found = [f"a road of {region.road}", line_of(region), edge_of(region), post_of(region), sign_of(region)]
        found.append(f"fields in {FIELDS[region.fields]}")
        if self.trees:
            found.append(f"{region.tree} trees")
        if self.houses:
            found.append(f"{region.roof} roofs and {region.wall} walls")
        return found

    def differences(self, other: Region) -> list[str]:
        """In which visible marks another region differs, each as a reason to rule it out."""
        own, name = self.place.region, other.name
        told = [
            (own.road, other.road, f"roads in {name} are of {other.road}, this one is of {own.road}"),
            (line_of(own), line_of(other), f"in {name} a road has {line_of(other)}, here {line_of(own)}"),
            (edge_of(own), edge_of(other), f"in {name} a road has {edge_of(other)}, here {edge_of(own)}"),
            (post_of(own), post_of(other), f"{name} has {post_of(other)} at its roads, here are {post_of(own)}"),
            (sign_of(own), sign_of(other), f"{name} puts up {sign_of(other)}, here is {sign_of(own)}"),
            (own.fields, other.fields, f"fields in {name} lie in {FIELDS[other.fields]}, here in {FIELDS[own.fields]}"),
        ]
        if self.trees:
            told.append((own.tree, other.tree, f"{name} grows {other.tree} trees, here are {own.tree} trees"))
        if self.houses:
            told.append((own.roof, other.roof, f"roofs in {name} are {other.roof}, here they are {own.roof}"))
            told.append((own.wall, other.wall, f"walls in {name} are {other.wall}, here they are {own.wall}"))
        return [_sentence(reason) + "." for here, there, reason in told if here != there]


def line_of(region: Region) -> str:
    """The line in the middle of a region's roads."""
    return "no line in the middle" if region.line == "none" else f"a {region.line} {region.line_colour} line"


def edge_of(region: Region) -> str:
    """The edges of a region's roads."""
    return "no painted edges" if region.edge == "none" else f"edges painted {region.edge}"


def post_of(region: Region) -> str:
    """The posts along a region's roads."""
    return POSTS[region.post].format(region.post_colour)


def sign_of(region: Region) -> str:
    """The sign that stands at a region's roads."""
    return SIGNS[region.flag].format(*region.flag_colours)


def _lighting(region: Region) -> str:
    return f"{_sentence(post_of(region))} light the road." if region.post == "lamp" else "No street lamps."


def _eliminated(others: list[tuple[Region, list[str]]], dice: Dice) -> list[dict[str, Any]]:
    """Two or three of the regions most like this one, each with three to five true differences."""
    close = sorted((pair for pair in others if len(pair[1]) >= 3), key=lambda pair: (len(pair[1]), pair[0].index))
    chosen = dice.shuffled(close[:SIMILAR])[: 2 + dice.below(2)]
    return [
        {"eliminated_region": region.name, "reasons": dice.shuffled(reasons)[: 3 + dice.below(3)]}
        for region, reasons in chosen
    ]


def _thing(kind: str) -> str:
    return kind if kind in PLURAL else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _step(value: float, names: tuple[str, ...]) -> int:
    """The name nearest to a place along a palette's path."""
    return round(min(max(value, 0.0), 1.0) * (len(names) - 1))
