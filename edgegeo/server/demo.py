"""What the web page shows when the gallery is of the demo planet: its map, and photos whose true place is known."""

import io
import threading
from functools import lru_cache

from PIL import ImageFilter

from edgegeo.planet import Place, Planet
from edgegeo.planet.photos import encode_jpeg
from edgegeo.server.basemap import planet_basemap

MAP_WIDTH = 1600
PHOTO_SIZE = 256
EXAMPLES = 8
_CANDIDATES = 200


class Demo:
    """Renders from one planet seed; each picture once, then from memory."""

    def __init__(self, seed: int) -> None:
        self.planet = Planet(seed)
        # Two first visitors at once would otherwise both build the globe.
        self._lock = threading.Lock()
        self._places = lru_cache(maxsize=1)(self._choose)
        self._map = lru_cache(maxsize=1)(self._render_map)
        self._basemap = lru_cache(maxsize=1)(self._trace)
        self._photo = lru_cache(maxsize=EXAMPLES)(self._render_photo)

    def places(self) -> tuple[Place, ...]:
        """Test places, which no training has seen: the first of the stream in each of several biomes."""
        with self._lock:
            return self._places()

    def map(self) -> bytes:
        """PNG, equirectangular."""
        with self._lock:
            return self._map()

    def basemap(self) -> str:
        """Coastlines, borders and names as JSON; see server/basemap.py."""
        with self._lock:
            return self._basemap()

    def photo(self, index: int) -> bytes:
        """JPEG of the ground photo of one of `places`. IndexError beyond them."""
        with self._lock:
            return self._photo(index)

    def description(self, index: int) -> str:
        """One of `places` in words."""
        place = self.places()[index]
        return self.planet.describe(place.lat, place.lon)

    def _choose(self) -> tuple[Place, ...]:
        # By biome and region only, never by how well a model does on them.
        chosen: list[Place] = []
        stream = self.planet.places("test", _CANDIDATES)
        for taken in ("biome", "region", "key"):
            for place in stream:
                seen = {getattr(p, taken) for p in chosen}
                if len(chosen) < EXAMPLES and getattr(place, taken) not in seen:
                    chosen.append(place)
        return tuple(chosen)

    def _render_map(self) -> bytes:
        # A tint for the page to draw its own sharp coasts and borders over, so that the table's steps may be blurred.
        stream = io.BytesIO()
        self.planet.overview(MAP_WIDTH, borders=False).filter(ImageFilter.GaussianBlur(1.5)).save(stream, "PNG")
        return stream.getvalue()

    def _trace(self) -> str:
        return planet_basemap(self.planet)

    def _render_photo(self, index: int) -> bytes:
        place = self._places()[index]
        return encode_jpeg(self.planet.ground(place.lat, place.lon, size=PHOTO_SIZE))
