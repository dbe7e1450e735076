"""A gallery copied into PostgreSQL, whole or not at all: one transaction, in place of what had its name.

edgegeo.galleries              a row a gallery: what made it, its table, and the table it had before
edgegeo.tiles_...              a row a tile: row, id, lat, lon, place (lon, lat), vector, thumb
The table before stays for those who have it open, until the next push.
"""

import dataclasses
import json
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.errors import GalleryBusyError, GalleryError, InputError, one_line
from edgegeo.progress import Progress, silent
from edgegeo.runtime.gallery.gallery import Gallery
from edgegeo.runtime.gallery.segment import Block
from edgegeo.runtime.postgres.address import Address, connect
from edgegeo.schema import to_plain

INDEXES = ("auto", "hnsw", "exact")
INDEX_FROM = 20_000
"""Tiles from which "auto" makes an index: below, comparing with every tile takes a tenth of a second at most."""
FORMAT = 1
_MOST_INDEXED = 4000
"""Length of the vectors that pgvector indexes in half precision."""
_PAGE_BYTES = 7900
_ROWS = 1024
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_CREATE = """
CREATE SCHEMA IF NOT EXISTS edgegeo;
CREATE TABLE IF NOT EXISTS edgegeo.galleries (
    name text PRIMARY KEY, format int NOT NULL, tiles text NOT NULL, before text, indexed bool NOT NULL,
    info jsonb NOT NULL, pushed timestamptz NOT NULL DEFAULT now());
"""


def push_gallery(place: str | Path, url: str, index: str = "auto", progress: Progress = silent) -> int:
    """Copy a gallery to `url`, read it back in part, and return how many tiles it has there.

    index: "hnsw" (approximate, fast), "exact" (none), or "auto" by INDEX_FROM. GalleryBusyError while another push of
    this name goes on; GalleryError for a damaged gallery, or what the server refuses. A push that ends early leaves no
    trace there.
    """
    import psycopg

    if index not in INDEXES:
        raise InputError(f"an index is one of {', '.join(INDEXES)}, not {index!r:.40}")
    address = Address.parse(url)
    gallery = Gallery.open(place, check_hashes=True)
    indexed = index == "hnsw" or (index == "auto" and len(gallery) >= INDEX_FROM and gallery.info.dim <= _MOST_INDEXED)
    if indexed and gallery.info.dim > _MOST_INDEXED:
        raise InputError(f"vectors of {gallery.info.dim} numbers are too long for an index; push with --index exact")
    connection = connect(address, writes=True)
    try:
        with connection.transaction(), connection.cursor() as cursor:
            _push(cursor, address, gallery, indexed, progress)
    except psycopg.Error as error:
        raise GalleryError(
            f"{address.shown} refused the gallery ({one_line(error)}); nothing was changed there"
        ) from None
    finally:
        connection.close()
    return len(gallery)


def _push(cursor: Any, address: Address, gallery: Gallery, indexed: bool, progress: Progress) -> None:
    (free,) = cursor.execute(
        "SELECT pg_try_advisory_xact_lock(hashtext(%s))", (f"edgegeo {address.gallery}",)
    ).fetchone()
    if not free:
        raise GalleryBusyError(f"another push to {address.shown} goes on; try again when it is done")
    cursor.execute(_CREATE)
    table, dim = f"edgegeo.tiles_{secrets.token_hex(6)}", gallery.info.dim
    cursor.execute(
        f"CREATE TABLE {table} (row bigint PRIMARY KEY, id text NOT NULL, lat float8 NOT NULL, lon float8 NOT NULL, "
        f"place point NOT NULL, vector vector({dim}) NOT NULL, thumb bytea NOT NULL) WITH (toast_tuple_target = 128)"
    )
    # Vectors where the scan finds them, thumbnails out of its way.
    storage = "PLAIN" if 4 * dim < _PAGE_BYTES - 300 else "EXTERNAL"
    cursor.execute(f"ALTER TABLE {table} ALTER vector SET STORAGE {storage}, ALTER thumb SET STORAGE EXTERNAL")
    with cursor.copy(f"COPY {table} (row, id, lat, lon, place, vector, thumb) FROM STDIN (FORMAT binary)") as copy:
        copy.write(_SIGNATURE)
        for start, block in _blocks(gallery):
            copy.write(b"".join(_tuples(start, block)))
            progress("push", min(start + _ROWS, len(gallery)), len(gallery))
        copy.write(b"\xff\xff")
    progress("index", 0, 1)
    cursor.execute(f"CREATE UNIQUE INDEX ON {table} (id)")
    cursor.execute(f"CREATE INDEX ON {table} USING gist (place)")
    if indexed:
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        cursor.execute(f"CREATE INDEX ON {table} USING hnsw ((vector::halfvec({dim})) halfvec_ip_ops)")
    cursor.execute(f"ANALYZE {table}")
    progress("index", 1, 1)
    _read_back(cursor, table, gallery)
    _register(cursor, address, gallery, table, indexed)


def _register(cursor: Any, address: Address, gallery: Gallery, table: str, indexed: bool) -> None:
    """Make the table the gallery's, and drop the one that no one should have open any more."""
    query = "SELECT tiles, before, info->>'version' FROM edgegeo.galleries WHERE name = %s FOR UPDATE"
    standing = cursor.execute(query, (address.gallery,)).fetchone()
    version = int(standing[2]) + 1 if standing else 1
    if standing and standing[1]:
        cursor.execute(f"DROP TABLE IF EXISTS {standing[1]}")
    info = dataclasses.replace(gallery.info, version=version, segments=(), deleted=None, absorbed="")
    cursor.execute(
        "INSERT INTO edgegeo.galleries (name, format, tiles, before, indexed, info) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (name) DO UPDATE SET format = excluded.format, tiles = excluded.tiles, before = excluded.before, "
        "indexed = excluded.indexed, info = excluded.info, pushed = now()",
        (
            address.gallery, FORMAT, table, standing[0] if standing else None, indexed,
            json.dumps({**to_plain(info), "rows": len(gallery)}),
        ),
    )  # fmt: skip


def _read_back(cursor: Any, table: str, gallery: Gallery) -> None:
    """GalleryError unless the table has every row, and a few of them exactly as they are here."""
    (count,) = cursor.execute(f"SELECT count(*) FROM {table}").fetchone()
    rows = np.unique(np.linspace(0, len(gallery) - 1, 16).astype(np.int64)).tolist()
    query = f"SELECT row, id, lat, lon, vector, thumb FROM {table} WHERE row = ANY(%s)"
    found = cursor.execute(query, (rows,), binary=True).fetchall()
    for row, id, lat, lon, vector, thumb in found:
        same = id == gallery.id(row) and bytes(thumb) == gallery.thumbnail(row)
        same = same and (lat, lon) == (gallery.position(row).lat, gallery.position(row).lon)
        if not (same and np.array_equal(read_vector(vector), np.asarray(gallery.vector(row), np.float32))):
            raise GalleryError(f"row {row} came back otherwise than it was sent; nothing was changed there")
    if count != len(gallery) or len(found) != len(rows):
        raise GalleryError(f"{count:,} of {len(gallery):,} rows came back; nothing was changed there")


def read_vector(data: bytes) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """A vector as pgvector sends it: two 16-bit numbers, then the values, all big-endian."""
    return np.frombuffer(data, ">f4", offset=4).astype(np.float32)


def _blocks(gallery: Gallery) -> Iterator[tuple[int, Block]]:
    for start in range(0, len(gallery), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(gallery)), dtype=np.int64)
        yield start, gallery.stack.block(gallery.stored(rows))


def _tuples(start: int, block: Block) -> Iterator[bytes]:
    """Rows in the binary form of COPY: the number of fields, then each with its length."""
    vectors = np.ascontiguousarray(block.vectors, ">f4")
    dim = vectors.shape[1]
    for number, (id, (lat, lon), vector, thumb) in enumerate(
        zip(block.ids, block.positions.tolist(), vectors, block.thumbs, strict=True), start
    ):
        yield b"".join((
            struct.pack(">hiqi", 7, 8, number, len(id)), id,
            struct.pack(">ididi2d", 8, lat, 8, lon, 16, lon, lat),
            struct.pack(">ihh", 4 + 4 * dim, dim, 0), vector.tobytes(),
            struct.pack(">i", len(thumb)), thumb,
        ))  # fmt: skip
