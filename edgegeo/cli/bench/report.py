"""edgegeo bench report: results as tables, a page, and a picture."""

from pathlib import Path
from typing import Annotated

import typer

from edgegeo.cli.flags import JsonFlag, choices, flag
from edgegeo.cli.output import emit_json, say


def command(
    results: Annotated[Path, typer.Argument(help="Folder of the results, or its results.jsonl.", show_default=False)],
    formats: Annotated[str, flag("--format", verb="bench_report", help="Of md, csv, html, png, tex.")] = "md,csv,html",
    jobs: Annotated[str | None, flag("--jobs", verb="bench_report", help="Jobs to report.", show_default="all")] = None,
    about: Annotated[
        str, flag("--about", verb="bench_report", help="A sentence that Markdown and page open with.")
    ] = "",
    costs: Annotated[
        str, flag("--costs", verb="bench_report", help="Of latency, p90, memory, energy, size: what a PNG draws.")
    ] = "latency,memory,energy",
    output: Annotated[
        Path | None,
        flag("--output", "-o", verb="bench_report", help="Folder to write to.", show_default="beside the results"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write results.FORMAT; of a setting that was measured several times, the newest counts."""
    from edgegeo.bench.front import COSTS
    from edgegeo.bench.ledger import read_lines
    from edgegeo.bench.report import FORMATS, write_reports
    from edgegeo.bench.rows import newest_rows

    wanted = choices(formats, FORMATS, "--format")
    drawn = choices(costs, tuple(COSTS), "--costs")
    rows = newest_rows(read_lines(results))
    if jobs:
        named = choices(jobs, tuple(dict.fromkeys(row["job"] for row in rows)), "--jobs")
        rows = [row for row in rows if row["job"] in named]
    folder = output or (results if results.is_dir() else results.parent)
    files = write_reports(rows, folder, wanted, about, drawn)
    if as_json:
        emit_json({"rows": rows, "files": files})
    else:
        say(*(str(file) for file in files.values()))
