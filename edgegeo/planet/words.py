"""Descriptions in words: a few of a place's facts, in one of many phrasings."""

from edgegeo.planet.noise import Dice
from edgegeo.planet.palette import OCTANTS
from edgegeo.planet.place import AXES, Place

MOST_WORDS = 45

_BIOME = {
    "ice": ("frozen land", "icy land", "land under ice"),
    "tundra": ("tundra", "cold open tundra"),
    "taiga": ("taiga", "northern taiga land"),
    "forest": ("forest country", "temperate forest land"),
    "grassland": ("grassland", "open grassland"),
    "desert": ("desert", "dry desert"),
    "savanna": ("savanna", "warm savanna"),
    "rainforest": ("rainforest", "wet rainforest land"),
}
_SIZE = {
    "farm": ("a farm", "a single farm"),
    "hamlet": ("a hamlet", "a few houses"),
    "village": ("a village", "a village"),
    "town": ("a town", "a town"),
}
_PLURAL = frozenset(("wind turbines", "silos", "greenhouses"))
_SHAPE = {
    "strips": "narrow strips",
    "blocks": "large blocks",
    "ribbons": "long ribbons",
    "patchwork": "a patchwork",
    "circles": "round fields",
    "hedges": "fields with hedges",
}


def describe_place(place: Place, variant: int) -> str:
    """One caption of 1 to 3 sentences and 12 to 45 words. The variant sets the phrasing and which facts are told."""
    dice = Dice(place.seed, 900, place.key, variant)
    if not place.land:
        return dice.pick(
            (
                "Open sea as far as the eye can see, with no land, no road and no houses.",
                "Only water here: the open sea, with small waves and no land in sight.",
            )
        )
    extra = [
        clause
        for clause in (_water(place, dice), _settlement(place, dice), _forest(place, dice), _crossing(place, dice))
        if clause
    ]
    told = [_crops(place, dice), _landmarks(place, dice), *dice.shuffled(extra)[: 1 + dice.below(3)]]
    opening = _opening(place, dice)
    room = MOST_WORDS - len(opening.split()) - 1
    while sum(len(clause.split()) + 1 for clause in told) > room:
        told.pop()
    clauses = dice.shuffled(told)
    half = (len(clauses) + 1) // 2
    text = f"{opening}, {_join(clauses[:half], dice)}."
    if clauses[half:]:
        rest = _join(clauses[half:], dice)
        text += f" {rest[0].upper()}{rest[1:]}."
    return text


def _join(clauses: list[str], dice: Dice) -> str:
    if len(clauses) == 1:
        return clauses[0]
    return ", ".join(clauses[:-1]) + dice.pick((" and ", ", and ", ", with ")) + clauses[-1]


def _opening(place: Place, dice: Dice) -> str:
    biome = dice.pick(_BIOME[place.biome])
    road = _road(place, dice)
    return dice.pick(
        (
            f"{biome.capitalize()} with {road}",
            f"{biome.capitalize()} crossed by {road}",
            f"{road[0].upper()}{road[1:]} through {biome}",
            f"In {biome}, {road}",
            f"{biome.capitalize()}",
        )
    )


def _road(place: Place, dice: Dice) -> str:
    surface = place.region.road
    article = "an" if surface[0] in "aeiou" else "a"
    form = dice.below(3)
    if form == 0:
        return f"{article} {surface} road"
    if form == 1:
        return f"{article} {surface} road from {AXES[place.road]}"
    if place.region.line == "none":
        return f"{article} {surface} road without lines"
    return f"{article} {surface} road with a {place.region.line} {place.region.line_colour} line"


def _side(octant: int, dice: Dice) -> str:
    name = OCTANTS[octant]
    return dice.pick((f"to the {name}", f"in the {name}", f"on the {name} side"))


def _crops(place: Place, dice: Dice) -> str:
    (right, left), (a, b) = place.crop_octants, place.crops
    if dice.unit() < 0.5:
        (right, left), (a, b) = (left, right), (b, a)
    form = dice.below(5)
    if form == 0:
        return f"{a} {_side(right, dice)} and {b} {_side(left, dice)}"
    if form == 1:
        return f"{a} {OCTANTS[right]} of the road and {b} {OCTANTS[left]} of it"
    if form == 2:
        return f"{a} on one side of the road, to the {OCTANTS[right]}, and {b} on the other"
    if form == 3:
        return f"{a} and {b} in {_SHAPE[place.region.fields]}, the {a} {_side(right, dice)}"
    return f"{a} {_side(right, dice)}, facing {b}"


def _thing(kind: str) -> str:
    if kind in _PLURAL:
        return kind
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _landmarks(place: Place, dice: Dice) -> str:
    pairs = dice.shuffled(list(zip(place.landmarks, place.landmark_octants, strict=True)))
    (a, at_a), (b, at_b) = pairs
    form = dice.below(5)
    if form == 0:
        return f"{_thing(a)} {_side(at_a, dice)}"
    if form == 1:
        return f"{_thing(a)} and {_thing(b)}"
    return f"{_thing(a)} {_side(at_a, dice)} and {_thing(b)} {_side(at_b, dice)}"


def _water(place: Place, dice: Dice) -> str:
    if place.water == "none":
        return dice.pick(("no water", "no river or lake", ""))
    side = _side(place.water_octant, dice)
    if place.water == "sea":
        return dice.pick((f"the sea {side}", f"a beach and the sea {side}", f"the coast {side}"))
    if place.water == "river":
        return dice.pick((f"a river {side}", f"a river winding {side}", f"a river passing {side}"))
    return dice.pick((f"a lake {side}", f"a round lake {side}", "a lake"))


def _settlement(place: Place, dice: Dice) -> str:
    if place.settlement == "none":
        return dice.pick(("no houses", "no settlement", ""))
    size = dice.pick(_SIZE[place.settlement])
    roofs = dice.pick((f" with {place.region.roof} roofs", f" of {place.region.roof} roofs", ""))
    return f"{size}{roofs} {_side(place.settlement_octant, dice)}"


def _forest(place: Place, dice: Dice) -> str:
    if place.forest_octant < 0:
        row = dice.pick(("", f"{place.region.tree} trees along the road"))
        return "" if place.biome == "ice" else row
    side = _side(place.forest_octant, dice)
    wood = dice.pick(("a wood", "woods", f"{place.region.tree} woods"))
    return f"{wood} {side}"


def _crossing(place: Place, dice: Dice) -> str:
    return {
        "none": "",
        "crossroads": dice.pick(("a crossroads", "a second road crossing")),
        "roundabout": dice.pick(("a roundabout", "a round crossing")),
    }[place.crossing]
