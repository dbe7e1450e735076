"""Galleries beside FAISS and USearch: recall against speed, searches held to a place, and opening ten million rows.

    python benchmarks/index_search.py                              everything at 1,000,000 rows, 6 minutes
    python benchmarks/index_search.py --dims 576 --only curves     one part; the others of the results stay
    python benchmarks/index_search.py --rows 50000 --open-rows 200000 --results /tmp/results

Clustered unit vectors in clustered places, seeded (see `vectors` and `places`); one thread for everybody. Recall is
that of the exact ten nearest in float32. Ours is timed through `Gallery.search`, ids and positions included. Writes
benchmarks/results/index_search.json and .md. Needs edgegeo[index], usearch, and 4 GB of memory at 576 dimensions.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from filter_after import FIRST_FETCH, by_place

from edgegeo.measure import machine
from edgegeo.runtime import Gallery
from edgegeo.runtime.gallery.compact import Layout, compact, scanned_bytes
from edgegeo.runtime.gallery.exact import best, products
from edgegeo.runtime.gallery.inverted import INVERTED
from edgegeo.runtime.gallery.manifest import GalleryInfo
from edgegeo.runtime.gallery.segment import Block, write_segment
from edgegeo.runtime.gallery.writing import commit, writing

RESULTS = Path(__file__).parent / "results"
QUERIES, BATCH, K, SINGLES = 256, 64, 10, 60
LATENT = 24
PROBES = (8, 16, 32, 64, 128)
RADII = (5.0, 50.0, 500.0)
OPEN_DIM = 16
PIECE = 1 << 15


def vectors(rows: int, dim: int, seed: int, towards: int) -> Iterator[np.ndarray]:
    """Unit vectors, piece by piece: overlapping clusters of 500 among `towards` rows, in 24 of the dimensions, turned.

    The nearest of a row then lie in many lists of an inverted file, as those of embeddings do; clusters in all
    dimensions lie apart, and a handful of lists finds everything.
    """
    world = np.random.default_rng(9)
    centres = world.standard_normal((max(50, towards // 500), LATENT), np.float32)
    turn = world.standard_normal((LATENT, dim), np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        inner = centres[rng.integers(0, len(centres), count)] + rng.standard_normal((count, LATENT), np.float32)
        piece = inner @ turn + 0.05 * LATENT**0.5 * rng.standard_normal((count, dim), np.float32)
        yield piece / np.linalg.norm(piece, axis=1, keepdims=True)


def places(rows: int, seed: int) -> np.ndarray:
    """Nine of ten points in 400 towns some 30 km across, the towns in six countries, the others all over the sphere."""
    rng = np.random.default_rng(seed)
    even = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, rows))), rng.uniform(-180, 180, rows)], axis=1)
    countries = np.stack([rng.uniform(-50, 60, 6), rng.uniform(-180, 180, 6)], axis=1)
    towns = countries[rng.integers(0, 6, 400)] + rng.normal(0, 3, (400, 2))
    built = towns[rng.integers(0, 400, rows)] + rng.normal(0, 0.15, (rows, 2))
    out = np.where(rng.random((rows, 1)) < 0.9, built, even)
    out[:, 1] = (out[:, 1] + 180) % 360 - 180
    return out


def write_gallery(path: Path, stored: np.ndarray, where: np.ndarray) -> None:
    """A gallery of one segment with these rows and no pictures."""

    def block(start: int, end: int) -> Block:
        names = [b"tile-%d" % row for row in range(start, end)]
        digests = np.zeros((end - start, 32), np.uint8)
        return Block(names, where[start:end], np.asarray(stored[start:end]), [b""] * (end - start), digests)

    with writing(path, create=True):
        entry = write_segment(path, len(stored), block)
        commit(path, GalleryInfo(1, "-", "-", stored.shape[1], stored.dtype.name, (), (), (entry,)), None)


def exact(stored: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The ten nearest rows (Q, 10)."""
    pieces = ((start, products(stored[start : start + PIECE], queries)) for start in range(0, len(stored), PIECE))
    return np.stack([rows[np.argsort(-values)[:K]] for rows, values in best(pieces, len(queries), K)])


def timed(search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Recall, milliseconds of one query (median), queries a second in batches."""
    search(queries[:2])
    found = np.concatenate([search(queries[start : start + BATCH]) for start in range(0, len(queries), BATCH)])
    recall = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)])) / K
    ones = []
    for query in queries[:SINGLES]:
        start = time.perf_counter()
        search(query[None])
        ones.append(time.perf_counter() - start)
    spent = []
    for _ in range(2):
        start = time.perf_counter()
        for at in range(0, len(queries), BATCH):
            search(queries[at : at + BATCH])
        spent.append(time.perf_counter() - start)
    return {"recall": recall, "one_ms": float(np.median(ones)) * 1e3, "qps": len(queries) / min(spent)}


class Lines:
    """The rows of a results table, printed as they come."""

    def __init__(self, dim: int) -> None:
        self.dim, self.rows = dim, list[dict[str, Any]]()

    def add(self, who: str, setting: str, bytes_a_row: float, **facts: float) -> None:
        """One measured setting; `bytes_a_row` of memory that a search needs."""
        share = bytes_a_row / (4 * self.dim)
        self.rows.append({"who": who, "setting": setting, "bytes": bytes_a_row, "share": share, **facts})
        told = "  ".join(f"{name} {value:.4g}" for name, value in facts.items())
        print(f"  {who:34} {setting:34} {bytes_a_row:7.1f} B ({share:.0%})  {told}", flush=True)


def ours(path: Path, lines: Lines, queries: np.ndarray, truth: np.ndarray) -> None:
    """The gallery as it was set when it was built, then along its curve; and its codes alone."""
    gallery = Gallery.open(path)
    (segment,) = gallery.stack.segments
    numbers = np.array([int(id[5:]) for id in segment.ids.all()])
    bytes_a_row, entry = scanned_bytes(gallery.info) / len(gallery), segment.entry
    codes, lists = entry.stages

    def search(rows: np.ndarray) -> np.ndarray:
        return numbers[gallery.search(rows, K).rows]

    built = f"as built: {lists.probes} probes, {lists.candidates} rescored"
    lines.add("edgegeo binary + lists", built, bytes_a_row, **timed(search, queries, truth))
    for probes in PROBES:
        segment.entry = dataclasses.replace(entry, stages=(codes, dataclasses.replace(lists, probes=probes)))
        setting = f"{probes} probes, {lists.candidates} rescored"
        lines.add("edgegeo binary + lists", setting, bytes_a_row, **timed(search, queries, truth))
    segment.entry = dataclasses.replace(entry, stages=(codes,))
    code_bytes = entry.files["codes.npy"].bytes / len(gallery)
    setting = f"every code, {codes.candidates} rescored"
    lines.add("edgegeo binary, scanned", setting, code_bytes, **timed(search, queries, truth))
    segment.entry = entry


def faiss_peers(path: Path, lines: Lines, stored: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> None:
    """FAISS with the same lists and its own refinement in memory, its lists of bytes, and its flat bytes."""
    rows, dim = stored.shape
    (segment,) = Gallery.open(path).stack.segments
    order = np.array([int(id[5:]) for id in segment.ids.all()])
    lists = faiss.read_index(str(segment.folder / INVERTED))
    lists_bytes = segment.entry.files[INVERTED].bytes / rows
    flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    bytes_lists = faiss.IndexIVFScalarQuantizer(
        lists.quantizer, dim, lists.nlist, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    # By its default, the range from least to largest, FAISS's bytes keep 0.97 of the nearest at most.
    for coder in (flat.sq, bytes_lists.sq):
        coder.rangestat, coder.rangestat_arg = faiss.ScalarQuantizer.RS_quantiles, 0.001
    halves = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    sample = np.asarray(stored[:: max(1, rows // 50_000)])
    for index in (flat, bytes_lists):
        index.train(sample)
    for start in range(0, rows, PIECE):
        piece = np.asarray(stored[order[start : start + PIECE]])
        for index in (flat, bytes_lists, halves):
            index.add(piece)
    for name, fine, size in (("SQ8", flat, dim), ("fp16", halves, 2 * dim)):
        refined = faiss.IndexRefine(lists, fine)
        for probes, factor in [(probes, factor) for probes in PROBES for factor in (10, 20)]:
            inner = faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=8)
            how = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
            search = partial(_by_faiss, refined, order, params=how)
            setting = f"{probes} probes, {factor * K} refined"
            lines.add(f"FAISS IVF RaBitQ + {name}", setting, lists_bytes + size, **timed(search, queries, truth))
    for probes in PROBES:
        search = partial(_by_faiss, bytes_lists, order, params=faiss.SearchParametersIVF(nprobe=probes))
        lines.add(
            "FAISS IVF SQ8", f"{probes} probes", dim + 8 + 4 * dim * lists.nlist / rows, **timed(search, queries, truth)
        )
    few = slice(0, BATCH)
    lines.add("FAISS flat SQ8", "every row", dim, **timed(partial(_by_faiss, flat, order), queries[few], truth[few]))


def _by_faiss(index: Any, order: np.ndarray, queries: np.ndarray, params: Any = None) -> np.ndarray:
    found = index.search(queries, K, params=params)[1]
    return np.where(found >= 0, order[found], -1)


def graphs(lines: Lines, stored: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> None:
    """HNSW graphs, of as many rows as were given: they need more than 30 % of float32 at any number."""
    from usearch.index import Index

    rows, dim = stored.shape
    links = 32
    index = Index(ndim=dim, metric="ip", dtype="i8", connectivity=links // 2, expansion_add=128)
    index.add(np.arange(rows), np.asarray(stored), threads=1)
    graph = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, links // 2, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 128
    graph.train(np.asarray(stored))
    graph.add(np.asarray(stored))
    for wide in (32, 64, 128, 256):
        index.expansion_search = wide
        search = lambda some: np.asarray(index.search(some, K, threads=1).keys).reshape(len(some), K)  # noqa: E731
        name, setting = f"USearch HNSW int8, {rows:,} rows", f"expansion {wide}"
        lines.add(name, setting, index.serialized_length / rows, **timed(search, queries, truth))
        search = partial(_by_faiss, graph, np.arange(rows), params=faiss.SearchParametersHNSW(efSearch=wide))
        name, size = f"FAISS HNSW SQ8, {rows:,} rows", len(faiss.serialize_index(graph)) / rows
        lines.add(name, f"expansion {wide}", size, **timed(search, queries, truth))


def opening(folder: Path, rows: int) -> dict[str, Any]:
    """Open a gallery of many rows (float16 of OPEN_DIM) in a process of its own, and look into it."""
    start = time.perf_counter()
    stored = np.concatenate([piece.astype(np.float16) for piece in vectors(rows, OPEN_DIM, 1, rows)])
    write_gallery(folder / "many", stored, places(rows, 2))
    written = time.perf_counter() - start
    code = (
        "import json, sys, time; from pathlib import Path; from edgegeo.runtime import Gallery\n"
        "clock = time.perf_counter; a = clock(); g = Gallery.open(sys.argv[1]); b = clock()\n"
        "row = g.row('tile-%d' % (len(g) // 2)); c = clock(); assert row == len(g) // 2; g.vector(row); d = clock()\n"
        "status = Path('/proc/self/status').read_text().split('VmRSS:')[1].split()[0]\n"
        "print(json.dumps([b - a, c - b, d - c, int(status) / 1024]))"
    )
    words = [sys.executable, "-c", code, str(folder / "many")]
    tries = [json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    opened, lookup, vector, memory = np.median(np.array(tries), axis=0).tolist()
    size = sum(file.stat().st_size for file in (folder / "many").rglob("*") if file.is_file())
    facts = {"rows": rows, "dim": OPEN_DIM, "gallery_mb": size / 2**20, "write_s": written, "open_ms": opened * 1e3}
    facts |= {"id_lookup_ms": lookup * 1e3, "vector_ms": vector * 1e3, "memory_mb": memory}
    print("  " + "  ".join(f"{name} {value:.4g}" for name, value in facts.items()), flush=True)
    return facts


def curves(folder: Path, rows: int, dim: int, only: list[str]) -> dict[str, Any]:
    """Everything about galleries of one dimension."""
    print(f"{rows:,} x {dim}", flush=True)
    stored = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (rows, dim))
    for number, piece in enumerate(vectors(rows, dim, 1, rows)):
        stored[number * PIECE : number * PIECE + len(piece)] = piece
    where, queries = places(rows, 2), next(vectors(QUERIES, dim, 3, rows))
    path = folder / f"gallery-{dim}"
    write_gallery(path, stored, where)
    start = time.perf_counter()
    compact(path, Layout("binary", approximate=True))
    found: dict[str, Any] = {"rows": rows, "dim": dim, "compact_s": time.perf_counter() - start}
    found["date"] = date.today().isoformat()
    if "curves" in only:
        lines, truth = Lines(dim), exact(stored, queries)
        ours(path, lines, queries, truth)
        faiss_peers(path, lines, stored, queries, truth)
        found["curves"] = lines.rows
    if "graphs" in only:
        few = stored[: min(rows, 20_000)]
        lines = Lines(dim)
        graphs(lines, few, queries, exact(few, queries))
        found["graphs"] = lines.rows
    if "places" in only:
        found["places"] = by_place(path, where, queries, RADII)
    return found


def markdown(document: dict[str, Any]) -> str:
    """The results as tables."""
    facts = ", ".join(f"{key} {value}" for key, value in {**document["machine"], **document["versions"]}.items())
    out = ["# Galleries: recall against speed, places, opening", "", f"{document['date']}. One thread. {facts}.", ""]
    out += [
        "Bytes: what a search keeps in memory for each row, and its share of float32. Ours has float16 rows on disk "
        "besides, of which it reads the rescored ones; they stay in the page cache while there is room for them.", "",
    ]  # fmt: skip
    dims = sorted(document["parts"].keys() - {"open"}, key=int)
    for part in (document["parts"][name] for name in dims):
        measured = f" Measured {part['date']}." if "date" in part else ""
        out += [f"## {part['rows']:,} x {part['dim']}", "", f"Compaction: {part['compact_s']:.0f} s.{measured}", ""]
        if lines := [*part.get("curves", []), *part.get("graphs", [])]:
            out += [
                "| index | setting | bytes a row | recall@10 | one query ms | QPS in batches of 64 |",
                "|---|---|--:|--:|--:|--:|",
            ]
        for row in lines:
            size = f"{row['bytes']:.0f} ({row['share']:.0%})"
            numbers = f"{row['recall']:.3f} | {row['one_ms']:.2f} | {row['qps']:,.0f}"
            out.append(f"| {row['who']} | {row['setting']} | {size} | {numbers} |")
        out += ["", *_places(part["places"]), ""] if "places" in part else [""]
    if facts := document["parts"].get("open"):
        dim = facts.get("dim", OPEN_DIM)
        out += ["## Opening", "", f"float16 rows of {dim} numbers, ids and places; no pictures.", ""]
        out += ["| " + " | ".join(facts) + " |", "|---:" * len(facts) + "|"]
        out += ["| " + " | ".join(f"{value:,.4g}" for value in facts.values()) + " |", ""]
    return "\n".join(out)


def _places(rows: list[dict[str, Any]]) -> list[str]:
    out = [
        "Ten hits within R km, medians of 20 towns. Filter after search, until filled: FAISS's lists, probes as the "
        f"gallery's own search takes and more for more rows, fetch {FIRST_FETCH}, and four times as many until ten are "
        "inside (it is told where there are fewer). With ten to spare: until twenty are, of which the best ten are "
        "kept: the codes order only roughly. Count known: only the last fetch, from 64 probes on, 102,400 rows at "
        "most: no caller knows it. Each: ms, share of searches that filled the ten, recall of the exact ten.", "",
        "| R km | rows inside | edgegeo within | mask over all rows | filter after search, until filled | searches | "
        "times edgegeo | with ten to spare | searches | times edgegeo | count known |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in rows:
        cells = []
        for name in ("within", "mask", "grown", "spare", "known"):
            cells.append(f"{row[f'{name}_ms']:.2f}, {row[f'{name}_filled']:.0%}, {row[f'{name}_recall']:.3f}")
            if name in ("grown", "spare"):
                cells += [f"{row[f'{name}_searches']:.1f}", f"{row[f'{name}_ms'] / row['within_ms']:.1f}"]
        out.append(f"| {row['km']:g} | {row['rows_inside']:,.0f} | {' | '.join(cells)} |")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", default="192,576")
    parser.add_argument("--open-rows", type=int, default=10_000_000)
    parser.add_argument("--only", default="curves,graphs,places,open")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, help="where the galleries are written; a temporary folder by default")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy's BLAS reads it once, when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    faiss.omp_set_num_threads(1)
    only, file = options.only.split(","), options.results / "index_search.json"
    parts: dict[str, Any] = json.loads(file.read_text())["parts"] if file.exists() else {}
    for dim in map(int, options.dims.split(",")) if set(only) - {"open"} else ():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            key = str(dim)
            measured = curves(Path(folder), options.rows, dim, only)
            parts[key] = {**(parts.get(key, {}) if parts.get(key, {}).get("rows") == options.rows else {}), **measured}
    if "open" in only:
        print(f"opening {options.open_rows:,} rows", flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            parts["open"] = opening(Path(folder), options.open_rows)
    versions = {name: version(name) for name in ("faiss-cpu", "numkong", "numpy", "usearch")}
    document = {"date": date.today().isoformat(), "machine": machine(), "versions": versions, "parts": parts}
    options.results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")
    file.with_suffix(".md").write_text(markdown(document))
    print(f"wrote {file} and .md")


if __name__ == "__main__":
    main()
