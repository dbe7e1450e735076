"""Results as a Markdown document: one table a job."""

from collections.abc import Sequence

from edgegeo.bench import budget
from edgegeo.bench.budget import interval
from edgegeo.bench.cells import JOBS
from edgegeo.bench.front import GPS, PHOTO, TEXT, front
from edgegeo.bench.ledger import Row

HEADERS = (
    "precision", "batch", "threads", "p50 ms", "p90 ms", "p99 ms", "ms/item", "items/s", "peak MB", "load ms",
    "cold start ms", "size MB", "text R@1 %", "photo R@1 %", "GPS@750 %",
)  # fmt: skip


def render_markdown(rows: Sequence[Row]) -> str:
    """The token budget where several were measured, then one table a job; a star marks the rows on its front."""
    lines = ["# edgegeo bench", "", describe_machine(rows), ""]
    if budget.compares_budgets(rows):
        lines += ["## Token budget", "", budget.budget_caption(rows), ""]
        lines += ["| " + " | ".join(budget.HEADERS) + " |", "|---|---|" + "---:|" * (len(budget.HEADERS) - 2)]
        lines += ["| " + " | ".join(line) + " |" for line in budget.budget_table(rows)]
        lines += [""]
    for job in [job for job in JOBS if any(row["job"] == job for row in rows)]:
        mine = [row for row in rows if row["job"] == job]
        best = {id(row) for row in front(mine)}
        lines += [f"## {job}", "", JOBS[job], ""]
        lines += ["| " + " | ".join(HEADERS) + " |", "|" + "---|" + "---:|" * (len(HEADERS) - 1)]
        lines += ["| " + " | ".join(cells_of(row, id(row) in best)) + " |" for row in mine]
        lines += [""]
    lines += ["\\* on the front of time per item against accuracy. Intervals: 95 %, bootstrap over places.", ""]
    return "\n".join(lines)


def cells_of(row: Row, starred: bool) -> list[str]:
    """One row's table cells, in the order of HEADERS; a failed row says why in place of its numbers."""
    start = [row["precision"] + ("\\*" if starred else ""), str(row["batch"]), str(row["threads"])]
    if "error" in row:
        return [*start, f"failed: {row['error']}".replace("|", "/"), *([""] * (len(HEADERS) - 4))]
    latency = row["latency_ms"]
    return [
        *start,
        *(f"{latency[p]:.2f}" for p in ("p50", "p90", "p99")),
        f"{row['item_ms']:.2f}",
        f"{row['throughput_per_s']:.1f}",
        f"{row['memory_mb']['peak']:.0f}",
        f"{row['load_ms']:.0f}",
        f"{row['cold_start_ms']:.0f}",
        f"{row['size_bytes'] / 2**20:.1f}",
        *(interval(row, metric) for metric in (TEXT, PHOTO, GPS)),
    ]


def describe_machine(rows: Sequence[Row]) -> str:
    """One sentence: what the numbers were measured on and with."""
    if not rows:
        return "Nothing measured."
    facts, tools = rows[0]["machine"], rows[0]["versions"]
    names = ", ".join(f"{name} {number}" for name, number in tools.items())
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}; {names}. "
        f"Warm-up {rows[0]['warmup']} runs, not counted; every cell in a process of its own, cells in random order; "
        "energy not measured."
    )
