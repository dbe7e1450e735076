"""edgegeo export: a checkpoint becomes a bundle that runs without torch."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag, token_budget
from edgegeo.cli.output import emit_json, hush_libraries, megabytes, percent, progress_bar, say, table
from edgegeo.cli.preview import print_preview
from edgegeo.cli.quantisation import print_quantisation
from edgegeo.errors import InputError
from edgegeo.recipe import with_budget

if TYPE_CHECKING:
    from edgegeo.export.budget_terms import Budget
    from edgegeo.export.report import ExportReport, ReportRow
    from edgegeo.recipe import Recipe


TargetFlag = Annotated[
    str | None,
    flag("--target", verb="export", show_default="cpu",
         help="cpu, or graphs for edgegeo compile: tensorrt (10.3 on, JetPack 6), tensorrt-modern (10.15 on)."),
]  # fmt: skip
RecipeFlag = Annotated[Path | None, flag("--recipe", verb="export", help="TOML file with every setting; see export/.")]
AdapterFlag = Annotated[
    list[str] | None,
    flag("--adapter", verb="export", help="ROLE=FOLDER, role embed, rerank or generate; may be given again."),
]
MethodFlag = Annotated[
    str | None,
    flag("--method", verb="export", help="lora or slq: which retrieval adapter.", show_default="the model's own"),
]
ImageSizeFlag = Annotated[
    int | None,
    flag("--image-size", verb="export", help="Side of a picture or tile, pixels.", show_default="the model's own"),
]
TilesFlag = Annotated[
    int | None,
    flag("--tiles", verb="export", help="Most tiles a picture is split into.", show_default="1: never split"),
]
MaxPixelsFlag = Annotated[
    int | None,
    flag(
        "--max-pixels",
        verb="export",
        help="Largest picture of families of native resolution.",
        show_default="the model's own",
    ),
]
PlacesFlag = Annotated[
    int, flag("--places", verb="export", help="Unseen places to score before and after; 0: none.", min=0)
]
OutputFlag = Annotated[
    Path | None, flag("--output", "-o", verb="export", help="Bundle folder.", show_default="under the data home")
]
MaxDropFlag = Annotated[
    float | None,
    flag(
        "--max-drop",
        verb="export",
        help="Most points of Recall@1 that quantising may cost; keeps what it takes in higher precision.",
        show_default="no limit",
    ),
]
BudgetPlacesFlag = Annotated[
    int,
    flag("--budget-places", verb="export", help="Places that --max-drop is searched, and then confirmed on.", min=2),
]
ProvenFlag = Annotated[
    bool, flag("--proven", verb="export", help="--max-drop holds for the whole 95 % interval of the drop.")
]
AgreementFlag = Annotated[
    bool,
    flag("--agreement", verb="export", help="--max-drop counts changed first tiles; for models of another world."),
]
PlanFlag = Annotated[
    bool, flag("--plan", verb="export", help="Only say what the export needs; what running needs: edgegeo plan.")
]
CalibrationFlag = Annotated[
    Path | None,
    flag("--calibration", verb="export", help="File of edgegeo calibrate.", show_default="recorded on planet places"),
]
ForceFlag = Annotated[bool, flag("--force", verb="export", help="Start although memory or disk will hardly suffice.")]


def command(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="Hugging Face folder, or ORG/NAME[@REVISION] on the hub.",
            show_default="the packaged model",
            envvar="EDGEGEO_EXPORT_CHECKPOINT",
        ),
    ] = None,
    fp32: Annotated[bool, flag("--fp32", verb="export", help="Nothing quantised.")] = False,
    fp16: Annotated[bool, flag("--fp16", verb="export", help="Weights at 16 bits.")] = False,
    int8: Annotated[bool, flag("--int8", verb="export", help="Weights and activations at 8 bits (default).")] = False,
    int4: Annotated[bool, flag("--int4", verb="export", help="Decoder weights at 4 bits.")] = False,
    target: TargetFlag = None,
    recipe: RecipeFlag = None,
    adapter: AdapterFlag = None,
    method: MethodFlag = None,
    image_size: ImageSizeFlag = None,
    tiles: TilesFlag = None,
    max_pixels: MaxPixelsFlag = None,
    calibration: CalibrationFlag = None,
    max_drop: MaxDropFlag = None,
    budget_places: BudgetPlacesFlag = 1000,
    proven: ProvenFlag = False,
    agreement: AgreementFlag = False,
    places: PlacesFlag = 1000,
    output: OutputFlag = None,
    plan: PlanFlag = False,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Merge adapters, build and quantise the graphs, verify them against transformers, score, and write a bundle."""
    settings = with_budget(
        _settings({"fp32": fp32, "fp16": fp16, "int8": int8, "int4": int4}, recipe, target),
        token_budget(image_size, tiles, max_pixels),
    )
    if max_drop is not None:
        settings = replace(settings, name=f"{settings.name}-drop{max_drop:g}")
    roles = adapters_of(adapter or [])
    from edgegeo.home import default_bundle
    from edgegeo.models.hub import checkpoint_name, find_checkpoint, is_repository

    hush_libraries(online=checkpoint is not None and is_repository(checkpoint))
    source = find_checkpoint(checkpoint, weights=not plan) if checkpoint else None
    place = output or default_bundle(settings.name, *([checkpoint_name(source)] if source else []))
    if plan:
        _only_plan(source, settings, place, roles, as_json)
        return
    from edgegeo.calibration import open_calibration
    from edgegeo.export import export

    seen = open_calibration(calibration) if calibration is not None else None
    budget = _budget(max_drop, budget_places, proven, agreement)
    with progress_bar() as progress:
        report = export(
            source, settings, place, adapters=roles, method=method, places=places, progress=progress, force=force,
            announce=None if as_json else print_preview, budget=budget,
            calibration=seen,
        )  # fmt: skip
    emit_json(report.to_dict()) if as_json else _print(report)


def _budget(max_drop: float | None, places: int, proven: bool, agreement: bool) -> "Budget | None":
    if max_drop is None:
        if proven or agreement:
            raise InputError(f"{'--proven' if proven else '--agreement'} only works with --max-drop")
        return None
    from edgegeo.export.budget_terms import Budget

    return Budget(max_drop, places, proven, agreement)


def _only_plan(source: Path | None, settings: "Recipe", place: Path, adapters: dict[str, Path], as_json: bool) -> None:
    from edgegeo.export.preview import preview

    seen = preview(source, settings, place, adapters)
    if as_json:
        emit_json(seen.to_dict())
    else:
        print_preview(seen, whole=True)


def _settings(flags: dict[str, bool], recipe: Path | None, target: str | None) -> "Recipe":
    from edgegeo.recipe import load_recipe, preset

    named = [name for name, given in flags.items() if given]
    if len(named) + (recipe is not None) > 1:
        raise InputError("name one of --fp32, --fp16, --int8, --int4 and --recipe")
    if recipe is None:
        return preset(named[0] if named else "int8", target or "cpu")
    if target is not None:
        raise InputError("a recipe names its own target; leave --target out")
    return load_recipe(recipe)


def adapters_of(words: list[str]) -> dict[str, Path]:
    """Role -> folder of the ROLE=FOLDER words of --adapter; InputError for others."""
    found: dict[str, Path] = {}
    for word in words:
        role, _, folder = word.partition("=")
        if role not in ("embed", "rerank", "generate") or not folder:
            raise InputError(f"--adapter takes ROLE=FOLDER with role embed, rerank or generate, not {word!r:.80}")
        if role in found:
            raise InputError(f"--adapter names the role {role} twice")
        found[role] = Path(folder).expanduser()
    return found


def _print(report: "ExportReport") -> None:
    for section in dict.fromkeys(row.section for row in report.rows):
        rows = [row for row in report.rows if row.section == section]
        if section in ("time", "memory"):
            continue
        headers = SECTIONS.get(section, (section, "value", "fp32", "change"))
        table(headers, [_line(row) for row in rows])
        say("")
    peaks = {row.name: _value(row.value, row.unit) for row in report.rows if row.section == "memory"}
    stages = [(row.name, f"{row.value:.1f} s", peaks[row.name]) for row in report.rows if row.section == "time"]
    if stages:
        table(("the export itself", "time", "peak memory"), stages)
        say("")
    if report.quantisation is not None:
        print_quantisation(report.quantisation)
    for role, difference in report.merge_differences.items():
        say(f"adapter of {role}: merged and attached differ by {difference:.1e} at most")
    for note in report.notes:
        say(note)
    say(f"wrote {report.out}: {report.name}, {megabytes(report.bytes)}, read back and verified, {report.seconds:.0f} s")


SECTIONS = {
    "size": ("size", "now", "fp32", "change"),
    "parity": ("parity with transformers", "now", "fp32", "limit"),
    "accuracy": ("accuracy on unseen places", "now [95 %]", "fp32", "change [95 %]"),
    "latency": ("latency, one input", "now", "fp32", "change"),
}


def _line(row: "ReportRow") -> tuple[str, str, str, str]:
    name = row.name.replace("_recall_at_", ", Recall@").replace("_", " ")
    if row.section == "parity":
        limit = row.low if row.low is not None else row.high
        side = "at least" if row.low is not None else "at most"
        before = "-" if row.before is None else f"{row.before:.5g}"
        held = "not judged" if limit is None else f"{side} {limit:g}"
        return f"{name} ({row.unit})", f"{row.value:.5g}", before, held
    before = "-" if row.before is None else _value(row.before, row.unit)
    value = _value(row.value, row.unit)
    if row.section == "accuracy":
        if row.low is not None and row.high is not None:
            value += f" [{_value(row.low, row.unit)}, {_value(row.high, row.unit)}]"
        if row.change is None:
            return name, value, before, "-"
        change = row.change
        shown = [_value(part, row.unit, signed=True) for part in (change.value, change.low, change.high)]
        return name, value, before, f"{shown[0]} [{shown[1]}, {shown[2]}]"
    ratio = "-" if not row.before else f"{row.value / row.before:.2f} x"
    return name, value, before, ratio


def _value(value: float, unit: str, signed: bool = False) -> str:
    if not math.isfinite(value):  # the median of answers that were mostly none
        return "-" if signed else "none"
    sign = "+" if signed else ""
    if unit == "share":
        return f"{100 * value:{sign}.1f} pt" if signed else percent(value)
    digits = 0 if unit == "km" else 2
    return f"{value:{sign},.{digits}f} {unit}"
