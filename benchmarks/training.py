"""The papers' training choices side by side on one base: which adapter, how many queries, which pooling, temperature.

    python benchmarks/training.py WORK PLACES_CACHE [--checkpoint FOLDER] [--seeds 1] [--only NAME,NAME]

Every row is a command line of `edgegeo train`, run as it stands, then scored in plain torch on 1,000 test places. Rows
that benchmarks/results/training.jsonl holds for the same base and seed are not run again, and a killed run resumes.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.measure import machine
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.train import validate
from edgegeo.train.adapting import weights_hash
from edgegeo.train.data import Drawing, planet_places
from edgegeo.train.gps import NEW_TOKENS
from edgegeo.train.reranker import open_retriever
from edgegeo.train.sources import PlanetSource

RESULTS = Path(__file__).parent / "results"
PLACES, LONG_ANSWERS = 1000, 200
"""Test places; long answers are slow without a cache, so fewer are written."""
FIRST_SEED = 1234
RECALLS = [f"{kind}_recall_at_{k}" for kind in ("text", "photo") for k in (1, 5, 10)]
SHARES = [f"gps_within_{km}_km" for km in (200, 750, 2500)]


@dataclass(frozen=True)
class Experiment:
    """A row of the table: what it is called, and the command that trains it (none: the base as it is)."""

    name: str
    label: str
    command: str
    form: str | None = None
    """Of a GPS adapter's answers."""


GPS = "gps --set lr=5e-4"
SHORT = "--steps 50 --set schedule.warmup=10 --set schedule.validate_every=25"
LORA = f"retriever --method lora {SHORT}"
SLQ = "retriever --method slq --steps 100 --set schedule.warmup=10 --set schedule.validate_every=50"
EXPERIMENTS = (
    Experiment("base", "zero-shot base", ""),
    Experiment("lora", "LoRA, EOS, temperature 0.03", LORA),
    *(Experiment(f"slq-{n}", f"SLQ, {n} queries" if n > 1 else "SLQ, 1 query", f"{SLQ} --set queries={n}")
      for n in (1, 4, 10, 20)),
    Experiment("gps-short", "GPS, answer at once", f"{GPS} --steps 250 --set schedule.validate_every=125", "answer"),
    Experiment("lora-mean", "LoRA, mean pooling", f"{LORA} --set pooling=mean"),
    Experiment("hybrid", "hybrid: 10 queries, LoRA on the tower",
               f"retriever --method hybrid {SHORT} --set queries=10"),
    Experiment("lora-0.02", "LoRA, temperature 0.02", f"{LORA} --set temperature=0.02"),
    Experiment("lora-0.05", "LoRA, temperature 0.05", f"{LORA} --set temperature=0.05"),
    Experiment("lora-learned", "LoRA, temperature learned", f"{LORA} --set learn_temperature=true"),
    Experiment("gps-long", "GPS, description first",
               f"{GPS} --steps 100 --set form=reason --set validation_photos=50 --set schedule.validate_every=100",
               "reason"),
)  # fmt: skip


def main() -> None:
    options = arguments()
    file = RESULTS / "training.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    checkpoint = load_checkpoint(options.checkpoint)
    base = weights_hash(checkpoint)
    chosen = options.only.split(",") if options.only else [one.name for one in EXPERIMENTS]
    if unknown := set(chosen) - {one.name for one in EXPERIMENTS}:
        sys.exit(f"no experiment is called {', '.join(sorted(unknown))}")
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        for one in EXPERIMENTS:
            known = any((row["name"], row["seed"], row["base"]) == (one.name, seed, base) for row in rows)
            if known or one.name not in chosen or (not one.command and seed != FIRST_SEED):
                continue
            row = {"name": one.name, "seed": seed, "base": base, **train(one, seed, options)}
            row |= {"test": score(one, checkpoint, options.work / f"{one.name}-{seed}", options.cache)}
            rows.append(row)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            print(one.label, json.dumps(row["test"]), flush=True)
    (RESULTS / "training.md").write_text(report([row for row in rows if row["base"] == base]), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("work", type=Path, help="folder for adapters and states")
    parser.add_argument("cache", type=Path, help="folder of drawn places (--cache of edgegeo train)")
    parser.add_argument("--checkpoint", type=Path, help="base; the packaged model")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", help="names of experiments, comma-separated")
    return parser.parse_args()


def train(one: Experiment, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run the command, resuming what was killed; the command and what it took."""
    if not one.command:
        return {"command": None, "trainable": 0, "seconds": 0.0, "peak_mb": None, "machine": machine()}
    out = options.work / f"{one.name}-{seed}"
    command = f"edgegeo train {one.command} --batch 128 --seed {seed}"
    places = ["-o", str(out), "--cache", str(options.cache)]
    base = ["--checkpoint", str(options.checkpoint)] if options.checkpoint else []
    again = ["--resume"] if (out.parent / f"{out.name}.run" / "state.json").is_file() else []
    done = subprocess.run(
        [*shlex.split(command), *places, *base, *again, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout)["report"]
    kept = {key: found[key] for key in ("trainable", "seconds", "peak_mb", "best_step", "steps")}
    return {"command": command, **kept, "machine": machine()}


def score(one: Experiment, checkpoint: Checkpoint, folder: Path, cache: Path) -> dict[str, float]:
    """Recall of a retriever, positions of a GPS adapter, both of the base, on test places."""
    seed = checkpoint.settings.planet_seed or 0
    places = planet_places(Drawing(cache, "test", PLACES, checkpoint.image, seed))
    source = PlanetSource(places, checkpoint.image, seed, one.form or "answer")
    retriever = open_retriever(checkpoint, folder if one.command else None)
    learner, found = retriever.learner[0], dict[str, float]()
    if one.form is None:
        found |= validate.retrieval(retriever.embed, learner, source)
    if one.form or not one.command:
        count = LONG_ANSWERS if one.form == "reason" else PLACES
        tokens = NEW_TOKENS[one.form or "answer"]
        found |= {"gps_places": count} | validate.answers(learner, source, count, 1.0, tokens, count)
    return found


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The page: two tables, then every command."""
    lines = [
        "# Training choices, on the packaged base", "",
        f"{PLACES:,} unseen test places, gallery of their tiles, plain torch; steps chosen on validation places.",
        "Time and memory are those of the run itself, validations included; batch 128 everywhere.",
        "The base's own pre-training holds InfoNCE on the retrieval prompts with EOS pooling, and positions.", "",
        "| adapter | runs | trained | minutes | peak memory | text R@1 | R@5 | R@10 | photo R@1 | R@5 | R@10 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *_table(rows, RECALLS), "",
        "| positions | runs | trained | minutes | peak memory | within 200 km | 750 km | 2,500 km | median |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *_table(rows, [*SHARES, "gps_median_km"]), "",
        f"Long answers: the first {LONG_ANSWERS} places. Of several runs: mean ± standard deviation.", "",
    ]  # fmt: skip
    lines += [
        "## Commands",
        "",
        "`python benchmarks/training.py WORK PLACES_CACHE` runs and scores all of them:",
        "",
        "```",
    ]
    lines += [*sorted({row["command"] for row in rows if row["command"]}), "```", ""]
    where = rows[0]["machine"] if rows else {}
    return "\n".join([*lines, ", ".join(f"{key} {value}" for key, value in where.items() if key != "flags"), ""])


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterable[str]:
    for one in EXPERIMENTS:
        runs = [row for row in rows if row["name"] == one.name and names[0] in row["test"]]
        if not runs:
            continue
        peak = [row["peak_mb"] for row in runs if row["peak_mb"]]
        cells = [
            one.label, str(len(runs)), f"{runs[0]['trainable']:,}",
            f"{np.mean([row['seconds'] for row in runs]) / 60:.0f}" if peak else "-",
            f"{max(peak):,.0f} MB" if peak else "-",
        ]  # fmt: skip
        yield "| " + " | ".join([*cells, *(_cell(name, [row["test"][name] for row in runs]) for name in names)]) + " |"


def _cell(name: str, values: Sequence[float]) -> str:
    factor, unit, digits = (1, "km", 0) if name.endswith("median_km") else (100, "%", 1)
    spread = f" ± {factor * np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{factor * np.mean(values):.{digits}f}{spread} {unit}"


if __name__ == "__main__":
    main()
