"""Embeddings of inputs that come again, found by the content of the input before anything of it is decoded."""

import hashlib
from collections import OrderedDict

from edgegeo.server.inputs import Floats
from edgegeo.server.metrics import Metrics

ENTRY_BYTES = 264
"""What an entry takes beside its numbers: key, array header, links (measured on CPython 3.11)."""


class EmbeddingCache:
    """Unit vectors by content, the least recently used dropped first. For one event loop.

    The key is a SHA-256 of embedding space, kind and content, so bundles never share an entry unless they embed alike.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """`limit` in bytes; 0 keeps nothing."""
        self.limit = limit
        self.bytes = 0
        self._metrics = metrics
        self._vectors: OrderedDict[bytes, Floats] = OrderedDict()
        metrics.watch_cache(lambda: self.bytes)

    def get(self, key: bytes) -> Floats | None:
        """The vector (dim,), read-only; None for an input that is not known."""
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        if self.limit:
            self._metrics.cached(hits=int(vector is not None), misses=int(vector is None))
        return vector

    def put(self, key: bytes, vector: Floats) -> None:
        """Keep a vector (dim,)."""
        size = vector.nbytes + ENTRY_BYTES
        if size > self.limit:
            return
        if key not in self._vectors:
            self.bytes += size
        # A row of a batch would keep the whole batch alive.
        self._vectors[key] = kept = vector.copy()
        kept.flags.writeable = False
        self._vectors.move_to_end(key)
        while self.bytes > self.limit:
            _, oldest = self._vectors.popitem(last=False)
            self.bytes -= oldest.nbytes + ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._vectors)


def content_key(space: str, content: str | bytes) -> bytes:
    """Key of a text (str) or of a picture's file (bytes) in an embedding space."""
    kind, data = (b"text", content.encode()) if isinstance(content, str) else (b"picture", content)
    digest = hashlib.sha256(b"%s %s " % (space.encode(), kind))
    digest.update(data)
    return digest.digest()
