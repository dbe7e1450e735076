"""Image tokens of gallery tiles, kept for the next query that finds them: their tower never runs twice."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens

KEPT_BYTES = 64 * 2**20
"""Room for about 5,400 tiles of the packaged model (12 kB each, 16 tokens of width 192 in float32), or 450 of
SmolVLM-256M's (147 kB). float32, as the tower gives them: a tile scores the same whether it was kept or not."""


class TileFeatures:
    """The tiles seen last, up to a number of bytes; known by the content of their picture, whatever gallery it is in.

    Safe to share between threads.
    """

    def __init__(self, model: Model, component: str, most_bytes: int = KEPT_BYTES) -> None:
        """component: the vision tower; most_bytes: 0 keeps nothing."""
        self.most_bytes = most_bytes
        self.bytes = 0
        self.hits = 0
        """Tiles that needed no tower."""
        self._model, self._component = model, component
        self._kept: OrderedDict[bytes, ImageTokens] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, tiles: Sequence[bytes]) -> list[ImageTokens]:
        """Image tokens of tiles (JPEG files), in their order."""
        keys = [blake2b(tile, digest_size=16).digest() for tile in tiles]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
            self.hits += sum(key in found for key in keys)
        missing = {key: tile for key, tile in zip(keys, tiles, strict=True) if key not in found}
        if missing:
            made = self._model.features(self._component, self._model.prepare(list(missing.values())))
            for key, one in zip(missing, made, strict=True):
                found[key] = one
                self._keep(key, one)
        return [found[key] for key in keys]

    def _keep(self, key: bytes, one: ImageTokens) -> None:
        size = one.rows.nbytes
        if size > self.most_bytes:
            return
        # A copy: rows are a part of what one run of the tower gave for many tiles, which would all stay.
        kept = ImageTokens(one.rows.copy(), one.layout, one.grid)
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = kept
            self.bytes += size
            while self.bytes > self.most_bytes:
                self.bytes -= self._kept.popitem(last=False)[1].rows.nbytes
