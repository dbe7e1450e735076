"""What a gallery that stands has already: its ids, and the contents of its pictures."""

import numpy as np

from edgegeo.runtime.gallery.gallery import Gallery
from edgegeo.runtime.gallery.rows import DIGEST_BYTES


class Standing:
    """Finds a gallery's tiles by id and by picture."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        digests = [segment.digests.all()[:, DIGEST_BYTES:] for segment in gallery.stack.segments]
        self._digests = np.delete(np.concatenate(digests), gallery.deleted, axis=0)
        # A part of the digest is a number that sorts fast; rows that agree in it are compared whole.
        keys = np.ascontiguousarray(self._digests[:, :8]).view("<u8").ravel()
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def has(self, id: str) -> bool:
        """Whether there is a tile of this id."""
        return self._gallery.row(id) is not None

    def twin(self, content: bytes, place: tuple[float, float] | None) -> str | None:
        """Id of the first tile with this picture, at this latitude and longitude if a place is given."""
        key = np.frombuffer(content[:8], "<u8")[0]
        start, end = (np.searchsorted(self._keys, key, side) for side in ("left", "right"))
        for row in self._order[start:end].tolist():
            here = place is None or tuple(self._gallery.positions[row]) == place
            if here and self._digests[row].tobytes() == content:
                return self._gallery.id(row)
        return None
