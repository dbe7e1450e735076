"""What a sweep is, as a person writes it: models, cells and measuring, from a TOML file under benchmarks/sweeps/."""

import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from edgegeo.errors import InputError
from edgegeo.measure import StoppingRule
from edgegeo.recipe import PRECISIONS
from edgegeo.runtime.generate import MOST_CANDIDATES
from edgegeo.schema import SchemaFault, parse

JOBS = {
    "embed_text": "one description -> vector",
    "embed_image": "one JPEG photo -> vector",
    "search": "one description -> its vector -> the 10 nearest tiles of the gallery",
    "rerank": "one JPEG photo -> vector -> search -> the best tiles looked at again beside the photo",
    "generate": "one JPEG photo -> <answer>lat, lon</answer>: greedy, or several candidates and their fusion",
    "locate": "one JPEG photo -> search, re-ranking and generation -> position and radius",
}
"""Every job a sweep knows, and what one item of it is."""
DEFAULT_JOBS = ("embed_text", "embed_image", "search", "generate")
PROVIDERS = ("cpu", "cuda", "tensorrt")


@dataclass(frozen=True)
class Models:
    """What is measured: bundles as they are, or what a checkpoint is exported to, every combination of the lists."""

    bundles: tuple[str, ...] = ()
    """Folders, or names under the data home. With them nothing is exported."""
    checkpoint: str | None = None
    """As `edgegeo export` takes it; None: the packaged model."""
    precision: tuple[str, ...] = ("fp32", "int8", "int4")
    recipes: tuple[str, ...] = ()
    """TOML files of `edgegeo export --recipe`, besides the precisions; relative to the working folder."""
    method: tuple[str, ...] = ()
    """Retrievers among the checkpoint's adapters (lora, slq, ...); empty: the checkpoint's own choice."""
    image_size: tuple[int, ...] = ()
    tiles: tuple[int, ...] = ()
    max_pixels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.precision if name not in PRECISIONS]:
            raise InputError(f"unknown precision '{unknown[0]}'; use {', '.join(PRECISIONS)}")
        exported = (self.checkpoint, self.recipes, self.method, self.image_size, self.tiles, self.max_pixels)
        if self.bundles and any(exported):
            raise InputError(
                "checkpoint, recipes, method, image_size, tiles and max_pixels say what to export; leave them out "
                "with bundles"
            )
        if not self.bundles and not self.precision and not self.recipes:
            raise InputError("nothing to measure: name bundles, precisions or recipes")


@dataclass(frozen=True)
class Axes:
    """What varies from cell to cell of one model; every job takes the axes that mean something to it."""

    jobs: tuple[str, ...] = DEFAULT_JOBS
    batch: tuple[int, ...] = (1, 8, 32)
    """embed_text, embed_image, search, generate. One is the scenario SingleStream, more are Offline."""
    threads: tuple[int, ...] = ()
    """Processor threads of every component; empty: the runtime's own choice, as users get it."""
    provider: tuple[str, ...] = ("cpu",)
    dims: tuple[int, ...] = ()
    """embed_text, embed_image, search: leading dimensions of an embedding that are kept; 0: all. Others than those that
    the model was trained for (Matryoshka) are an error."""
    rerank: tuple[int, ...] = (10,)
    """rerank, locate: tiles that are looked at again; 0 (locate only): none."""
    candidates: tuple[int, ...] = (1,)
    """generate (batch 1), locate: answers written and fused."""
    power_mode: tuple[int, ...] = ()
    """Modes of nvpmodel, each set before its cells and the first one restored at the end; empty: as it is."""

    def __post_init__(self) -> None:
        _within("batch", self.batch, 1, 1024)
        _within("threads", self.threads, 1, 1024)
        _within("dims", self.dims, 0, 2**16)
        _within("rerank", self.rerank, 0, 1000)
        _within("candidates", self.candidates, 1, MOST_CANDIDATES)
        _within("power_mode", self.power_mode, 0, 63)
        for name, known in (("jobs", JOBS), ("provider", PROVIDERS)):
            given = getattr(self, name)
            if not given or (unknown := [one for one in given if one not in known]):
                raise InputError(f"{name} takes some of {', '.join(known)}, not {', '.join(unknown) or 'nothing'}")
        if not self.batch or not self.rerank or not self.candidates:
            raise InputError("batch, rerank and candidates need at least one number")


@dataclass(frozen=True)
class Measuring:
    """How a cell is measured."""

    places: int = 1000
    """Unseen places: the searched gallery, and what accuracy is measured on."""
    inputs: int = 32
    """Photos and texts that are gone through, so that a result is not that of one lucky picture; a batch that is larger
    has as many."""
    rounds: int = 2
    """Processes a cell is measured in, far apart in time: what varies between them is part of the noise."""
    warmup: int = 2
    """Runs of a process before the counted ones."""
    target: float = 0.02
    """Half the 95 % interval of the median that ends a round, as a share of the median."""
    seconds: float = 0.75
    """Counted runs of a round end after so long, once `min_repeats` are done."""
    min_repeats: int = 10
    max_repeats: int = 1000
    cool_down_s: float = 60.0
    """Longest wait before a cell for the hottest zone to fall to within 3 degrees of the beginning of the sweep."""
    pause_s: float = 0.1
    """Rest before every cell."""
    timeout_s: float = 900.0
    """A round that takes longer is given up and noted as failed."""
    seed: int = 0
    """Order of the cells."""

    def __post_init__(self) -> None:
        _within("places", (self.places,), 1, 1_000_000)
        _within("rounds", (self.rounds,), 1, 100)
        _within("inputs", (self.inputs,), 1, 10_000)
        _within("warmup", (self.warmup,), 0, 1_000_000)
        _within("cool_down_s", (self.cool_down_s,), 0, 1_000_000)
        _within("pause_s", (self.pause_s,), 0, 1_000_000)
        _within("timeout_s", (self.timeout_s,), 1, 1_000_000)
        self.rule()

    def rule(self) -> StoppingRule:
        """When a round has enough repeats."""
        return StoppingRule(self.target, self.min_repeats, self.max_repeats, self.seconds)


@dataclass(frozen=True)
class Sweep:
    """A sweep: every combination is a cell, measured in processes of its own. A TOML file holds the same keys."""

    name: str = "bench"
    about: str = ""
    """What the sweep is to settle; the reports open with it."""
    models: Models = field(default_factory=Models)
    cells: Axes = field(default_factory=Axes)
    measure: Measuring = field(default_factory=Measuring)


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep from a TOML file; InputError names the file and every fault in it."""
    file = Path(path)
    try:
        return parse(Sweep, _toml(file), file.name)
    except OSError as error:
        raise InputError(
            f"sweep {file} can't be read ({error.strerror}); see the ones under benchmarks/sweeps/"
        ) from None
    except (ValueError, SchemaFault) as fault:  # a TOMLDecodeError is a ValueError
        raise InputError(f"sweep {file}: {fault}") from None
    except InputError as fault:
        raise InputError(f"sweep {file}: {fault}") from None


def _toml(file: Path) -> Any:
    # Python 3.10 has no tomllib; tomli is the same code.
    return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(file.read_text(encoding="utf-8"))


def _within(name: str, values: tuple[float, ...], least: int, most: int) -> None:
    if any(not least <= value <= most for value in values):
        raise InputError(f"{name} must be between {least} and {most:,}, got {list(values)}")
