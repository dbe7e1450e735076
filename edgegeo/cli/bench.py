"""edgegeo bench: latency against accuracy over precision, batch and threads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import JsonFlag, choices, flag, numbers
from edgegeo.cli.output import emit_json, hush_libraries, note, percent, progress_bar, say, table
from edgegeo.errors import BundleError, EdgegeoError, InputError
from edgegeo.recipe import PRECISIONS, preset

if TYPE_CHECKING:
    from edgegeo.bench import Subject
    from edgegeo.bench.ledger import Row
    from edgegeo.progress import Progress


def command(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="Bundles to measure.", show_default="the packaged model at each --precision"),
    ] = None,
    precision: Annotated[
        str, flag("--precision", verb="bench", help="Precisions of the packaged model, where no bundles are named.")
    ] = "fp32,int8,int4",
    batch: Annotated[str, flag("--batch", verb="bench", help="Batch sizes.")] = "1,8,32",
    threads: Annotated[
        str | None, flag("--threads", verb="bench", help="Processor threads.", show_default="the runtime's own choice")
    ] = None,
    jobs: Annotated[
        str, flag("--jobs", verb="bench", help="Jobs to measure.")
    ] = "embed_text,embed_image,generate,search",
    places: Annotated[
        int, flag("--places", verb="bench", help="Unseen places for accuracy and for the searched gallery.", min=1)
    ] = 1000,
    seconds: Annotated[
        float, flag("--seconds", verb="bench", help="Counted runs of a cell go on about so long.")
    ] = 2.0,
    warmup: Annotated[int, flag("--warmup", verb="bench", help="Runs before the counted ones.", min=0)] = 2,
    seed: Annotated[int, flag("--seed", verb="bench", help="Order of the cells.")] = 0,
    output: Annotated[Path, flag("--output", "-o", verb="bench", help="Folder of the results.")] = Path(
        "bench-results"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Measure every combination in a process of its own; run it again to go on where it stopped.

    Writes results.jsonl, results.md and results.html.
    """
    from edgegeo.bench import JOBS, SweepSettings, run_sweep, write_reports

    settings = SweepSettings(
        batches=numbers(batch, "--batch"),
        threads=numbers(threads, "--threads") if threads else (),
        jobs=choices(jobs, tuple(JOBS), "--jobs"),
        places=places,
        seed=seed,
        warmup=warmup,
        seconds=seconds,
    )
    with progress_bar() as progress:
        wanted = choices(precision, PRECISIONS, "--precision")
        subjects = _named(bundles) if bundles else _packaged(wanted, progress)
        rows = run_sweep(subjects, settings, output, progress)
    files = write_reports(rows, output)
    if as_json:
        emit_json({"rows": rows, "files": {**files, "jsonl": output / "results.jsonl"}})
    else:
        _print(rows)
        say(f"{len(rows)} cells; {output / 'results.jsonl'}, {files['markdown'].name}, {files['html'].name}")
    failed = [row for row in rows if "error" in row]
    if failed:
        first = failed[0]
        raise EdgegeoError(
            f"{len(failed)} of {len(rows)} cells failed, the first ({first['precision']} {first['job']} batch "
            f"{first['batch']}): {first['error']}; run the same command again to retry them"
        )


def _named(bundles: list[str]) -> "list[Subject]":
    from edgegeo.bench import Subject
    from edgegeo.bundle import open_bundle
    from edgegeo.home import find_bundle

    subjects = []
    for name in bundles:
        opened = open_bundle(find_bundle(name))
        parts = {part.precision for part in opened.manifest.components.values()}
        usual = next((p for p in PRECISIONS if opened.manifest.name.endswith(f"-{p}")), None)
        subjects.append(Subject(usual or "+".join(sorted(parts)), opened))
    if len({subject.precision for subject in subjects}) < len(subjects):
        subjects = [Subject(f"{s.precision} {s.bundle.path.name}", s.bundle) for s in subjects]
    if len({subject.bundle.fingerprint for subject in subjects}) < len(subjects):
        raise InputError("the same bundle is named twice; name each once")
    return subjects


def _packaged(precisions: tuple[str, ...], progress: "Progress") -> "list[Subject]":
    """The packaged model's bundles under the data home; missing ones are exported, where the export extra is."""
    from edgegeo.bench import Subject
    from edgegeo.bundle import open_bundle
    from edgegeo.home import default_bundle

    for precision in precisions:
        target = default_bundle(precision)
        if target.is_dir():
            continue
        note(f"no bundle at {target}: exporting it")
        hush_libraries()
        try:
            from edgegeo.export import export

            export(None, preset(precision), target, places=0, progress=progress)
        except ImportError as error:
            raise BundleError(
                f"no bundle at {target}, and this machine can't make it ({error.name} is not installed); "
                "pip install 'edgegeo[export]', or name bundles made elsewhere: edgegeo bench BUNDLE..."
            ) from None
    return [Subject(precision, open_bundle(default_bundle(precision))) for precision in precisions]


def _print(rows: "list[Row]") -> None:
    from edgegeo.bench.front import GPS, PHOTO, TEXT, score

    headers = ("job", "precision", "batch", "threads", "p50 ms", "p99 ms", "items/s", "peak MB", "size MB")
    lines = []
    for row in rows:
        start = (row["job"], row["precision"], row["batch"], row["threads"])
        if "error" in row:
            lines.append((*start, "failed", *[""] * 7))
            continue
        shares = [percent(found["value"]) if (found := score(row, name)) else "-" for name in (TEXT, PHOTO, GPS)]
        latency = row["latency_ms"]
        lines.append(
            (
                *start,
                f"{latency['p50']:.2f}",
                f"{latency['p99']:.2f}",
                f"{row['throughput_per_s']:.1f}",
                f"{row['memory_mb']['peak']:.0f}",
                f"{row['size_bytes'] / 2**20:.1f}",
                *shares,
            )
        )
    table((*headers, "text R@1", "photo R@1", "GPS@750"), lines)
