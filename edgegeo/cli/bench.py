"""edgegeo bench: latency against accuracy over precision, token budget, batch and threads."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import JsonFlag, choices, flag, numbers, token_budget
from edgegeo.cli.output import emit_json, hush_libraries, note, percent, progress_bar, say, table
from edgegeo.errors import BundleError, EdgegeoError, InputError
from edgegeo.recipe import PRECISIONS, preset, with_budget

if TYPE_CHECKING:
    from edgegeo.bench import Subject
    from edgegeo.bench.ledger import Row
    from edgegeo.bundle import Bundle
    from edgegeo.progress import Progress
    from edgegeo.recipe import Recipe

SizesFlag = Annotated[
    str | None, flag("--image-size", verb="bench", help="Sides of a picture, pixels.", show_default="the model's own")
]
TilesFlag = Annotated[
    str | None,
    flag("--tiles", verb="bench", help="Most tiles a picture is split into.", show_default="1: never split"),
]
PixelsFlag = Annotated[
    str | None, flag("--max-pixels", verb="bench", help="Largest pictures of families of native resolution.")
]
CheckpointFlag = Annotated[
    str | None,
    flag("--checkpoint", verb="bench", help="Model to export, as export takes it.", show_default="the packaged one"),
]


def command(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="Bundles to measure.", show_default="the packaged model, exported as asked"),
    ] = None,
    precision: Annotated[
        str, flag("--precision", verb="bench", help="Precisions of the packaged model, where no bundles are named.")
    ] = "fp32,int8,int4",
    image_size: SizesFlag = None,
    tiles: TilesFlag = None,
    max_pixels: PixelsFlag = None,
    checkpoint: CheckpointFlag = None,
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
    from edgegeo.bench import JOBS, SweepSettings, run_sweep

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
        wanted = _recipes(choices(precision, PRECISIONS, "--precision"), image_size, tiles, max_pixels)
        if bundles and (image_size or tiles or max_pixels or checkpoint):
            raise InputError(
                "--image-size, --tiles, --max-pixels and --checkpoint say what to export; leave them out with bundles"
            )
        subjects = _named(bundles) if bundles else _exported(wanted, checkpoint, progress)
        rows = run_sweep(subjects, settings, output, progress)
    _report(rows, output, as_json)


def _report(rows: "list[Row]", output: Path, as_json: bool) -> None:
    """Write the reports, print the rows, and end in an error if a cell failed."""
    from edgegeo.bench import write_reports

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
        usual = next((p for p in PRECISIONS if p in opened.manifest.name.split("-")), None)
        subjects.append(Subject(usual or "+".join(sorted(parts)), opened))
    if len({subject.precision for subject in subjects}) < len(subjects):
        subjects = [Subject(f"{s.precision} {s.bundle.path.name}", s.bundle) for s in subjects]
    if len({subject.bundle.fingerprint for subject in subjects}) < len(subjects):
        raise InputError("the same bundle is named twice; name each once")
    return subjects


def _recipes(
    precisions: tuple[str, ...], image_size: str | None, tiles: str | None, max_pixels: str | None
) -> "dict[str, Recipe]":
    """The recipes of every precision and budget, by the name that rows carry."""
    flags = {"--image-size": image_size, "--tiles": tiles, "--max-pixels": max_pixels}
    values = [numbers(text, name) if text else (None,) for name, text in flags.items()]
    budgets = [token_budget(*chosen) for chosen in product(*values)]
    named = {precision: preset(precision) for precision in precisions}
    return {
        f"{name} {budget.label.replace('-', ' ')}".rstrip(): with_budget(recipe, budget)
        for name, recipe in named.items()
        for budget in budgets
    }


def _exported(recipes: "dict[str, Recipe]", checkpoint: str | None, progress: "Progress") -> "list[Subject]":
    """A model's bundles under the data home; missing ones are exported, where the export extra is."""
    from edgegeo.bench import Subject
    from edgegeo.bundle import open_bundle
    from edgegeo.home import default_bundle
    from edgegeo.models.hub import checkpoint_name, find_checkpoint, is_repository

    hush_libraries(online=checkpoint is not None and is_repository(checkpoint))
    source = find_checkpoint(checkpoint) if checkpoint else None
    named = [checkpoint_name(source)] if source else []
    subjects = []
    for name, recipe in recipes.items():
        target = default_bundle(recipe.name, *named)
        if not target.is_dir():
            _export(source, recipe, target, progress)
        bundle = open_bundle(target)
        if source is not None and not _made_from(bundle, source):
            raise BundleError(
                f"{target} was made from other weights than those in {source}; export it again, or name bundles"
            )
        subjects.append(Subject(name, bundle))
    return subjects


def _export(source: Path | None, recipe: "Recipe", target: Path, progress: "Progress") -> None:
    note(f"no bundle at {target}: exporting it")
    try:
        from edgegeo.export import export

        export(source, recipe, target, places=0, progress=progress)
    except ImportError as error:
        raise BundleError(
            f"no bundle at {target}, and this machine can't make it ({error.name} is not installed); "
            "pip install 'edgegeo[export]', or name bundles made elsewhere: edgegeo bench BUNDLE..."
        ) from None


def _made_from(bundle: "Bundle", source: Path) -> bool:
    """Whether the files that the bundle was made from lie in a checkpoint folder as they were then."""
    from edgegeo.bundle import sha256_of

    def unchanged(folder: Path, files: dict[str, str]) -> bool:
        # A folder of ONNX graphs keeps them beside its other files or one step below.
        beside = {name: [f for f in (folder / name, folder / "onnx" / name) if f.is_file()] for name in files}
        return all(any(sha256_of(file) == files[name] for file in found) for name, found in beside.items())

    facts = bundle.manifest.source
    adapters = [one for one in facts.get("adapters", {}).values() if one]
    return unchanged(source, facts.get("files", {})) and all(
        unchanged(source / "adapters" / one["name"], one["files"]) for one in adapters
    )


def _print(rows: "list[Row]") -> None:
    from edgegeo.bench import budget
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
    if budget.compares_budgets(rows):
        say("")
        table(budget.HEADERS, budget.budget_table(rows))
