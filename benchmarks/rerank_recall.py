"""Does re-ranking move the right tile up? Weighed on validation places, reported on test places.

    python benchmarks/rerank_recall.py [BUNDLE] [--fit-places 600] [--places 1000]

For texts and photos: Recall@1 of the search and of the re-ranked top 10 and 20, with the paired bootstrap interval of
the difference; yes/no alone; the weighing that the bundle itself was published with; how many candidates an early stop
leaves unseen; and how often a first tile that is called sure is right, with its place in the gallery and without.
Writes benchmarks/results/rerank_recall.json and .md.
"""

import argparse
import json
import os
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.evaluate import planet_scenes
from edgegeo.evaluate.bootstrap import interval, paired
from edgegeo.evaluate.rerank import Looked, look
from edgegeo.evaluate.retrieval import embed_scenes
from edgegeo.evaluate.weighing import fit_weighing
from edgegeo.home import find_bundle
from edgegeo.measure import machine
from edgegeo.planet import DEFAULT_SEED
from edgegeo.runtime import Embedder, Model, Reranker
from edgegeo.runtime.doubt import open_fit
from edgegeo.runtime.weighing import QUERIES, Weighing, doubts, rank

RESULTS = Path(__file__).parent / "results"
DEEPEST = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", help="folder, or a name under the data home; default: the packaged one")
    parser.add_argument("--fit-places", type=int, default=600)
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--both-orders", action="store_true", help="read each pair twice; three times as long")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    model = Model.open(find_bundle(options.bundle))
    known = collect(model, "validation", options.fit_places, options.both_orders)
    unseen = collect(model, "test", options.places, options.both_orders)
    rows = []
    for query in QUERIES:
        for k in (10, DEEPEST):
            rows.append(row_of(query, k, first(known[query], k), first(unseen[query], k), published(model, query)))
            print(json.dumps({name: rows[-1][name] for name in ("query", "k", "weighing", "change")}), flush=True)
    facts = {
        "bundle": model.bundle.manifest.name, "fingerprint": model.bundle.fingerprint[:12],
        "fit places": options.fit_places, "test places": options.places, "both orders": options.both_orders,
    }  # fmt: skip
    write(options.output, rows, facts)


def collect(model: Model, split: str, places: int, both_orders: bool) -> dict[str, Looked]:
    """The DEEPEST best tiles of every text and photo, looked at."""
    scenes = planet_scenes(places, split, model.bundle.manifest.source.get("planet_seed") or DEFAULT_SEED)
    embedded = embed_scenes(Embedder(model), scenes)
    reranker = Reranker(model)
    return {query: look(reranker, embedded, scenes, query, DEEPEST, both_orders=both_orders) for query in QUERIES}


def first(looked: Looked, k: int) -> Looked:
    """The first k candidates of each list."""
    return Looked(looked.scores[:, :k], looked.margins[:, :k], looked.right[:, :k])


def published(model: Model, query: str) -> Weighing | None:
    """What the bundle itself says."""
    fit = open_fit(model.bundle)
    return None if fit is None else fit.rerank.get(query)


def row_of(query: str, k: int, known: Looked, unseen: Looked, own: Weighing | None) -> dict[str, Any]:
    """Everything about one kind of query and one depth."""
    weighed = fit_weighing(known)
    weighing = weighed.weighing
    values = weighing.fused(unseen.scores, unseen.margins)
    before, after = unseen.first(unseen.scores), unseen.first(values)
    row: dict[str, Any] = {
        "query": query, "k": k, "weighing": asdict(weighing),
        "validation": {"lists": weighed.lists, "before": weighed.before, "after": weighed.after},
        "recall_at_k": float(unseen.right.any(axis=1).mean()),
        "search": asdict(interval(before)), "reranked": asdict(interval(after)),
        "change": asdict(paired(after, before)),
        "yes_no_alone": asdict(interval(unseen.first(unseen.margins))), "auc": auc(unseen),
        "looked_at": {str(top): looked_at(unseen, weighing, top) for top in (1, 5, k)}, "sure": sure(unseen, weighing),
    }  # fmt: skip
    if own is not None:
        found = unseen.first(own.fused(unseen.scores, unseen.margins))
        row["published"] = {"weighing": asdict(own), "reranked": asdict(interval(found)),
                            "change": asdict(paired(found, before))}  # fmt: skip
    return row


def auc(looked: Looked) -> float:
    """Mean share of the wrong candidates of a list whose log-odds are below those of the right one."""
    there = looked.right.any(axis=1)
    right = looked.margins[there][np.arange(there.sum()), looked.right[there].argmax(axis=1)][:, None]
    wrong = ~looked.right[there]
    below = (looked.margins[there] < right) + 0.5 * ((looked.margins[there] == right) & wrong)
    return float((below * wrong).sum() / wrong.sum())


def looked_at(looked: Looked, weighing: Weighing, top: int) -> float:
    """Mean candidates that an early stop looks at for the first `top`; ends the run if their order is another one."""
    seen = 0
    for scores, margins in zip(looked.scores, looked.margins, strict=True):
        found = rank(scores, weighing, lambda places, m=margins: m[list(places)], top)
        full = np.argsort(-weighing.fused(scores, margins), kind="stable")
        if not np.array_equal(found.order[:top], full[:top]):
            raise SystemExit("an early stop changed the order")
        seen += int((~np.isnan(found.margins)).sum())
    return seen / len(looked.scores)


def sure(looked: Looked, weighing: Weighing) -> dict[str, float]:
    """Share of lists whose first tile is called sure, and the share of those that are right; own tile there and not."""
    out = {}
    for name, without in (("present", False), ("absent", True)):
        gone = looked.right & without
        values = np.where(gone, -np.inf, weighing.fused(looked.scores, looked.margins))
        order = np.argsort(-values, axis=1, kind="stable")
        scores, margins, ordered, right = (
            np.take_along_axis(one, order, 1) for one in (looked.scores, looked.margins, values, looked.right)
        )
        margins = margins if weighing.weight else np.full(margins.shape, np.nan)
        assert weighing.sure is not None
        called = weighing.sure(doubts(scores, margins, ordered)) > 0
        out[f"{name}_called"] = float(called.mean())
        if not without:
            out["right_of_called"] = float(right[called, 0].mean()) if called.any() else float("nan")
    return out


def write(folder: Path, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Both files."""
    document = {"date": date.today().isoformat(), "machine": machine(), "settings": facts, "rows": rows}
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(document, indent=1) + "\n", "md": page(document)}
    for suffix, text in texts.items():
        draft = folder / f".rerank_recall.{suffix}.part"
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, folder / f"rerank_recall.{suffix}")
    print(f"wrote {folder / 'rerank_recall'}.json and .md")


def page(document: dict[str, Any]) -> str:
    """The tables."""

    def share(metric: dict[str, float]) -> str:
        return f"{100 * metric['value']:.1f} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"

    facts = {**document["settings"], **document["machine"], "date": document["date"]}
    lines = ["# Recall@1 with and without re-ranking", "", ", ".join(f"{k} {v}" for k, v in facts.items()), ""]
    lines += [
        "Percent of test places whose own tile comes first, with 95 % bootstrap intervals; the change is paired. "
        "Temperature and weight are those under which the right tile of validation lists is most likely; a weight of 0 "
        "says that the second look made lists that were held out no more likely.",
        "",
        "| query | top | search | re-ranked | change | yes/no alone | AUC of it | weight | looked at for 1 / 5 / all |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in document["rows"]:
        seen = " / ".join(f"{number:.1f}" for number in row["looked_at"].values())
        lines.append(
            f"| {row['query']} | {row['k']} | {share(row['search'])} | {share(row['reranked'])} "
            f"| {share(row['change'])} | {share(row['yes_no_alone'])} | {row['auc']:.3f} "
            f"| {row['weighing']['weight']:.3f} | {seen} |"
        )
    lines += ["", "As the published bundle weighs:", ""]
    lines += ["| query | top | re-ranked | change | weight |", "|---|---:|---:|---:|---:|"]
    for row in document["rows"]:
        if own := row.get("published"):
            lines.append(
                f"| {row['query']} | {row['k']} | {share(own['reranked'])} | {share(own['change'])} "
                f"| {own['weighing']['weight']:.3f} |"
            )
    lines += ["", "First tiles called sure (share of all), and right (share of those):", ""]
    for row in document["rows"]:
        told = row["sure"]
        lines.append(
            f"- {row['query']}, top {row['k']}: {100 * told['present_called']:.0f} % with the own tile in the gallery, "
            f"{100 * told['right_of_called']:.0f} % of them right; {100 * told['absent_called']:.0f} % without it"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
