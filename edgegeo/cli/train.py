"""edgegeo train: make a checkpoint from nothing, and the adapters that teach it retrieval and positions."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, hush_libraries, progress_bar, say
from edgegeo.errors import InputError

T = TypeVar("T")
PATHS = ("out", "checkpoint", "data.cache")
"""Settings that are paths; everything else reads as JSON does."""

OutFlag = Annotated[Path, flag("--output", "-o", verb="train", help="Folder to write.")]
CheckpointFlag = Annotated[
    Path | None, flag("--checkpoint", verb="train", help="Base checkpoint.", show_default="the packaged model")
]
StepsFlag = Annotated[int | None, flag("--steps", verb="train", help="Optimiser steps.", min=1)]
BatchFlag = Annotated[int | None, flag("--batch", verb="train", help="Places of a step.", min=2)]
RateFlag = Annotated[float | None, flag("--lr", verb="train", help="Highest learning rate.")]
SeedFlag = Annotated[int | None, flag("--seed", verb="train", help="Initial weights, order and choice of data.")]
PlacesFlag = Annotated[int | None, flag("--places", verb="train", help="Training places.", min=2)]
CacheFlag = Annotated[
    Path | None, flag("--cache", verb="train", help="Folder for drawn places.", show_default="under the data home")
]
TrainThreadsFlag = Annotated[int | None, flag("--threads", verb="train", help="Processor threads.", min=1)]
SetFlag = Annotated[
    list[str] | None,
    flag("--set", verb="train", help="NAME=VALUE for any other setting of edgegeo/train/settings.py; repeatable."),
]


def group() -> typer.Typer:
    """The verbs under `edgegeo train`."""
    app = typer.Typer(help="Train a base model, a retrieval adapter or a GPS adapter on the demonstration planet.")
    app.command("base")(base)
    app.command("retriever")(retriever)
    app.command("gps")(gps)
    app.info.no_args_is_help = True
    return app


def base(
    output: OutFlag,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    resume: Annotated[bool, flag("--resume", verb="train", help="Go on from the last saved state.")] = False,
    threads: TrainThreadsFlag = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Pre-train a small SmolVLM from nothing: captions, questions, positions, pairs."""
    given = _common(output, steps, batch, lr, seed, places, cache, threads, other) | {"resume": resume}
    from edgegeo.train.pretrain import train_base
    from edgegeo.train.settings import BaseSettings

    settings = settings_of(BaseSettings, given)
    with progress_bar() as progress:
        report = train_base(settings, progress)
    _finish(output, report, as_json)


def retriever(
    output: OutFlag,
    method: Annotated[str, flag("--method", verb="train", help="lora or slq (shared latent queries).")] = "lora",
    checkpoint: CheckpointFlag = None,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    threads: TrainThreadsFlag = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a retrieval adapter on a frozen base: descriptions and photos find their tiles."""
    if method not in ("lora", "slq"):
        raise InputError(f"--method must be lora or slq, not {method!r:.40}")
    given = _common(output, steps, batch, lr, seed, places, cache, threads, other)
    given |= {"method": method, "checkpoint": checkpoint}
    from edgegeo.train.retriever import train_retriever
    from edgegeo.train.settings import RetrieverSettings

    settings = settings_of(RetrieverSettings, given)
    with progress_bar() as progress:
        report = train_retriever(settings, progress)
    _finish(output, report, as_json)


def gps(
    output: OutFlag,
    checkpoint: CheckpointFlag = None,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    threads: TrainThreadsFlag = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a GPS adapter on a frozen base: a photo is answered with its position."""
    given = _common(output, steps, batch, lr, seed, places, cache, threads, other) | {"checkpoint": checkpoint}
    from edgegeo.train.gps import train_gps
    from edgegeo.train.settings import GpsSettings

    settings = settings_of(GpsSettings, given)
    with progress_bar() as progress:
        report = train_gps(settings, progress)
    _finish(output, report, as_json)


def settings_of(cls: type[T], given: dict[str, Any]) -> T:
    """The settings dataclass from flags; None means that the dataclass's own default stands.

    Raises InputError that names every unknown name and every wrong type at once.
    """
    from edgegeo.schema import SchemaFault, parse

    tree: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        *above, last = name.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {name}: {part} is a single value")
        place[last] = Path(value).expanduser() if name in PATHS else value
    try:
        return parse(cls, tree, "settings")
    except SchemaFault as fault:
        raise InputError(f"{fault}; see edgegeo/train/settings.py") from None


def _common(
    output: Path,
    steps: int | None,
    batch: int | None,
    lr: float | None,
    seed: int | None,
    places: int | None,
    cache: Path | None,
    threads: int | None,
    other: list[str] | None,
) -> dict[str, Any]:
    """Dotted setting name -> value; --set comes last and wins."""
    from edgegeo.home import data_home

    hush_libraries()
    given: dict[str, Any] = {
        "out": output,
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "data.places": places,
        "data.cache": cache or data_home() / "planet-cache",
        "threads": threads,
    }
    for word in other or []:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise InputError(f"--set takes NAME=VALUE, not {word!r:.80}")
        given[name.strip()] = _value(value)
    return given


def _value(text: str) -> Any:
    """A number, true or false as JSON writes them, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _finish(output: Path, report: Any, as_json: bool) -> None:
    from edgegeo.schema import to_plain

    facts = to_plain(report)
    if as_json:
        emit_json({"folder": str(output), "report": facts})
        return
    say(f"wrote {output}")
    for name, value in (facts if isinstance(facts, dict) else {}).items():
        say(f"  {name}: {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
