"""Small pictures, galleries of them, and what a gallery holds, for the tests of galleries."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from edgegeo.runtime import Gallery, Row
from edgegeo.runtime.gallery.region import Circle


class Held(NamedTuple):
    """Everything a gallery gives for its rows, in their order."""

    ids: list[str]
    positions: bytes
    vectors: bytes
    thumbs: list[bytes]


def tile(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def tiles(count: int, first: int = 0) -> list[Row]:
    return [Row(f"tile-{i}", i / 20 - 10, 0.3 * i - 100, tile(i)) for i in range(first, first + count)]


def photo_list(folder: Path, count: int, first: int = 0) -> Path:
    """A CSV of pictures, one of them twice, one of them broken."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,lat,lon,id"]
    for row in tiles(count, first):
        row.image.save(folder / f"{row.id}.png")
        lines.append(f"{row.id}.png,{row.lat},{row.lon},{row.id}")
    lines.insert(5, lines[2] + "-again")
    (folder / "broken.png").write_bytes(b"junk")
    lines.insert(7, "broken.png,1,2,broken")
    (folder / f"list-{first}.csv").write_text("\n".join(lines) + "\n")
    return folder / f"list-{first}.csv"


def held(gallery: Gallery) -> Held:
    rows = range(len(gallery))
    vectors = np.array([gallery.vector(row) for row in rows])
    return Held(
        [gallery.id(row) for row in rows],
        gallery.positions.tobytes(),
        vectors.tobytes(),
        [gallery.thumbnail(row) for row in rows],
    )


def everything(gallery: Gallery) -> list[object]:
    """Every answer that a gallery can give of its files."""
    rows = np.arange(len(gallery))
    vectors = np.array([gallery.vector(row) for row in rows], np.float32)
    hits = gallery.search(vectors[:3], 5)
    near = gallery.search(vectors[:1], 5, within=Circle(0, -100, 5000))
    out: list[object] = [*held(gallery), [gallery.row(gallery.id(row)) for row in rows], hits.ids, near.ids]
    block = gallery.stack.block(gallery.stored(rows))
    for segment in gallery.stack.segments:
        for name in sorted(segment.files):  # those that a small gallery's searches leave alone
            segment.files[name].check()
    return [*out, hits.scores.tobytes(), near.scores.tobytes(), block.digests.tobytes()]
