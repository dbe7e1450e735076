"""The token budget beside what it costs and brings: how much of a picture the model sees, as one table."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from edgegeo.bench.columns import share
from edgegeo.bench.definition import JOBS
from edgegeo.bench.front import GPS, PHOTO
from edgegeo.bench.rows import Row
from edgegeo.bundle import Bundle

PICTURE_JOBS = ("embed_image", "generate")
HEADERS = (
    "setting", "picture", "image tokens", "positions", "threads", "embed image ms", "answer ms", "peak MB",
    "photo R@1 %", "GPS@750 %",
)  # fmt: skip


def picture_facts(bundle: Bundle, photo: bytes) -> dict[str, Any]:
    """What the bundle makes of one photo: its tiles or size, image tokens, and prompt positions with their marks."""
    from edgegeo.runtime.pictures import positions_of, prepare_picture

    spec = bundle.manifest.image
    made = prepare_picture(Image.open(BytesIO(photo)), spec)
    tokens = sum(part for part in made.layout if isinstance(part, int))
    rows, columns = made.grid or (1, 1)
    tiles = 1 if made.grid else len(made.inputs["pixel_values"])
    return {
        "width": columns * spec.size, "height": rows * spec.size, "tiles": tiles, "tokens": tokens,
        "positions": positions_of(made.layout),
    }  # fmt: skip


def compares_budgets(rows: Sequence[Row]) -> bool:
    """Whether the rows hold several settings of the picture, so that the table says something."""
    return len({str(row["picture"]) for row in rows if "picture" in row}) > 1


def budget_rows(rows: Sequence[Row], job: str) -> list[Row]:
    """The rows of a job over pictures in the smallest batch measured, which is what one query waits for."""
    mine = [row for row in rows if row["job"] == job and "picture" in row and "error" not in row]
    mine = [row for row in mine if not row["dims"] and row["candidates"] == 1]
    least = min((row["batch"] for row in mine), default=0)
    return [row for row in mine if row["batch"] == least]


def budget_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line for each setting and number of threads, in the order of HEADERS; "-" where a job was not measured."""
    found: dict[tuple[str, Any], dict[str, Row]] = {}
    for job in PICTURE_JOBS:
        for row in budget_rows(rows, job):
            found.setdefault((row["label"], row["threads"]), {})[job] = row
    return [_line(name, threads, jobs) for (name, threads), jobs in found.items()]


def budget_caption(rows: Sequence[Row]) -> str:
    """What the table compares."""
    jobs = [job for job in PICTURE_JOBS if budget_rows(rows, job)]
    batches = sorted({row["batch"] for job in jobs for row in budget_rows(rows, job)})
    described = "; ".join(f"{job.replace('_', ' ')}: {JOBS[job]}" for job in jobs)
    return (
        f"How much of a picture the model sees. {described}. Median milliseconds a call at batch "
        f"{', '.join(map(str, batches))}; peak memory of the larger job; intervals: 95 %, bootstrap over places."
    )


def _line(name: str, threads: Any, jobs: dict[str, Row]) -> tuple[str, ...]:
    embed, answer = (jobs.get(job) for job in PICTURE_JOBS)
    first = next(iter(jobs.values()))
    seen = first["picture"]
    sides = f"{seen['width']} x {seen['height']} px"
    return (
        name,
        sides if seen["tiles"] == 1 else f"{seen['tiles']} tiles of {sides}",
        str(seen["tokens"]),
        str(seen["positions"]),
        str(threads),
        "-" if embed is None else f"{embed['latency_ms']['p50']:.2f}",
        "-" if answer is None else f"{answer['latency_ms']['p50']:.2f}",
        f"{max(row['memory_mb']['peak'] for row in jobs.values()):.0f}",
        share(first, PHOTO),
        share(first, GPS),
    )
