"""edgegeo export: a checkpoint becomes a bundle that runs without torch."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, hush_libraries, megabytes, percent, progress_bar, say, table
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.export.report import ExportReport, ReportRow
    from edgegeo.recipe import Recipe


def command(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="Hugging Face folder.", show_default="the packaged model", envvar="EDGEGEO_EXPORT_CHECKPOINT"
        ),
    ] = None,
    fp32: Annotated[bool, flag("--fp32", verb="export", help="Nothing quantised.")] = False,
    fp16: Annotated[bool, flag("--fp16", verb="export", help="Weights at 16 bits.")] = False,
    int8: Annotated[bool, flag("--int8", verb="export", help="Weights and activations at 8 bits (default).")] = False,
    int4: Annotated[bool, flag("--int4", verb="export", help="Decoder weights at 4 bits.")] = False,
    recipe: Annotated[
        Path | None, flag("--recipe", verb="export", help="TOML file with every setting; see export/.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        flag("--adapter", verb="export", help="ROLE=FOLDER, role embed, rerank or generate; may be given again."),
    ] = None,
    method: Annotated[
        str | None,
        flag("--method", verb="export", help="lora or slq: which retrieval adapter.", show_default="the model's own"),
    ] = None,
    places: Annotated[
        int, flag("--places", verb="export", help="Unseen places to score before and after; 0: none.", min=0)
    ] = 1000,
    output: Annotated[
        Path | None, flag("--output", "-o", verb="export", help="Bundle folder.", show_default="under the data home")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Merge adapters, build and quantise the graphs, verify them against transformers, score, and write a bundle."""
    settings = _settings({"fp32": fp32, "fp16": fp16, "int8": int8, "int4": int4}, recipe)
    adapters = _adapters(adapter or [])
    hush_libraries()
    from edgegeo.export import export
    from edgegeo.home import default_bundle

    source = Path(checkpoint).expanduser() if checkpoint else None
    target = output or default_bundle(settings.name, *([source.resolve().name] if source else []))
    with progress_bar() as progress:
        report = export(source, settings, target, adapters=adapters, method=method, places=places, progress=progress)
    if as_json:
        emit_json(report.to_dict())
        return
    _print(report)


def _settings(flags: dict[str, bool], recipe: Path | None) -> "Recipe":
    from edgegeo.recipe import load_recipe, preset

    named = [name for name, given in flags.items() if given]
    if len(named) + (recipe is not None) > 1:
        raise InputError("name one of --fp32, --fp16, --int8, --int4 and --recipe")
    return load_recipe(recipe) if recipe is not None else preset(named[0] if named else "int8")


def _adapters(words: list[str]) -> dict[str, Path]:
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
        headers = SECTIONS.get(section, (section, "value", "fp32", "change"))
        table(headers, [_line(row) for row in rows])
        say("")
    for role, difference in report.merge_differences.items():
        say(f"adapter of {role}: merged and attached differ by {difference:.1e} at most")
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
        return f"{name} ({row.unit})", f"{row.value:.5g}", before, f"{side} {limit:g}"
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
