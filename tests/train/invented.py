"""Two invented places."""

from edgegeo.train.data import Words

WORDS = [
    Words(-12.3, 45.6, ("Dry desert with a sand road.", "A sand road."), {"biome": "desert", "water side": "north"}),
    Words(61.0, -9.8, ("A lake to the north.", "Taiga."), {"biome": "taiga", "water side": "none"}),
]
