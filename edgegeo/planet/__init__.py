"""A procedural planet: satellite tiles, ground photos and descriptions of any place, from one seed.

It stands in for the real Earth where no licence, download or hardware is at hand: the packaged model is trained and
tested on it. Regions look different, so that a position can be learned; places differ in layout, so that a tile can
be found from a photo or a description.
"""

from edgegeo.planet.globe import DEFAULT_SEED, Planet
from edgegeo.planet.place import Place

__all__ = ["DEFAULT_SEED", "Place", "Planet"]
