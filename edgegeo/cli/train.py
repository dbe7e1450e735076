"""edgegeo train: make a checkpoint from nothing, and the adapters that teach it retrieval and positions."""

import json
import os
import textwrap
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, hush_libraries, progress_bar, say
from edgegeo.errors import InputError

T = TypeVar("T")
PATHS = ("out", "checkpoint", "retriever", "data.cache", "data.root")
"""Settings that are paths; everything else reads as JSON does."""

OutFlag = Annotated[Path, flag("--output", "-o", verb="train", help="Folder to write.")]
RecipeFlag = Annotated[
    Path | None, flag("--recipe", verb="train", help="TOML file of an experiment; other flags win over it.")
]
CheckpointFlag = Annotated[
    str | None,
    flag("--checkpoint", verb="train", help="Base checkpoint: a folder, or ORG/NAME.", show_default="packaged model"),
]
DataFlag = Annotated[
    str | None, flag("--data", verb="train", help="Data set, a name of `edgegeo data list`.", show_default="planet")
]
RootFlag = Annotated[Path | None, flag("--data-root", verb="train", help="Folder of the data set.")]
StepsFlag = Annotated[int | None, flag("--steps", verb="train", help="Optimiser steps.", min=1)]
BatchFlag = Annotated[int | None, flag("--batch", verb="train", help="Places of a step.", min=2)]
RateFlag = Annotated[float | None, flag("--lr", verb="train", help="Highest learning rate.")]
SeedFlag = Annotated[int | None, flag("--seed", verb="train", help="Initial weights, order and choice of data.")]
PlacesFlag = Annotated[int | None, flag("--places", verb="train", help="Training places.", min=2)]
CacheFlag = Annotated[
    Path | None, flag("--cache", verb="train", help="Folder for drawn places.", show_default="under the data home")
]
TrainThreadsFlag = Annotated[int | None, flag("--threads", verb="train", help="Processor threads.", min=1)]
ResumeFlag = Annotated[bool, flag("--resume", verb="train", help="Go on from the last saved state.")]
SetFlag = Annotated[
    list[str] | None,
    flag("--set", verb="train", help="NAME=VALUE of any other setting (edgegeo train settings); repeatable."),
]


def group() -> typer.Typer:
    """The verbs under `edgegeo train`."""
    app = typer.Typer(help="Train retrieval and GPS adapters on your data, or a small base on the planet.")
    app.command("base")(base)
    app.command("retriever")(retriever)
    app.command("reranker")(reranker)
    app.command("gps")(gps)
    app.command("settings")(settings)
    app.info.no_args_is_help = True
    return app


def base(
    output: OutFlag,
    recipe: RecipeFlag = None,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    resume: ResumeFlag = False,
    threads: TrainThreadsFlag = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Pre-train a small SmolVLM from nothing: captions, questions, positions, pairs."""
    given = {"out": output, "steps": steps, "batch": batch, "lr": lr, "seed": seed, "threads": threads}
    given |= {"resume": resume or None, "data.places": places, "data.cache": cache}
    hush_libraries()
    from edgegeo.train.pretrain import train_base
    from edgegeo.train.settings import BaseSettings

    settings = settings_of(BaseSettings, gathered(recipe, given, other))
    with progress_bar() as progress:
        report = train_base(settings, progress)
    _finish(output, report, as_json)


def retriever(
    output: OutFlag,
    method: Annotated[
        str | None, flag("--method", verb="train", help="lora, slq or hybrid.", show_default="lora")
    ] = None,
    recipe: RecipeFlag = None,
    checkpoint: CheckpointFlag = None,
    data: DataFlag = None,
    data_root: RootFlag = None,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    resume: ResumeFlag = False,
    threads: TrainThreadsFlag = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a retrieval adapter on a frozen base: texts and photos find their pictures (NGCG-MLLM, SLQ).

    `edgegeo train settings retriever` lists what --set NAME=VALUE and recipes can set: pooling, temperature, hard
    negatives, a base in 4 bits, gradient checkpointing and more.
    """
    if method not in (None, "lora", "slq", "hybrid"):
        raise InputError(f"--method must be lora, slq or hybrid, not {method!r:.40}")
    given = _adapter(output, checkpoint, data, data_root, places, cache, lr) | {"method": method}
    given |= _schedule(steps, batch, seed, threads, resume)
    from edgegeo.train.retriever import train_retriever
    from edgegeo.train.settings import RetrieverSettings

    settings = settings_of(RetrieverSettings, gathered(recipe, given, other))
    with progress_bar() as progress:
        report = train_retriever(settings, progress)
    _finish(output, report, as_json)


def reranker(
    output: OutFlag,
    recipe: RecipeFlag = None,
    checkpoint: CheckpointFlag = None,
    data: DataFlag = None,
    data_root: RootFlag = None,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    resume: ResumeFlag = False,
    threads: TrainThreadsFlag = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a re-ranking adapter on a frozen base: yes or no on what its retriever mistakes for each other.

    `edgegeo train settings reranker` lists what --set NAME=VALUE and recipes can set.
    """
    given = _adapter(output, checkpoint, data, data_root, places, cache, lr)
    given |= _schedule(steps, batch, seed, threads, resume)
    from edgegeo.train.reranker import train_reranker
    from edgegeo.train.settings import RerankerSettings

    settings = settings_of(RerankerSettings, gathered(recipe, given, other))
    with progress_bar() as progress:
        report = train_reranker(settings, progress)
    _finish(output, report, as_json)


def gps(
    output: OutFlag,
    form: Annotated[
        str | None, flag("--form", verb="train", help="answer, reason or caption.", show_default="answer")
    ] = None,
    recipe: RecipeFlag = None,
    checkpoint: CheckpointFlag = None,
    data: DataFlag = None,
    data_root: RootFlag = None,
    steps: StepsFlag = None,
    batch: BatchFlag = None,
    lr: RateFlag = None,
    seed: SeedFlag = None,
    places: PlacesFlag = None,
    cache: CacheFlag = None,
    resume: ResumeFlag = False,
    threads: TrainThreadsFlag = None,
    answer_weight: Annotated[
        float | None, flag("--answer-weight", verb="train", help="What a coordinate's token counts; others count 1.")
    ] = None,
    other: SetFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a GPS adapter on a frozen base: a photo is answered with its position (GeoLocSFT).

    `edgegeo train settings gps` lists what --set NAME=VALUE and recipes can set.
    """
    given = _adapter(output, checkpoint, data, data_root, places, cache, lr)
    given |= _schedule(steps, batch, seed, threads, resume) | {"form": form, "answer_weight": answer_weight}
    from edgegeo.train.gps import train_gps
    from edgegeo.train.settings import GpsSettings

    settings = settings_of(GpsSettings, gathered(recipe, given, other))
    with progress_bar() as progress:
        report = train_gps(settings, progress)
    _finish(output, report, as_json)


def settings(
    verb: Annotated[str, typer.Argument(help="base, retriever, reranker or gps.")],
    as_json: JsonFlag = False,
) -> None:
    """List everything that --set NAME=VALUE and recipes can set, with defaults."""
    from dataclasses import MISSING

    from edgegeo.train.settings import BaseSettings, GpsSettings, RerankerSettings, RetrieverSettings, described

    kinds = {
        "base": BaseSettings, "retriever": RetrieverSettings, "reranker": RerankerSettings, "gps": GpsSettings,
    }  # fmt: skip
    if verb not in kinds:
        raise InputError(f"name one of {', '.join(kinds)}, not {verb!r:.40}")
    found = [(name, default, text) for name, default, text in described(kinds[verb]) if default is not MISSING]
    if as_json:
        emit_json({name: {"default": default, "text": text} for name, default, text in found})
        return
    for name, default, text in found:
        say(f"{name} = {json.dumps(default, default=str)}")
        say(textwrap.indent(textwrap.fill(text, 96), "    "))


def _adapter(
    output: Path, checkpoint: str | None, data: str | None, root: Path | None, places: int | None,
    cache: Path | None, lr: float | None,
) -> dict[str, Any]:  # fmt: skip
    hush_libraries()
    from edgegeo.models.hub import find_checkpoint

    found = find_checkpoint(checkpoint) if checkpoint else None
    named = {"data.name": data, "data.root": root, "data.places": places, "data.cache": cache}
    return {"out": output, "checkpoint": found, "lr": lr, **named}


def _schedule(
    steps: int | None, batch: int | None, seed: int | None, threads: int | None, resume: bool
) -> dict[str, Any]:
    given = {"steps": steps, "batch": batch, "seed": seed, "threads": threads, "resume": resume or None}
    return {f"schedule.{name}": value for name, value in given.items()}


def gathered(recipe: Path | None, given: dict[str, Any], other: list[str] | None) -> dict[str, Any]:
    """Dotted setting name -> value: the recipe's, then flags that were given, then --set."""
    from edgegeo.home import data_home

    found: dict[str, Any] = {"data.cache": data_home() / "planet-cache"}
    if recipe is not None:
        found |= _flat(_read(recipe))
    found |= {name: value for name, value in given.items() if value is not None}
    for word in other or []:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise InputError(f"--set takes NAME=VALUE, not {word!r:.80}")
        found[name.strip()] = _value(value)
    return found


def _read(recipe: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(recipe.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"can't read the recipe {recipe} ({error}); see export/train/ for examples") from None


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return out


def groups_of(cls: type) -> dict[str, Any]:
    """A settings class's groups (`schedule`, `lora` ...) as they are where nothing is set."""
    from dataclasses import MISSING, fields, is_dataclass

    made = {one.name: one.default_factory() for one in fields(cls) if one.default_factory is not MISSING}
    return {name: default for name, default in made.items() if is_dataclass(default)}


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
    for group, default in groups_of(cls).items():
        if isinstance(tree.get(group), dict):
            tree[group] = vars(default) | tree[group]  # a group's defaults may differ from its class's
    try:
        return parse(cls, tree, "settings")
    except SchemaFault as fault:
        raise InputError(f"{fault}; `edgegeo train settings` lists what there is") from None


def _value(text: str) -> Any:
    """A number, true or false as JSON writes them, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _finish(output: Path, report: Any, as_json: bool) -> None:
    from edgegeo.schema import to_plain

    if os.environ.get("RANK", "0") != "0":
        return  # of several processes, the first speaks
    facts = to_plain(report)
    if as_json:
        emit_json({"folder": str(output), "report": facts})
        return
    say(f"wrote {output}")
    for name, value in (facts if isinstance(facts, dict) else {}).items():
        say(f"  {name}: {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
