"""A gallery that was pushed to PostgreSQL, searched where it lies."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle
from edgegeo.errors import GalleryError, one_line
from edgegeo.geo import Position
from edgegeo.runtime.gallery.exact import exact_search, searchable
from edgegeo.runtime.gallery.gallery import Hits
from edgegeo.runtime.gallery.manifest import GalleryInfo, SegmentEntry
from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.gallery.rows import Origin, Skipped
from edgegeo.runtime.postgres.address import Address, connect
from edgegeo.runtime.postgres.cover import cover
from edgegeo.runtime.postgres.push import FORMAT, read_vector
from edgegeo.schema import SchemaFault, parse

T = TypeVar("T")
NOMINEES = 4
"""Tiles a hit that the index nominates, to be scored again exactly."""
SCANNED = 50_000
"""Tiles of a region that are compared one by one rather than looked up in the index."""
_LEAST_NOMINEES = 100
_MOST_NOMINEES = 1000
"""pgvector's largest hnsw.ef_search."""
_TIES = 64
"""Rows beyond the k best that an exact search reads, where float32 sums of the server are nearly equal."""


class PostgresGallery:
    """One push of a gallery, opened; it stays as it is until the second push after it. Safe for several threads.

    The server nominates rows, by an index or by comparing with all; what it nominates is scored again here as in a
    gallery on disk, so that scores are the same, and equal ones are ordered by row. Without an index the hits are the
    same too; with one they are approximate.
    """

    def __init__(self, address: Address, connection: Any, info: GalleryInfo, table: str, indexed: bool) -> None:
        self.info = info
        self.indexed = indexed
        self._address, self._connection, self._table = address, connection, table
        self._lock = threading.RLock()
        self._positions: NDArray[np.float64] | None = None

    @classmethod
    def open(cls, url: str, bundle: Bundle | None = None) -> "PostgresGallery":
        """GalleryError where there is no such server or gallery, or one made by another bundle."""
        address = Address.parse(url)
        connection = connect(address)
        try:
            info, table, indexed = _read(address, connection)
            _check_bundle(address, info, bundle)
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(address, connection, info, table, indexed)

    def newest(self) -> "PostgresGallery":
        """What was pushed last under this name: this gallery if it is that one, otherwise another one."""
        info, table, indexed = self._with(lambda connection: _read(self._address, connection))
        if table == self._table:
            return self
        if info.embedding_id != self.info.embedding_id:
            raise GalleryError(f"gallery {self} was pushed again from another bundle; open it with that one")
        connection = connect(self._address)
        _prepare(connection)
        return PostgresGallery(self._address, connection, info, table, indexed)

    def __len__(self) -> int:
        return self.info.count

    def __str__(self) -> str:
        return self._address.shown

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self._address.gallery

    @property
    def version(self) -> int:
        """One more with every push."""
        return self.info.version

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Tiles of the source that could not be used."""
        return self.info.skipped

    @property
    def sources(self) -> tuple[Origin, ...]:
        """What it was built from, then what was added."""
        return self.info.sources

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 2) latitude and longitude in degrees; fetched whole when first asked for."""
        if self._positions is None:
            found = self._fetch("SELECT lat, lon FROM {} ORDER BY row")
            self._positions = np.array(found, np.float64).reshape(-1, 2)
        return self._positions

    def search(self, queries: NDArray[np.float32], k: int = 10, within: Region | None = None) -> Hits:
        """The k tiles nearest to each query (Q, dim), ties by row; of those `within` a region, if one is given.

        k is cut to their number. The server looks the region up by boxes; which tiles it holds is decided here.
        """
        queries = searchable(queries, k, self.info.dim, str(self))
        rows = None if within is None else self._within(within)
        k = min(k, len(self) if rows is None else len(rows))
        return _joined([self._best(query, k, rows) if k else () for query in queries], k)

    def id(self, row: int) -> str:
        """Id of a row."""
        return str(self._field("id", row))

    def row(self, id: str) -> int | None:
        """Row of an id; None for an unknown one."""
        if "\0" in id:
            return None
        found = self._fetch("SELECT row FROM {} WHERE id = %s", (id,))
        return int(found[0][0]) if found else None

    def position(self, row: int) -> Position:
        """Where the tile of a row is."""
        found = self._fetch("SELECT lat, lon FROM {} WHERE row = %s", (row,))
        if not found:
            raise IndexError(row)
        return Position(*found[0])

    def vector(self, row: int) -> NDArray[np.float32]:
        """The stored unit vector (dim,) of a row."""
        return read_vector(self._field("vector", row))

    def thumbnail(self, row: int) -> bytes:
        """The tile's thumbnail, a JPEG file."""
        return bytes(self._field("thumb", row))

    def close(self) -> None:
        """End the connection; it ends with the gallery too."""
        self._connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    def _within(self, region: Region) -> list[int]:
        """Rows of the tiles that a region holds."""
        cells = cover(region)
        if not cells:
            return []
        near = " OR ".join("place <@ box(point(%s, %s), point(%s, %s))" for _ in cells)
        corners = [value for cell in cells for value in (cell.west, cell.south, cell.east, cell.north)]
        found = np.array(self._fetch(f"SELECT row, lat, lon FROM {{}} WHERE {near}", tuple(corners)), np.float64)
        found = found.reshape(-1, 3)
        rows: list[int] = np.sort(found[region.holds(found[:, 1:]), 0].astype(np.int64)).tolist()
        return rows

    def _best(self, query: NDArray[np.float32], k: int, rows: list[int] | None) -> Sequence[tuple[Any, ...]]:
        """(row, id, lat, lon, score) of the k best, of all or of some rows."""
        text, dim = "[" + ",".join(map(repr, query.tolist())) + "]", self.info.dim
        columns, chosen = "row, id, lat, lon, vector", "" if rows is None else " WHERE row = ANY(%s)"
        given: tuple[Any, ...] = () if rows is None else (rows,)
        wanted = max(NOMINEES * k, _LEAST_NOMINEES)
        if self.indexed and wanted <= _MOST_NOMINEES and (rows is None or len(rows) > SCANNED):
            order = f"vector::halfvec({dim}) <#> %s::halfvec({dim})"
            found = self._fetch(f"SELECT {columns} FROM {{}}{chosen} ORDER BY {order} LIMIT %s", (*given, text, wanted))
            if len(found) >= k:
                return _rescored(found, query, k)
        # The index is of half-precision vectors: this order is none that it could give.
        order = "vector <#> %s::vector, row"
        found = self._fetch(f"SELECT {columns} FROM {{}}{chosen} ORDER BY {order} LIMIT %s", (*given, text, k + _TIES))
        return _rescored(found, query, k)

    def _field(self, name: str, row: int) -> Any:
        found = self._fetch(f"SELECT {name} FROM {{}} WHERE row = %s", (row,))
        if not found:
            raise IndexError(row)
        return found[0][0]

    def _fetch(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query in which {} stands for the table."""
        sql = query.format(self._table)
        return self._with(lambda connection: list(connection.execute(sql, values, binary=True).fetchall()))

    def _with(self, work: Callable[[Any], T]) -> T:
        """Work with the connection; once more over another one, where the server had closed it meanwhile."""
        import psycopg

        with self._lock:
            try:
                try:
                    return work(self._connection)
                except psycopg.OperationalError:
                    if not self._connection.closed:
                        raise
                    self._connection = connect(self._address)
                    _prepare(self._connection)
                    return work(self._connection)
            except psycopg.errors.UndefinedTable:
                raise GalleryError(
                    f"gallery {self} was pushed again twice since it was opened; open it again"
                ) from None
            except psycopg.Error as error:
                raise GalleryError(f"{self} can't answer ({one_line(error)}); look at the server's log") from None


def _read(address: Address, connection: Any) -> tuple[GalleryInfo, str, bool]:
    """What the server says of a gallery, its table, and whether it has an index."""
    query = "SELECT format, tiles, indexed, info FROM edgegeo.galleries WHERE name = %s"
    known = connection.execute("SELECT to_regclass('edgegeo.galleries')").fetchone()[0] is not None
    row = connection.execute(query, (address.gallery,)).fetchone() if known else None
    if row is None:
        raise GalleryError(f"no gallery at {address.shown}; put one there with: edgegeo index push GALLERY --to URL")
    if row[0] != FORMAT:
        raise GalleryError(f"{address.shown} has format {row[0]}, this edgegeo reads {FORMAT}; push the gallery again")
    try:
        rows = int(row[3].pop("rows"))
        info = parse(GalleryInfo, {**row[3], "segments": [{"name": row[1], "rows": rows, "files": {}}]}, "info")
    except (SchemaFault, KeyError, TypeError, ValueError, AttributeError) as fault:
        raise GalleryError(
            f"what {address.shown} says of itself is damaged ({fault}); push the gallery again"
        ) from None
    assert isinstance(info.segments[0], SegmentEntry)
    return info, row[1], row[2]


def _check_bundle(address: Address, info: GalleryInfo, bundle: Bundle | None) -> None:
    if bundle is not None and bundle.embedding_id != info.embedding_id:
        other = f"bundle '{bundle.manifest.name}'"
        if bundle.manifest.name == info.bundle:
            other = "the one of this name at hand"
        raise GalleryError(
            f"gallery {address.shown} was made with bundle '{info.bundle}', {other} embeds differently; build it with "
            "that bundle and push it again"
        )


def _prepare(connection: Any) -> None:
    connection.execute(f"SET hnsw.ef_search = {_MOST_NOMINEES // 2}")
    connection.execute("SET hnsw.iterative_scan = strict_order")


def _rescored(found: Sequence[tuple[Any, ...]], query: NDArray[np.float32], k: int) -> list[tuple[Any, ...]]:
    """The k best of nominees (row, id, lat, lon, vector) by their exact scores, ties by row."""
    ordered = sorted(found)  # by row: exact_search gives ties to the first
    vectors = np.stack([read_vector(one[4]) for one in ordered])
    at, scores = exact_search(vectors, query[None], k)
    return [(*ordered[i][:4], score) for i, score in zip(at[0].tolist(), scores[0].tolist(), strict=True)]


def _joined(lines: Sequence[Sequence[tuple[Any, ...]]], k: int) -> Hits:
    shape = len(lines), k
    return Hits(
        np.array([[one[0] for one in line] for line in lines], np.int64).reshape(shape),
        tuple(tuple(one[1] for one in line) for line in lines),
        np.array([[one[2:4] for one in line] for line in lines], np.float64).reshape(*shape, 2),
        np.array([[one[4] for one in line] for line in lines], np.float32).reshape(shape),
    )
