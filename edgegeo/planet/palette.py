"""Names and colours: what can grow, stand and be built on the planet, and how it looks.

Colours are RGB in 0..255. The names are also the words of descriptions and answers.
"""

from collections.abc import Sequence

RGB = tuple[int, int, int]

BIOMES = ("ice", "tundra", "taiga", "forest", "grassland", "desert", "savanna", "rainforest")

# Ground uses of each biome. Within a biome, any two must be told apart at a glance from above and from the road.
CROPS: dict[str, tuple[str, ...]] = {
    "ice": ("snow", "blue ice", "bare rock", "black sand", "pink algae"),
    "tundra": ("moss", "heather", "bog", "lichen", "berries", "bare rock"),
    "taiga": ("rye", "flax", "bog", "meadow", "ploughed soil", "berries"),
    "forest": ("wheat", "rapeseed", "maize", "ploughed soil", "lavender", "poppies", "meadow"),
    "grassland": ("wheat", "sunflowers", "ploughed soil", "rapeseed", "flax", "poppies", "tulips"),
    "desert": ("dunes", "salt flats", "gravel", "red rock", "dry mud", "maize"),
    "savanna": ("dry grass", "cotton", "red rock", "maize", "sunflowers", "ploughed soil"),
    "rainforest": ("rice paddies", "tea", "maize", "tulips", "ploughed soil", "cotton"),
}

CROP_COLOURS: dict[str, RGB] = {
    "snow": (240, 244, 250),
    "blue ice": (120, 190, 232),
    "bare rock": (120, 118, 116),
    "black sand": (56, 54, 62),
    "pink algae": (236, 160, 180),
    "moss": (150, 165, 50),
    "heather": (150, 95, 140),
    "bog": (72, 58, 44),
    "lichen": (205, 208, 180),
    "berries": (168, 50, 52),
    "rye": (206, 186, 108),
    "flax": (98, 120, 214),
    "meadow": (124, 184, 74),
    "ploughed soil": (112, 76, 50),
    "wheat": (222, 182, 88),
    "rapeseed": (244, 222, 40),
    "maize": (34, 100, 40),
    "lavender": (138, 92, 196),
    "poppies": (216, 52, 44),
    "sunflowers": (240, 160, 32),
    "tulips": (238, 110, 160),
    "dunes": (228, 170, 96),
    "salt flats": (244, 238, 228),
    "gravel": (134, 128, 122),
    "red rock": (172, 72, 44),
    "dry mud": (186, 160, 128),
    "dry grass": (206, 182, 90),
    "cotton": (236, 234, 222),
    "rice paddies": (116, 156, 172),
    "tea": (70, 160, 70),
}

# Crops sown in rows; the rest is open ground and gets texture but no rows.
ROW_CROPS = frozenset(
    (
        "rye",
        "flax",
        "ploughed soil",
        "wheat",
        "rapeseed",
        "maize",
        "lavender",
        "poppies",
        "sunflowers",
        "tulips",
        "cotton",
        "rice paddies",
        "tea",
    )
)

# Along the first smooth colour field: laterite, ochre, sand, pale clay, grey marl, black earth.
SOIL_PATH: tuple[RGB, ...] = (
    (158, 44, 32),
    (206, 104, 44),
    (232, 188, 96),
    (222, 214, 200),
    (134, 140, 150),
    (62, 52, 60),
)
# Along the second: blue-green, deep green, fresh green, lime, gold, russet.
VEGETATION_PATH: tuple[RGB, ...] = (
    (24, 112, 112),
    (28, 96, 52),
    (78, 142, 58),
    (150, 176, 56),
    (186, 154, 52),
    (164, 92, 52),
)
# Along the third: the colour of the air, from dusty rose through clear blue to jade.
AIR_PATH: tuple[RGB, ...] = (
    (232, 148, 150),
    (238, 196, 146),
    (206, 216, 226),
    (136, 186, 234),
    (124, 214, 198),
)

# How far vegetation hides the soil in each biome, and how much snow lies on it.
COVER = {
    "ice": 0.0,
    "tundra": 0.45,
    "taiga": 0.75,
    "forest": 0.8,
    "grassland": 0.7,
    "desert": 0.06,
    "savanna": 0.4,
    "rainforest": 0.95,
}
SNOW = {"ice": 0.72, "tundra": 0.18, "taiga": 0.06}

ROOFS: dict[str, RGB] = {
    "red": (204, 48, 40),
    "blue": (48, 92, 196),
    "brown": (116, 70, 40),
    "green": (42, 140, 84),
    "white": (242, 242, 240),
    "black": (44, 44, 50),
    "orange": (242, 134, 30),
    "teal": (24, 168, 172),
    "purple": (134, 62, 172),
    "yellow": (240, 206, 56),
    "grey": (146, 150, 158),
    "pink": (240, 132, 172),
}
WALLS: dict[str, RGB] = {
    "white": (240, 238, 232),
    "cream": (238, 218, 172),
    "brick": (168, 84, 62),
    "grey": (150, 152, 156),
    "blue": (126, 168, 214),
    "green": (146, 192, 140),
    "pink": (236, 172, 170),
    "yellow": (240, 208, 104),
}
PAINTS: dict[str, RGB] = {
    "red": (220, 36, 36),
    "blue": (32, 84, 214),
    "yellow": (250, 216, 30),
    "green": (24, 160, 72),
    "white": (250, 250, 250),
    "black": (24, 24, 28),
    "orange": (250, 128, 16),
    "purple": (150, 48, 190),
}
ROADS: dict[str, RGB] = {
    "asphalt": (66, 68, 74),
    "concrete": (198, 196, 190),
    "red dirt": (172, 88, 60),
    "cobble": (128, 124, 134),
    "sand": (226, 200, 146),
    "blue tar": (76, 96, 140),
}
LINES = ("none", "dashed", "solid", "double")
LINE_COLOURS: dict[str, RGB] = {"white": (250, 250, 250), "yellow": (252, 206, 24), "red": (222, 44, 40)}
POSTS = ("pole", "crossbar", "bollard", "lattice", "lamp")
FLAGS = ("upright", "level", "cross", "slanted")
FIELDS = ("strips", "blocks", "ribbons", "patchwork", "circles", "hedges")

CULTURES: tuple[tuple[str, str, str], ...] = (  # roof family, tree, field pattern
    ("red", "oak", "blocks"),
    ("blue", "pine", "strips"),
    ("brown", "birch", "ribbons"),
    ("green", "cherry", "patchwork"),
    ("white", "palm", "circles"),
    ("black", "poplar", "hedges"),
    ("orange", "cactus", "blocks"),
    ("teal", "acacia", "strips"),
    ("purple", "poplar", "patchwork"),
    ("yellow", "palm", "ribbons"),
    ("grey", "pine", "hedges"),
    ("pink", "acacia", "circles"),
)

LANDMARKS = (
    "water tower",
    "church",
    "stadium",
    "wind turbines",
    "solar farm",
    "silos",
    "radio mast",
    "lighthouse",
    "quarry",
    "greenhouses",
    "factory",
    "castle",
    "airstrip",
    "observatory",
)

OCTANTS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")


def mix(a: RGB, b: RGB, t: float) -> RGB:
    """The colour `t` of the way from a to b."""
    s = 1.0 - t
    return (int(a[0] * s + b[0] * t + 0.5), int(a[1] * s + b[1] * t + 0.5), int(a[2] * s + b[2] * t + 0.5))


def lit(colour: RGB, k: float) -> RGB:
    """The colour under k times the light."""
    return (
        min(255, int(colour[0] * k + 0.5)),
        min(255, int(colour[1] * k + 0.5)),
        min(255, int(colour[2] * k + 0.5)),
    )


def along(path: Sequence[RGB], t: float) -> RGB:
    """The colour at t in [0, 1] along a path of colours."""
    x = min(max(t, 0.0), 1.0) * (len(path) - 1)
    i = min(int(x), len(path) - 2)
    return mix(path[i], path[i + 1], x - i)
