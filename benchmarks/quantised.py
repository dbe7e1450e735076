"""Every way to quantise, in one table: method, size, latency, and what it costs in accuracy on test places.

    python benchmarks/quantised.py                                    the packaged model; 1,000 test places
    python benchmarks/quantised.py --methods int8,int4                some rows; rows of earlier runs are kept
    python benchmarks/quantised.py --methods "export/pocket.cpu.int3-all.toml,export/pocket.cpu.int2-all.toml<0.5"
    python benchmarks/quantised.py --size smolvlm-256m --image-size 256 --places 40 --methods int8 --scratch /data/tmp

A method is a preset (fp16, int8, int4) or a recipe file, and may have an accuracy budget in points behind it
("int4<1.5": matrices are kept finer as `edgegeo export --max-drop` finds it on validation places). Drops are against
the fp32 graphs, place by place, with paired 95 % bootstrap intervals. A size other than pocket has random weights in a
published configuration: its recall means nothing, so that the table says how much of the fp32 graphs' own result is
left (cosine of the embeddings, share of queries with the same first tile). GPS answers are scored beside it: a budget
looks at Recall@1 alone. Latency: all bundles in turn, one thread, one input.
Writes quantised_{size}.json and .md under benchmarks/results/.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.evaluate import Scene, planet_scenes
from edgegeo.evaluate.bootstrap import interval, paired
from edgegeo.evaluate.gps import locate_scenes
from edgegeo.evaluate.retrieval import Embeddings, embed_scenes, retrieval_hits
from edgegeo.export import export
from edgegeo.export.budget import Budget
from edgegeo.measure import machine, summarize, time_in_turn
from edgegeo.recipe import Recipe, TokenBudget, load_recipe, preset, with_budget
from edgegeo.runtime import Embedder, Generator, Model
from edgegeo.schema import to_plain

RESULTS = Path(__file__).parent / "results"
METHODS = "fp32,fp16,int8,int4,int8<0.5,int4<0.5,int4<1.5"
PAIRS = ("text_to_tile", "photo_to_tile")
REPEATS = 15
NEAR_KM = 750


@dataclass(frozen=True)
class Method:
    """One row."""

    name: str
    recipe: Recipe
    budget: Budget | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="pocket", help="pocket, or a family of benchmarks/true_families.py")
    parser.add_argument("--methods", default=METHODS, help="presets, recipe files, each with <POINTS or without")
    parser.add_argument("--image-size", type=int, help="side of the one square of a picture that the model sees")
    parser.add_argument("--places", type=int, default=1000, help="test places")
    parser.add_argument("--budget-places", type=int, default=1000, help="validation places of a budget")
    parser.add_argument("--scratch", type=Path, default=Path("quantised-scratch"), help="where bundles stay")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    options.output.mkdir(parents=True, exist_ok=True)
    checkpoint = None if options.size == "pocket" else written(options.size, options.scratch)
    scenes = planet_scenes(options.places, "test")
    seen = TokenBudget(options.image_size, 1 if options.image_size else None)
    exact = made(Method("fp32", with_budget(preset("fp32"), seen)), checkpoint, options.size, options.scratch)
    before = answered(exact, scenes, checkpoint is None)
    file = options.output / f"quantised_{options.size}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    facts = {
        "size": options.size, "image_size": options.image_size, "places": options.places,
        "checkpoint": exact.manifest.source["files"],
    }  # fmt: skip
    # Rows of another model or of other places would not stand beside these.
    rows = found.get("rows", []) if {name: found.get(name) for name in facts} == facts else []
    for method in chosen(options.methods, options.budget_places, checkpoint is not None, seen):
        bundle = made(method, checkpoint, options.size, options.scratch)
        row = scored(method, bundle, answered(bundle, scenes, checkpoint is None), before)
        if method.budget is not None:
            row["budget_places"] = options.budget_places
        rows = [one for one in rows if one["method"] != method.name] + [row]
        # What has been measured outlives a run that is stopped.
        file.write_text(json.dumps({**facts, "machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
        print(f"{method.name}: {bundle.bytes / 2**20:.1f} MB", flush=True)
    timed(rows, options.scratch, scenes[0])
    rows.sort(key=lambda one: -one["bytes"])
    found = {**facts, "machine": machine(), "rows": rows}
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(page(found), encoding="utf-8")
    print(page(found))


def chosen(words: str, places: int, foreign: bool, seen: TokenBudget = TokenBudget()) -> list[Method]:
    """The methods that were named. foreign: the model does not know the planet, so that a budget counts agreement."""
    out = []
    for word in filter(None, words.split(",")):
        base, _, points = word.partition("<")
        recipe = load_recipe(base) if base.endswith(".toml") else preset(base)
        name, budget, recipe = recipe.name, None, with_budget(recipe, seen)
        if points:
            name, budget = f"{name}<{points}", Budget(float(points), places, agreement=foreign)
            recipe = replace(recipe, name=f"{recipe.name}-drop{points}")
        out.append(Method(name, recipe, budget))
    return out


def written(size: str, scratch: Path) -> Path:
    """A checkpoint of random weights, written once and in a process of its own, whose memory is then free again."""
    folder = scratch.absolute() / size
    if not any(folder.glob("*.safetensors")):
        code = f"import true_families as t, pathlib as p; t.write_checkpoint({size!r}, p.Path({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    return folder


def made(method: Method, checkpoint: Path | None, size: str, scratch: Path) -> Bundle:
    """The method's bundle; one of an earlier run where its recipe and budget are the same."""
    out = scratch / f"{size}-{method.recipe.name}"
    asked = json.dumps([to_plain(method.recipe), to_plain(method.budget)])
    stamp = out.with_suffix(out.suffix + ".asked")
    if stamp.is_file() and stamp.read_text() == asked and out.is_dir():
        return open_bundle(out)
    started = time.monotonic()
    report = export(checkpoint, method.recipe, out, places=0, budget=method.budget)
    stamp.write_text(asked)
    print(f"exported {report.name} in {time.monotonic() - started:.0f} s", flush=True)
    return open_bundle(out)


@dataclass(frozen=True)
class Answers:
    """What a bundle makes of the test places."""

    embeddings: Embeddings
    near: NDArray[np.float64] | None
    """1 for each GPS answer within `NEAR_KM`; None where it was not asked."""


def answered(bundle: Bundle, scenes: Sequence[Scene], gps: bool) -> Answers:
    """Embeddings one input at a time, since in a batch dynamic int8 lets rows depend on others; and GPS answers."""
    model = Model(bundle)
    embeddings = embed_scenes(Embedder(model), scenes, batch=1)
    run = locate_scenes(Generator(model), scenes) if gps else None
    return Answers(embeddings, None if run is None else (run.distances <= NEAR_KM).astype(np.float64))


def scored(method: Method, bundle: Bundle, now: Answers, exact_one: Answers) -> dict[str, Any]:
    """One row, but for its latency."""
    after, before = now.embeddings, exact_one.embeddings
    hits, exact = retrieval_hits(after), retrieval_hits(before)
    metrics = {}
    for pair in PAIRS:
        name = f"{pair}_recall_at_1"
        metrics[pair] = {
            "recall": vars(interval(hits[name])),
            "change": vars(paired(hits[name], exact[name])),
            "same_first": vars(interval(same_first(pair, after, before))),
        }
    role = bundle.manifest.roles.embed
    assert role is not None
    judged = [bundle.manifest.components[name] for name in dict.fromkeys((role.vision, role.trunk))]
    near = None if now.near is None else (now.near, exact_one.near)
    return {
        "method": method.name, "bundle": bundle.path.name, "bytes": bundle.bytes,
        "embed_bytes": sum(graph_bytes(bundle, part) for part in {role.vision, role.trunk}),
        "finer": sum(len(part.layers) for part in judged),
        "gps": None if near is None else {"share": vars(interval(near[0])), "change": vars(paired(*near))},
        "cosine": {
            name: float(np.mean((getattr(after, name) * getattr(before, name)).sum(axis=1)))
            for name in ("texts", "photos", "tiles")
        },
        "metrics": metrics,
    }  # fmt: skip


def graph_bytes(bundle: Bundle, part: str) -> int:
    """Bytes of a component with its external data."""
    file = bundle.manifest.components[part].file
    sizes = {name: entry.bytes for name, entry in bundle.manifest.files.items()}
    return sizes[file] + sizes.get(f"{file}_data", 0)


def same_first(pair: str, after: Embeddings, before: Embeddings) -> NDArray[np.float64]:
    """1 for each query whose first tile is the one that the fp32 graphs find first."""
    side = "texts" if pair == "text_to_tile" else "photos"
    first = [(getattr(one, side) @ one.tiles.T).argmax(axis=1) for one in (after, before)]
    return (first[0] == first[1]).astype(np.float64)


def timed(rows: Sequence[dict[str, Any]], scratch: Path, scene: Scene) -> None:
    """Add the median milliseconds of every row's bundle, all in turn."""
    jobs = {}
    for row in rows:
        embedder = Embedder(Model(open_bundle(scratch / row["bundle"]), threads=1))
        jobs[row["method"], "text"] = lambda one=embedder: one.texts([scene.text])
        jobs[row["method"], "photo"] = lambda one=embedder: one.images([scene.photo])
    keyed = {str(at): job for at, job in enumerate(jobs.values())}
    took = dict(zip(jobs, time_in_turn(keyed, REPEATS).values(), strict=True))
    for row in rows:
        row["latency_ms"] = {kind: summarize(took[row["method"], kind]).p50_ms for kind in ("text", "photo")}


def page(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    real = found["size"] == "pocket"
    side = found.get("image_size")
    picture = f", of which it sees {side} x {side} px" if side else ""
    told = (
        f"The packaged model on {found['places']:,} test places, which no choice looked at. Drop: points of Recall@1 "
        "less than with fp32 graphs, paired by place, with its 95 % interval."
        if real else
        f"{found['size']} with random weights in its published configuration, on pictures and texts of "
        f"{found['places']:,} places{picture}: not accuracy but fidelity, the share of queries whose first tile is "
        "that of the fp32 graphs. Random weights are pessimistic, since nothing sets their embeddings apart."
    )  # fmt: skip
    measured = "drop, text | drop, photo | drop, GPS < 750 km" if real else "same first tile, text | photo"
    lines = [
        f"# Quantised: {found['size']}", "", told, "",
        f"`python benchmarks/quantised.py --methods NAME,...`, a recipe's name as its file under export/; "
        f"{found['machine']['cpu']}, {found['machine']['cores']} cores, one thread. "
        "Size: the whole bundle, and of it the graphs that embed. A method with < keeps as many matrices finer as its "
        "budget in points asks for (on validation places).", "",
        f"| method | MB | embedding graphs MB | kept finer | text ms | photo ms | {measured} | cosine, text / photo |",
        f"|---{'|---:' * (9 if real else 8)}|",
    ]  # fmt: skip
    for row in found["rows"]:
        parts = [_drop(row["metrics"][pair]) if real else _same(row["metrics"][pair]) for pair in PAIRS]
        if real:
            parts.append(_drop({"change": row["gps"]["change"], "recall": row["gps"]["share"]}))
        lines.append(
            f"| {row['method']} | {row['bytes'] / 2**20:.2f} | {row['embed_bytes'] / 2**20:.2f} | {row['finer']} "
            f"| {row['latency_ms']['text']:.2f} | {row['latency_ms']['photo']:.2f} | {' | '.join(parts)} "
            f"| {row['cosine']['texts']:.4f} / {row['cosine']['photos']:.4f} |"
        )
    budgeted = [against_uniform(row, found["rows"], real) for row in found["rows"] if "<" in row["method"]]
    return "\n".join([*lines, *([""] if budgeted else []), *budgeted]) + "\n"


def against_uniform(row: dict[str, Any], rows: Sequence[dict[str, Any]], real: bool) -> str:
    """Which methods without a budget are no less accurate, and whether one of them is smaller, in a line."""

    def lost(one: dict[str, Any]) -> float:
        metrics = [one["metrics"][pair] for pair in PAIRS]
        return max(-m["change"]["value"] if real else 1 - m["same_first"]["value"] for m in metrics)

    uniform = [one for one in rows if "<" not in one["method"]]
    as_good = sorted((one for one in uniform if lost(one) <= lost(row)), key=lambda one: one["bytes"])
    better = [one["method"] for one in as_good if one["bytes"] < row["bytes"]]
    least = as_good[0] if as_good else None
    nearest = "" if least is None else (
        f"; the smallest that loses no more is {least['method']}, {least['bytes'] / row['bytes']:.2f} times as large"
    )  # fmt: skip
    places = f", searched on {row['budget_places']} places" if "budget_places" in row else ""
    said = (
        f"{', '.join(better)} smaller and no worse" if better else
        f"no method without a budget is smaller and no worse{nearest}"
    )  # fmt: skip
    return f"- {row['method']}{places}, loses {100 * lost(row):.1f} points at most: {said}."


def _drop(metric: dict[str, Any]) -> str:
    change = metric["change"]
    low, value, high = (round(-100 * change[part], 1) + 0.0 for part in ("high", "value", "low"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] of {100 * metric['recall']['value']:.1f} %"


def _same(metric: dict[str, Any]) -> str:
    same = {part: 100 * value for part, value in metric["same_first"].items()}
    return f"{same['value']:.1f} % [{same['low']:.1f}, {same['high']:.1f}]"


if __name__ == "__main__":
    main()
