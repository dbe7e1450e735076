"""edgegeo bench run: measure every cell of a sweep."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegeo.cli.flags import JsonFlag, flag, numbers
from edgegeo.cli.output import emit_json, progress_bar, say, table
from edgegeo.errors import EdgegeoError, InputError

if TYPE_CHECKING:
    from edgegeo.bench.definition import Sweep
    from edgegeo.bench.rows import Row

_THERE = "the sweep's, else "


def _list(name: str, help: str, usual: str) -> Any:
    return flag(name, verb="bench", help=help, show_default=_THERE + usual)


PrecisionFlag = Annotated[str | None, _list("--precision", "Precisions to export.", "fp32,int8,int4")]
MethodFlag = Annotated[str | None, _list("--method", "Retrievers to export: lora, slq.", "the model's own")]
SizesFlag = Annotated[str | None, _list("--image-size", "Sides of a picture, pixels.", "the model's own")]
TilesFlag = Annotated[str | None, _list("--tiles", "Most tiles a picture is split into.", "1: never split")]
PixelsFlag = Annotated[str | None, _list("--max-pixels", "Largest pictures at native resolution.", "the model's own")]
CheckpointFlag = Annotated[str | None, _list("--checkpoint", "Model, as export takes it.", "the packaged one")]
JobsFlag = Annotated[
    str | None,
    _list("--jobs", "Of embed_text, embed_image, search, rerank, generate, locate.", "the first three and generate"),
]
BatchFlag = Annotated[str | None, _list("--batch", "Batch sizes.", "1,8,32")]
ThreadsFlag = Annotated[str | None, _list("--threads", "Processor threads.", "the runtime's own choice")]
ProviderFlag = Annotated[str | None, _list("--provider", "cpu, cuda, tensorrt.", "cpu")]
DimsFlag = Annotated[str | None, _list("--dims", "Dimensions of an embedding that are kept; 0: all.", "all")]
RerankFlag = Annotated[str | None, _list("--rerank", "Re-rank depths of rerank and locate.", "10")]
CandidatesFlag = Annotated[str | None, _list("--candidates", "Answers that generate and locate fuse.", "1")]
PowerFlag = Annotated[str | None, _list("--power-mode", "nvpmodel's modes to set in turn (root).", "left as it is")]
SweepFlag = Annotated[
    Path | None, flag("--sweep", verb="bench", help="TOML file that says it all; see benchmarks/sweeps/.")
]


def _number(name: str, help: str, usual: object, least: float = 0) -> Any:
    return flag(name, verb="bench", help=help, show_default=f"{_THERE}{usual}", min=least)


PlacesFlag = Annotated[int | None, _number("--places", "Unseen places: the gallery, and what is scored.", 1000, 1)]
RoundsFlag = Annotated[int | None, _number("--rounds", "Processes each cell is measured in.", 2, 1)]
TargetFlag = Annotated[float | None, _number("--target", "95 % interval of the median that suffices, half.", 0.02)]
SecondsFlag = Annotated[float | None, _number("--seconds", "Longest counted time of a round.", 0.75)]
WarmupFlag = Annotated[int | None, _number("--warmup", "Runs of a process before the counted ones.", 2)]
SeedFlag = Annotated[int | None, _number("--seed", "Order of the cells.", 0)]


def command(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="Bundles to measure.", show_default="the packaged model, exported as asked"),
    ] = None,
    sweep: SweepFlag = None,
    precision: PrecisionFlag = None,
    method: MethodFlag = None,
    image_size: SizesFlag = None,
    tiles: TilesFlag = None,
    max_pixels: PixelsFlag = None,
    checkpoint: CheckpointFlag = None,
    jobs: JobsFlag = None,
    batch: BatchFlag = None,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = None,
    dims: DimsFlag = None,
    rerank: RerankFlag = None,
    candidates: CandidatesFlag = None,
    power_mode: PowerFlag = None,
    places: PlacesFlag = None,
    rounds: RoundsFlag = None,
    target: TargetFlag = None,
    seconds: SecondsFlag = None,
    warmup: WarmupFlag = None,
    seed: SeedFlag = None,
    output: Annotated[Path, flag("--output", "-o", verb="bench", help="Folder of the results.")] = Path(
        "bench-results"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Measure every combination in processes of their own; run it again to go on where it stopped.

    Writes results.jsonl, results.md and results.html.
    """
    from edgegeo.bench.definition import Sweep, load_sweep
    from edgegeo.bench.sweep import run_sweep
    from edgegeo.cli.bench.subjects import open_subjects

    asked = load_sweep(sweep) if sweep else Sweep()
    models = {"bundles": tuple(bundles) if bundles else None, "checkpoint": checkpoint}
    words = {"precision": precision, "method": method, "jobs": jobs, "provider": provider}
    counts = {
        "image_size": image_size, "tiles": tiles, "max_pixels": max_pixels, "batch": batch, "threads": threads,
        "dims": dims, "rerank": rerank, "candidates": candidates, "power_mode": power_mode,
    }  # fmt: skip
    measuring = {
        "places": places, "rounds": rounds, "target": target, "seconds": seconds, "warmup": warmup, "seed": seed,
    }  # fmt: skip
    lists: dict[str, Any] = {name: _words(text, name) for name, text in words.items()}
    lists |= {name: numbers(text, _flag_of(name)) if text else None for name, text in counts.items()}
    wanted = _overruled(asked, models | lists | measuring)
    with progress_bar() as progress:
        rows = run_sweep(open_subjects(wanted.models, progress), wanted, output, progress)
    _report(rows, wanted, output, as_json)


def _flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(text: str | None, name: str) -> tuple[str, ...] | None:
    from edgegeo.bench.definition import JOBS, PROVIDERS
    from edgegeo.cli.flags import choices
    from edgegeo.recipe import PRECISIONS

    if not text:
        return None
    known = {"precision": PRECISIONS, "jobs": tuple(JOBS), "provider": PROVIDERS}.get(name)
    if known is None:  # methods are the checkpoint's, which says itself what it lacks
        known = tuple(word.strip() for word in text.split(",") if word.strip())
    return choices(text, known, _flag_of(name))


def _overruled(sweep: "Sweep", given: dict[str, Any]) -> "Sweep":
    """The sweep with what flags say instead; a bundle that is named replaces everything that says what to export."""
    from edgegeo.bench.definition import Models

    told = {name: value for name, value in given.items() if value is not None}
    if "bundles" in told and "precision" in told:
        raise InputError("--precision says what to export; leave it out with bundles, which are measured as they are")
    models = Models() if "bundles" in told else sweep.models

    def part(table: Any) -> Any:
        return replace(table, **{name: value for name, value in told.items() if hasattr(table, name)})

    return replace(sweep, models=part(models), cells=part(sweep.cells), measure=part(sweep.measure))


def _report(rows: "list[Row]", sweep: "Sweep", output: Path, as_json: bool) -> None:
    """Write the reports, print the rows, and end in an error if a cell failed."""
    from edgegeo.bench.ledger import NAME
    from edgegeo.bench.report import write_reports
    from edgegeo.bench.rows import describe

    files = write_reports(rows, output, about=sweep.about)
    if as_json:
        emit_json({"rows": rows, "files": {**files, "jsonl": output / NAME}})
    else:
        print_rows(rows)
        say(f"{len(rows)} cells; {output / NAME}, {', '.join(file.name for file in files.values())}")
    failed = [row for row in rows if "error" in row]
    if failed:
        raise EdgegeoError(
            f"{len(failed)} of {len(rows)} cells failed, the first ({describe(failed[0])}): {failed[0]['error']}; "
            "run the same command again to retry them"
        )


def print_rows(rows: "list[Row]") -> None:
    """The table of rows for a terminal, and the token budget where several were measured."""
    from edgegeo.bench import budget
    from edgegeo.bench.columns import share
    from edgegeo.bench.rows import describe

    headers = ("cell", "p50 ms", "p90 ms", "items/s", "peak MB", "cold start ms", "accuracy %")
    lines = []
    for row in rows:
        if "error" in row:
            lines.append((describe(row), "failed", *[""] * (len(headers) - 2)))
            continue
        latency = row["latency_ms"]
        lines.append((
            describe(row), f"{latency['p50']:.2f}", f"{latency['p90']:.2f}", f"{row['throughput_per_s']:.1f}",
            f"{row['memory_mb']['peak']:.0f}", f"{row['cold_start_ms']:.0f}", share(row),
        ))  # fmt: skip
    table(headers, lines)
    if budget.compares_budgets(rows):
        say("")
        table(budget.HEADERS, budget.budget_table(rows))
