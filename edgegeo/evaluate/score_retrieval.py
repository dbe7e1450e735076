"""A retrieval set scored by its own protocols: Recall@k both ways, average precision, kilometres of the first item."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgegeo.datasets import Item, RetrievalProtocol, RetrievalSet
from edgegeo.errors import InputError, VerificationError
from edgegeo.evaluate.ranking import Ranks, Task, Vectors, rank
from edgegeo.evaluate.section import Outcome, Result, Section, Unusable
from edgegeo.evaluate.stream import stream
from edgegeo.evaluate.subject import Subject
from edgegeo.progress import Progress, silent

Joint = Literal["refuse", "text", "image", "mean"]
JOINTS: tuple[Joint, ...] = ("refuse", "text", "image", "mean")
"""What is embedded of an item that has both a text and a picture; "mean" is the unit vector of the sum (the score
fusion of UniIR, arXiv 2311.17136)."""
_TEXTS = 512


@dataclass
class _Side:
    """Queries or gallery, embedded."""

    items: Sequence[Item]
    vectors: Vectors
    """(N, dim); rows of items with a fault are 0."""
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def read(self) -> NDArray[np.bool_]:
        """(N,) which items were embedded."""
        out = np.ones(len(self.items), bool)
        out[list(self.faults)] = False
        return out


def score_retrieval(
    subject: Subject, data: RetrievalSet, chosen: NDArray[np.int64] | None = None, joint: Joint = "refuse",
    threads: int | None = None, progress: Progress = silent,
) -> Result:  # fmt: skip
    """Embed queries and gallery once and score every protocol of the set, in both directions where it has two.

    chosen: rows of the queries to score, None for all; the gallery stays whole, and the other direction, whose
    gallery the queries are, is left out. Items that can't be embedded (damaged picture, text too long) are counted,
    named, and miss. InputError for a protocol that needs positions the set lacks, and for items with both text and
    picture under joint "refuse"; VerificationError for embeddings that are no unit vectors.
    """
    subject.check("embed")
    _check_positions(data)
    _check_joint((*data.queries, *data.gallery), joint)
    rows = np.arange(len(data.queries)) if chosen is None else chosen
    queries = _embedded(subject, [data.queries[row] for row in rows], "queries", joint, threads, progress)
    gallery = _embedded(subject, data.gallery, "gallery", joint, threads, progress)
    sections = []
    for protocol in data.protocols:
        sections.append(_section(data, protocol, queries, gallery, rows, progress))
        if protocol.both_ways and chosen is None:
            back = np.arange(len(data.gallery))
            there, again = sections[-1], _section(data.reversed(), protocol, gallery, queries, back, progress)
            alike = again.direction == there.direction  # photo to tile, and tile to photo
            sections.append(replace(again, direction=f"{again.direction}, exchanged") if alike else again)
    about = subject.about("embed")
    return Result(subject.name, subject.kind, about, tuple(sections), tuple(_unusable(queries, gallery)))


def _section(
    data: RetrievalSet, protocol: RetrievalProtocol, queries: _Side, gallery: _Side, rows: NDArray[np.int64],
    progress: Progress,
) -> Section:  # fmt: skip
    far = bool(protocol.within_km or protocol.mean_km)
    task = Task(
        hits=lambda row: data.positives(queries.items[row], protocol.hit),
        pool=lambda row: data.pool(int(rows[row]), protocol),
        truth=_positions(queries.items) if far else None,
        positions=data.positions if far else None,
        precision=protocol.average_precision,
    )
    ranks = rank(queries.vectors, gallery.vectors, (queries.read, gallery.read), task, _of(protocol, progress))
    direction = f"{_kind(queries.items)} to {_kind(gallery.items)}"
    facts: dict[str, Any] = {"unread_queries": len(queries.faults), "unread_gallery": len(gallery.faults)}
    facts["queries_without_a_hit_to_find"] = int((ranks.hits == 0).sum())
    if protocol.pool != "all":
        facts["ranked_among"] = {"least": int(ranks.ranked.min()), "most": int(ranks.ranked.max())}
    return Section(
        protocol.name,
        direction,
        protocol.source,
        len(queries.items),
        len(gallery.items),
        tuple(_outcomes(protocol, ranks)),
        tuple(item.group for item in queries.items),
        facts,
        _columns(queries, gallery, ranks),
    )


def _of(protocol: RetrievalProtocol, progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{stage}: {protocol.name}", done, total)


def _outcomes(protocol: RetrievalProtocol, ranks: Ranks) -> Iterator[Outcome]:
    for k in protocol.ks:
        yield Outcome(f"recall_at_{k}", "share", (ranks.first <= k).astype(np.float64))
    if protocol.average_precision:
        yield Outcome("average_precision", "share", ranks.precision)
    for km in protocol.within_km:  # L@50 and so on: metres, as CVG-Text writes them
        with np.errstate(invalid="ignore"):
            yield Outcome(f"l_at_{1000 * km:g}_m", "share", (ranks.km <= km).astype(np.float64))
    if protocol.mean_km:
        yield Outcome("mean_km", "km", ranks.km)


def _columns(queries: _Side, gallery: _Side, ranks: Ranks) -> dict[str, Sequence[Any]]:
    found = [gallery.items[row].id if row >= 0 else "" for row in ranks.top]
    return {
        "query": [item.id for item in queries.items],
        "group": [item.group for item in queries.items],
        "text": [item.text or "" for item in queries.items],
        "picture": [str(item.image) if item.image else "" for item in queries.items],
        "rank_of_first_hit": [int(one) if np.isfinite(one) else "" for one in ranks.first],
        "ranked_among": ranks.ranked.tolist(),
        "hits": ranks.hits.tolist(),
        "first_item": found,
        "first_item_group": [gallery.items[row].group if row >= 0 else "" for row in ranks.top],
        "first_item_km": [float(one) if np.isfinite(one) else "" for one in ranks.km],
        "unusable": [queries.faults.get(row, "") for row in range(len(queries.items))],
    }


def _embedded(
    subject: Subject, items: Sequence[Item], what: str, joint: Joint, threads: int | None, progress: Progress
) -> _Side:
    side = _Side(items, np.zeros((len(items), 1), np.float32))
    words = [
        row for row, item in enumerate(items) if item.text is not None and (item.image is None or joint != "image")
    ]
    views = [row for row, item in enumerate(items) if item.image is not None and (item.text is None or joint != "text")]
    _embed_texts(subject, side, words, what, progress)
    _embed_pictures(subject, side, views, what, threads, progress)
    twice = sorted(set(words) & set(views) - set(side.faults))
    if twice:  # sums of two unit vectors
        side.vectors[twice] /= np.maximum(np.linalg.norm(side.vectors[twice], axis=1, keepdims=True), 1e-12)
    return side


def _embed_texts(subject: Subject, side: _Side, rows: list[int], what: str, progress: Progress) -> None:
    for start in range(0, len(rows), _TEXTS):
        part = rows[start : start + _TEXTS]
        texts = [str(side.items[row].text) for row in part]
        faults = [subject.fault(text) for text in texts]
        side.faults |= {row: fault for row, fault in zip(part, faults, strict=True) if fault}
        good = [i for i, fault in enumerate(faults) if not fault]
        if good:
            _add(subject, side, [part[i] for i in good], subject.texts([texts[i] for i in good]))
        progress(f"embed the texts of the {what}", start + len(part), len(rows))


def _embed_pictures(
    subject: Subject, side: _Side, rows: list[int], what: str, threads: int | None, progress: Progress
) -> None:
    pictures = [picture for row in rows if (picture := side.items[row].image) is not None]
    done = 0
    for batch in stream(pictures, subject.prepare, subject.batch, threads):
        side.faults |= {rows[row]: why for row, why in batch.faults.items()}
        if batch.rows:
            _add(subject, side, [rows[row] for row in batch.rows], subject.images(batch.prepared))
        done += batch.size
        progress(f"embed the pictures of the {what}", done, len(rows))


def _add(subject: Subject, side: _Side, rows: list[int], vectors: Vectors) -> None:
    """Put vectors in their rows; VerificationError unless all are unit vectors: NaN would rank as anything."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = ~(np.abs(lengths - 1) < 1e-2)
    if bad.any():
        item = side.items[rows[int(bad.argmax())]]
        raise VerificationError(
            f"{subject.name} gave {int(bad.sum())} embeddings that are no unit vectors (length "
            f"{lengths[bad.argmax()]:.3g}), the first for {item.id}; its weights or its export are damaged"
        )
    if side.vectors.shape[1] != vectors.shape[1]:
        side.vectors = np.zeros((len(side.items), vectors.shape[1]), np.float32)
    side.vectors[rows] += vectors


def _check_positions(data: RetrievalSet) -> None:
    for protocol in data.protocols:
        if protocol.pool != "nearest" and not protocol.within_km and not protocol.mean_km:
            continue
        for side, items in (("queries", data.queries), ("gallery items", data.gallery)):
            lacking = [item.id for item in items if item.position is None]
            if lacking:
                raise InputError(
                    f"{data.report.dataset} lacks the position of {len(lacking):,} of {len(items):,} {side}, for "
                    f"instance {lacking[0]}, and '{protocol.name}' needs them all"
                )


def _check_joint(items: Sequence[Item], joint: Joint) -> None:
    if joint not in JOINTS:
        raise InputError(f"items with text and picture: one of {', '.join(JOINTS)}, not {joint!r:.40}")
    both = [item.id for item in items if item.text is not None and item.image is not None]
    if both and joint == "refuse":
        raise InputError(
            f"{len(both):,} items have a text and a picture, for instance {both[0]}, and the model embeds one of them "
            "at a time; choose with --joint text, image, or mean"
        )


def _positions(items: Sequence[Item]) -> NDArray[np.float64]:
    rows = [(item.position.lat, item.position.lon) if item.position else (np.nan, np.nan) for item in items]
    return np.array(rows, np.float64).reshape(-1, 2)


def _kind(items: Sequence[Item]) -> str:
    """What the items are: text, image, or both."""
    kinds = {" + ".join(k for k, v in (("text", i.text), ("image", i.image)) if v is not None) for i in items}
    return " or ".join(sorted(kinds)) or "nothing"


def _unusable(queries: _Side, gallery: _Side) -> Iterator[Unusable]:
    for name, side in (("query", queries), ("gallery", gallery)):
        for row, why in sorted(side.faults.items()):
            yield Unusable(side.items[row].id, name, why)
