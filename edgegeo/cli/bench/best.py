"""edgegeo bench best: the setting to deploy within limits, its recipe and its commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegeo.cli.bench.amounts import joules, megabytes, milliseconds, share
from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, note, say
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.bench.choice import Choice


def _limit(*names: str, help: str) -> Any:
    return flag(*names, verb="bench_best", help=help, show_default="no limit")


LatencyFlag = Annotated[str | None, _limit("--max-latency", help="p90 of a call: 200ms, 1.5s.")]
MemoryFlag = Annotated[
    str | None,
    _limit("--max-memory", help="Peak, of process and device: 2GB (2**30 bytes), 900MB."),
]
EnergyFlag = Annotated[str | None, _limit("--max-energy", help="Energy an item: 2J, 150mJ.")]
AccuracyFlag = Annotated[str | None, _limit("--min-accuracy", "--min-recall", help="Of the job's metric: 80%, 0.8.")]
ThroughputFlag = Annotated[
    float, flag("--min-throughput", verb="bench_best", help="Items a second; the most of them then wins.", min=0)
]


def command(
    results: Annotated[Path, typer.Argument(help="Folder of the results, or its results.jsonl.", show_default=False)],
    max_latency: LatencyFlag = None,
    max_memory: MemoryFlag = None,
    max_energy: EnergyFlag = None,
    min_accuracy: AccuracyFlag = None,
    min_throughput: ThroughputFlag = 0.0,
    job: Annotated[
        str | None,
        flag("--job", verb="bench_best", help="Job that decides.", show_default="locate, else generate, else ..."),
    ] = None,
    output: Annotated[
        Path | None,
        flag("--output", "-o", verb="bench_best", help="Recipe to write.", show_default="best.toml by the results"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Name the setting to deploy, write its recipe, and say the commands.

    Of the settings within the limits that are as accurate as the best of them, as far as the places tell, the fastest.
    """
    from edgegeo.bench.choice import Wanted, choose, commands
    from edgegeo.bench.definition import JOBS
    from edgegeo.bench.ledger import read_lines
    from edgegeo.bench.machine import same_machine
    from edgegeo.bench.rows import describe, newest_rows

    if job is not None and job not in JOBS:
        raise InputError(f"--job takes one of {', '.join(JOBS)}, not {job!r:.40}")
    limits = {
        "max_latency_ms": milliseconds(max_latency, "--max-latency") if max_latency else None,
        "max_memory_mb": megabytes(max_memory, "--max-memory") if max_memory else None,
        "max_joules": joules(max_energy, "--max-energy") if max_energy else None,
        "min_accuracy": share(min_accuracy, "--min-accuracy") if min_accuracy else None,
    }
    wanted = Wanted(
        **{name: value for name, value in limits.items() if value is not None}, min_throughput=min_throughput
    )
    rows = newest_rows(read_lines(results))
    if faults := [fault for row in rows for fault in same_machine(rows[0]["machine"], row["machine"])]:
        raise InputError(f"the results come from several machines ({faults[0]}); choose by those of one")
    chosen = choose(rows, wanted, job)
    file = output or (results if results.is_dir() else results.parent) / "best.toml"
    written = _write(chosen, file, describe(chosen.row))
    told = commands(chosen.row, str(file))
    if as_json:
        emit_json({"row": chosen.row, "most_accurate": describe(chosen.most_accurate), "within": chosen.within,
                   "measured": chosen.measured, "recipe": file if written else None, "commands": told})  # fmt: skip
        return
    _print(chosen, told)
    note(f"wrote {file}" if written else "the bundle was measured as it lies there, so no recipe is known: deploy it")


def _write(chosen: "Choice", file: Path, name: str) -> bool:
    from edgegeo.bench.choice import recipe_toml

    recipe = chosen.row.get("recipe")
    if recipe is None:
        return False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(recipe_toml(recipe, f"Chosen by edgegeo bench best: {name}"), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} can't be written ({error.strerror or error}); choose another file with -o") from None
    return True


def _print(chosen: "Choice", told: list[str]) -> None:
    from edgegeo.bench.columns import share as accuracy
    from edgegeo.bench.front import METRIC_NAMES, metric_of
    from edgegeo.bench.rows import describe

    row = chosen.row
    say(
        describe(row),
        f"  {METRIC_NAMES[metric_of(row['job'], row['candidates'])]}: {accuracy(row)} %",
        f"  p50 {row['latency_ms']['p50']:.2f} ms, p90 {row['latency_ms']['p90']:.2f} ms a call, "
        f"{row['throughput_per_s']:.1f} items/s, peak {row['memory_mb']['peak']:.0f} MB",
        f"  {chosen.within} of {chosen.measured} settings of {row['job']} keep the limits",
    )
    if chosen.most_accurate is not row:
        say(f"  as accurate, as far as the places tell, as the best of them: {describe(chosen.most_accurate)}")
    say("", *told)
