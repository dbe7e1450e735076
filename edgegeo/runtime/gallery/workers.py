"""Who opens the tiles of an intake, a few chunks ahead of it: threads of this process, or workers elsewhere."""

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime.gallery.rows import Drawn, Row, Skipped, content
from edgegeo.runtime.image import ImageLimits, open_image
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import Picture, prepare_picture

THUMB_QUALITY = 90


@dataclass(frozen=True)
class Opened:
    """A tile whose picture was read."""

    thumb: bytes
    content: bytes
    picture: Picture | None = None
    """Ready for the vision tower; None where a worker elsewhere had it."""
    vector: NDArray[Any] | None = None
    """The unit vector, where a worker has embedded it already."""


Found = Opened | Skipped | None
"""What came of a tile; None: there is nothing to be seen in it."""


class TileWorkers(Protocol):
    """Opens chunks of tiles, several at a time."""

    window: int
    """Chunks that should be in hand at once."""

    def submit(self, rows: Sequence[Row]) -> Any:
        """Begin with a chunk; the ticket that `result` takes."""

    def result(self, ticket: Any) -> list[Found]:
        """What came of a chunk, in its order; waits for it."""

    def close(self) -> None:
        """End the work, whatever is still in hand."""


class LocalWorkers:
    """Threads of this process: pictures of the next chunk are read while one is embedded."""

    window = 2

    def __init__(self, model: Model) -> None:
        self._spec = model.bundle.manifest.image
        self._pool = ThreadPoolExecutor(model.threads)

    def submit(self, rows: Sequence[Row]) -> "list[Future[Found]]":
        """Begin to open a chunk."""
        return [self._pool.submit(open_tile, row, self._spec) for row in rows]

    def result(self, ticket: "list[Future[Found]]") -> list[Found]:
        """The tiles of a chunk, not embedded yet."""
        return [future.result() for future in ticket]

    def close(self) -> None:
        """End the threads; pictures that none has begun with are left."""
        self._pool.shutdown(cancel_futures=True)


def open_tile(row: Row, spec: ImageSpec) -> Found:
    """Read a tile's picture; only what the gallery needs of it stays in memory."""
    try:
        source = row.image.draw() if isinstance(row.image, Drawn) else row.image
        if source is None:
            return None
        image, digest = open_image(source), content(source)
    except ImageError as error:
        return Skipped(row.id, str(error))
    edge = max(128, min(_seen_edge(spec), 512))
    return Opened(thumbnail(image, edge), digest, prepare_picture(image, spec))


def thumbnail(image: Image.Image, edge: int) -> bytes:
    """A JPEG of the picture with its longest side at most `edge`: what the model would see of it, kept small."""
    scale = min(1.0, edge / max(image.size))
    # A strip keeps both sides large enough to be opened again; the model squeezes it into a square anyway.
    size = [max(ImageLimits.min_side, round(side * scale)) for side in image.size]
    small = image.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = BytesIO()
    small.save(stream, "JPEG", quality=THUMB_QUALITY, subsampling=0)
    return stream.getvalue()


def _seen_edge(spec: ImageSpec) -> int:
    """Side of the square that the model sees of a picture, in pixels."""
    return spec.size if spec.tokens else math.isqrt(spec.max_pixels)
