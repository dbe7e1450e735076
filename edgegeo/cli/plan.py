"""edgegeo plan: whether a model fits a device, and how fast it can be at best."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import JsonFlag, flag, token_budget
from edgegeo.cli.output import emit_json, note, say, table
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.field.device import Device
    from edgegeo.field.plan import Plan
    from edgegeo.field.subject import Subject

DeviceFlag = Annotated[
    str,
    flag(
        "--device",
        verb="plan",
        help="orin-nano-8gb, agx-orin-64gb, thor, a TOML file like runtime/devices/*.toml, or this: measured now.",
    ),
]
PrecisionFlag = Annotated[
    str | None,
    flag("--precision", verb="plan", help="Of a checkpoint: fp32, fp16, int8, int4.", show_default="int8"),
]
BatchFlag = Annotated[int, flag("--batch", verb="plan", help="Inputs or answers at once.", min=1, max=4096)]
LengthFlag = Annotated[
    int | None,
    flag("--length", verb="plan", help="Positions of the KV cache.", min=1, show_default="the longest job's"),
]
TextFlag = Annotated[int, flag("--text-tokens", verb="plan", help="Tokens of a text to embed.", min=1, max=32768)]
AnswerFlag = Annotated[
    int,
    flag("--answer-tokens", verb="plan", help="Tokens of a GPS answer that no grammar forces.", min=1, max=4096),
]
SizeFlag = Annotated[
    int | None, flag("--image-size", verb="plan", help="Of a checkpoint: side of a picture or tile in pixels.")
]
TilesFlag = Annotated[int | None, flag("--tiles", verb="plan", help="Of a checkpoint: most tiles of a picture.")]
PixelsFlag = Annotated[
    int | None, flag("--max-pixels", verb="plan", help="Of a checkpoint of native resolution: largest picture.")
]


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Bundle folder or name, or checkpoint folder (config.json is enough).",
            show_default="pocket-int8, else the packaged checkpoint",
            envvar="EDGEGEO_PLAN_MODEL",
        ),
    ] = None,
    device: DeviceFlag = "this",
    precision: PrecisionFlag = None,
    batch: BatchFlag = 1,
    length: LengthFlag = None,
    text_tokens: TextFlag = 32,
    answer_tokens: AnswerFlag = 10,
    image_size: SizeFlag = None,
    tiles: TilesFlag = None,
    max_pixels: PixelsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """What running a model takes on a device: memory, and the least time of each stage. What an export takes is told by: edgegeo export --plan."""  # noqa: E501
    from edgegeo.field.plan import Load, longest_job, make_plan
    from edgegeo.field.subject import find_subject, with_budget
    from edgegeo.recipe import preset

    budget = token_budget(image_size, tiles, max_pixels)
    recipe = with_budget(preset(precision or "int8"), budget)
    subject = find_subject(_place(model), recipe, explicit=precision is not None or bool(budget.label))
    load = Load(batch, length or longest_job(subject, text_tokens, answer_tokens), text_tokens, answer_tokens)
    used = _device(device)
    plan = make_plan(subject, used, load)
    if as_json:
        emit_json({"plan": plan, "total_mb": plan.need.total, "fits": plan.need.fits, "builds": plan.need.builds,
                   "device": used})  # fmt: skip
    else:
        _print(plan, subject, used)


def _place(model: str | None) -> Path:
    from edgegeo.home import default_bundle, find_bundle

    if model is None:
        usual = default_bundle()
        return usual if usual.is_dir() else Path(__file__).resolve().parents[1] / "pocket"
    place = find_bundle(model)
    if not place.is_dir():
        raise InputError(f"no folder {place}; name a bundle, or a checkpoint folder with its config.json")
    return place


def _device(named: str) -> "Device":
    from edgegeo.field.device import THIS, load_device

    if named != THIS:
        return load_device(named)
    from edgegeo.field.ceilings import measure_here

    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        note("other programs are busy here, so what is measured is less than this machine can: repeat it when it idles")
    return measure_here()


def _print(plan: "Plan", subject: "Subject", device: "Device") -> None:
    need, load = plan.need, plan.load
    say(f"{plan.name} on {plan.device}", "")
    rows = [(part.name, part.precision, f"{part.bytes / 2**20:,.1f} MB") for part in subject.parts]
    table(("component", "stored as", "size"), rows)
    say("")
    lines = [
        ("weights, opened", _mb(need.weights)),
        (f"KV cache, {load.length:,} positions x {load.batch}", _mb(need.kv)),
        ("activations", _mb(need.activations)),
        ("the process itself", _mb(need.overhead)),
        ("together", _mb(need.total)),
        ("the device can give", _mb(need.available)),
    ]
    if need.build:
        lines.append(("building its largest engine there", _mb(need.build + need.overhead)))
    table(("memory", "about"), lines)
    say(_verdict(plan), "")
    stages = [
        (one.name, f"{one.positions:,}", f"{one.gflop:,.3g}", f"{one.read_mb:,.1f}", f"{one.ms:,.3g} ms", one.bound)
        for one in plan.stages
    ]
    table(("stage", "positions", "GFLOP", "reads MB", "at least", "bound by"), stages)
    say("", f"Lower bounds from {device.bandwidth_gbs:,.0f} GB/s, {device.int8_tops:,.3g} int8 TOPS and "
        f"{device.fp16_tflops:,.3g} fp16 TFLOPS (dense); real times are above them, by 1.5 to 4 times at real size and "
        "more for tiny models. Measure with: edgegeo bench")  # fmt: skip


def _verdict(plan: "Plan") -> str:
    need = plan.need
    if not need.fits:
        return f"it does not fit: {_mb(need.total - need.available)} too much; try int4, a smaller --length or --batch"
    if need.build and not need.builds:
        return "it fits, but its engine can't be built there: try int4, or a device with more memory of the same kind"
    return "it fits"


def _mb(value: float) -> str:
    return f"{value / 1024:,.2f} GiB" if value >= 1024 else f"{value:,.0f} MB"
