"""A training run: steps, validations, states to resume from, and an account of it all in `OUT.run`."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import TrainingError, one_line
from edgegeo.measure import machine, peak_resident_mb
from edgegeo.progress import Progress, silent
from edgegeo.schema import to_plain
from edgegeo.train.adapting import Learner, open_learner, save_lora, weights_hash
from edgegeo.train.diary import Diary
from edgegeo.train.masters import Masters, linear
from edgegeo.train.parallel import World
from edgegeo.train.plot import plot_run
from edgegeo.train.settings import GpsSettings, RerankerSettings, RetrieverSettings, Schedule
from edgegeo.train.sources import Lessons, Pairs

Scores = dict[str, float]
Settings = RetrieverSettings | GpsSettings | RerankerSettings
PACKAGES = ("edgegeo", "torch", "transformers", "peft", "numpy", "pillow", "bitsandbytes")
"""Whose versions an account names."""
FILES = ("diary.jsonl", "state*", "best.*", "mined-*.npy", "run.json", "run.png")
"""A run's own, in `OUT.run`."""


@dataclass(frozen=True)
class AdapterReport:
    """What an adapter training reached."""

    out: str
    steps: int
    trainable: int
    """Trained parameters."""
    best_step: int
    """The validated step whose weights were kept."""
    validation: Scores
    """Scores of the kept weights on validation places."""
    before: Scores
    """Scores of the base without the adapter on the same places."""
    seconds: float
    """Of this process, validations included."""
    peak_mb: float
    """Largest resident memory."""
    refused: dict[str, int]
    """Rows of the data set that could not be used: reason and count; `edgegeo data check` names them."""


@dataclass(frozen=True)
class Job:
    """What a run does."""

    step: Callable[[int], Scores]
    """Computes a step by its number and leaves the gradients; returns what the diary keeps. Everything random in it
    follows from the number, so that a resumed run is the same run."""
    validate: Callable[[], Scores]
    goal: Callable[[Scores], float]
    """What validation chooses by; larger is better."""
    masters: Masters
    lr: float
    facts: dict[str, Any]
    """Settings and hashes: what must be equal for a continued run to be the same run."""


def run(job: Job, schedule: Schedule, steps: int, folder: Path, world: World, progress: Progress) -> dict[str, Any]:
    """Train, keep the best validated weights in `job.masters`, write the account; returns what it reached."""
    began = time.monotonic()
    files = Run(folder, job, world)
    done, best_step, best, before = files.open(schedule.resume)
    diary = Diary(folder / "diary.jsonl", done) if world.first else None
    if not done and not before:
        before = job.validate()
        with writing(folder):
            if diary:
                diary.write(0, **before)
    for number in range(done, steps):
        told = job.step(number)
        told["norm"] = finite(job.masters.step(linear(number, steps, schedule.warmup, job.lr)))
        done = number + 1
        scores: Scores = {}
        if done % schedule.validate_every == 0 or done == steps:
            scores = job.validate()
            if not best or job.goal(scores) >= job.goal(best):
                best_step, best = done, scores
        with writing(folder):
            if scores and best_step == done:
                files.keep_best()
            if diary:
                diary.write(done, **told, **scores)
            if done % schedule.save_every == 0 or done == steps:
                files.save(done, best_step, best, before)
        progress("adapting", done, steps)
    files.restore_best()
    reached = {
        "steps": steps, "best_step": best_step, "validation": best, "before": before,
        "seconds": time.monotonic() - began, "peak_mb": peak_resident_mb(),
    }  # fmt: skip
    with writing(folder):
        if world.first:
            files.account(reached, schedule)
    world.wait()
    return reached


@dataclass(frozen=True)
class Opened:
    """What the training of an adapter starts with."""

    settings: Settings
    world: World
    folder: Path
    """Of the run's own files."""
    learner: Learner
    told: Progress
    """Silent but in the first process."""


def open_run(settings: Settings, progress: Progress) -> Opened:
    """Open the checkpoint; TrainingError for what can't be trained, resumed, or written over."""
    world = World()
    folder = run_folder(settings.out, settings.schedule.resume)
    learner = open_learner(settings.checkpoint, settings.schedule, settings.memory, world)
    return Opened(settings, world, folder, learner, progress if world.first else silent)


def run_adapter(
    opened: Opened, train: Pairs | Lessons, held: Pairs | Lessons, masters: Masters, lr: float, steps: int,
    step: Callable[[int], Scores], validate: Callable[[], Scores], goal: Callable[[Scores], float],
    save: Callable[[], None] | None = None,
) -> AdapterReport:  # fmt: skip
    """Train on one source, validate on another, and write the adapter; `save` writes it, by default the LoRA."""
    settings, learner, world = opened.settings, opened.learner, opened.world
    facts = {"train": train.fingerprint, "validation": held.fingerprint, "base": weights_hash(learner.checkpoint)}
    job = Job(step, validate, goal, masters, lr, identity(settings, steps) | facts)

    def save_learned() -> None:
        save_lora(learner.adapted, masters.weights(), settings.out)

    reached = run(job, settings.schedule, steps, opened.folder, world, opened.told)
    if world.first:
        with writing(settings.out):
            (save or save_learned)()
    world.close()
    return AdapterReport(str(settings.out), trainable=masters.count, refused=train.refused, **reached)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """TrainingError for a disk that is full or can't be written to."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"can't write to {folder} ({one_line(error)}); make room there or name another folder; "
            "--resume goes on from the last saved state"
        ) from None


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """TrainingError for a saved state that is damaged."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"the state in {folder} is damaged ({one_line(error)}); move the folder away and start anew"
        ) from None


class Run:
    """The files of a run: state.json with the state it names to resume from, best.safetensors, run.json, run.png."""

    def __init__(self, folder: Path, job: Job, world: World) -> None:
        self.folder, self.job, self.world = folder, job, world
        self._best = folder / "best.safetensors"

    def open(self, resume: bool) -> tuple[int, int, Scores, Scores]:
        """(steps done, best step, its scores, scores before) to go on from; an older run's files go if it is anew."""
        if not resume:
            for old in (file for pattern in FILES for file in self.folder.glob(pattern)):
                if self.world.first:
                    old.unlink()
            self.world.wait()
            with writing(self.folder.parent):
                self.folder.mkdir(parents=True, exist_ok=True)
            return 0, 0, {}, {}
        with reading(self.folder):
            saved = json.loads((self.folder / "state.json").read_text("utf-8"))
            facts, told = saved["facts"], (saved["step"], saved["best_step"], saved["best"], saved["before"])
        wanted = json.loads(json.dumps(to_plain(self.job.facts)))
        changed = sorted(key for key in wanted if facts.get(key) != wanted[key])
        if changed:
            raise TrainingError(
                f"{self.folder} was trained with other settings ({', '.join(changed)}); use the same ones to resume"
            )
        with reading(self.folder):
            self.job.masters.load(self._state(saved["step"]))
        return told

    def save(self, step: int, best_step: int, best: Scores, before: Scores) -> None:
        """The state first, then the number that points to it: a kill between them resumes from the one before."""
        if not self.world.first:
            return
        self.job.masters.save(self._state(step))
        facts = {"step": step, "best_step": best_step, "best": best, "before": before, "facts": self.job.facts}
        part = self.folder / "state.json.part"
        part.write_text(json.dumps(to_plain(facts)), encoding="utf-8")
        part.replace(self.folder / "state.json")
        for older in self.folder.glob("state-*.safetensors"):
            if older != self._state(step):
                older.unlink()

    def _state(self, step: int) -> Path:
        return self.folder / f"state-{step:06d}.safetensors"

    def keep_best(self) -> None:
        """The present weights are the best so far."""
        if self.world.first:
            self.job.masters.save(self._best)

    def restore_best(self) -> None:
        """Go back to them."""
        self.world.wait()
        self.job.masters.load(self._best)

    def account(self, reached: dict[str, Any], schedule: Schedule) -> None:
        """run.json: what was asked, on what, with which versions, and what came of it."""
        versions: dict[str, str] = {}
        for name in PACKAGES:
            with suppress(PackageNotFoundError):
                versions[name] = version(name)
        facts = {
            "facts": self.job.facts, "schedule": asdict(schedule), "reached": reached, "machine": machine(),
            "processes": self.world.size, "versions": versions,
        }  # fmt: skip
        text = json.dumps(to_plain(facts), indent=1, default=str)
        (self.folder / "run.json").write_text(text + "\n", encoding="utf-8")
        plot_run(self.folder / "diary.jsonl", self.folder / "run.png", self.folder.name.removesuffix(".run"))


def step_seed(seed: int, number: int) -> int:
    """A seed for everything random in one step."""
    return (seed * 1_000_003 + number * 104_729) % (1 << 31)


def steps_of(schedule: Schedule, places: int) -> int:
    """Optimiser steps of a run: as many as asked, or as the epochs make."""
    if schedule.epochs is None:
        return schedule.steps
    return max(1, math.ceil(schedule.epochs * places / min(schedule.batch, places)))


def passed(number: int, batch: int, total: int, seed: int) -> NDArray[np.int64]:
    """(batch,) which of `total` things a step takes: passes over all of them, each in an order of its own.

    Where a pass ends inside a step, a few may be taken twice.
    """
    batch = min(batch, total)
    start, parts = number * batch, []
    for turn in range(start // total, (start + batch - 1) // total + 1):
        order = np.random.default_rng((seed, turn, 2)).permutation(total)
        parts.append(order[max(0, start - turn * total) : start + batch - turn * total])
    return np.concatenate(parts)


def finite(value: float) -> float:
    """A loss or a gradient's norm; TrainingError where it is no number any more."""
    if not math.isfinite(value):
        raise TrainingError("the loss is no longer a number; lower the learning rate, or compute in fp32")
    return value


def identity(settings: Settings, steps: int) -> dict[str, Any]:
    """What must be equal for a continued run to be the same run: every setting but places, threads and chunks."""
    plain: dict[str, Any] = to_plain(settings)
    for name in ("out", "checkpoint", "retriever"):
        if plain.get(name) is not None:
            plain[name] = Path(plain[name]).name
    plain["data"] |= {"cache": None, "root": None}
    plain["schedule"] = {**plain["schedule"], "steps": steps, "resume": False, "threads": None, "chunk": None}
    return plain


def run_folder(out: Path, resume: bool) -> Path:
    """The folder of a run's own files, `OUT.run`.

    TrainingError where there is nothing to resume, or where starting anew would write over anything.
    """
    out = Path(os.path.abspath(out))
    folder = out.parent / f"{out.name}.run"
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file; name a folder to write")
    if resume and not (folder / "state.json").is_file():
        raise TrainingError(f"nothing to resume in {folder}; leave out --resume to start anew")
    if resume:
        return folder
    if (folder / "state.json").is_file():
        raise TrainingError(f"{folder} holds a run already; --resume goes on with it, or name another folder")
    if out.is_dir() and any(out.iterdir()):
        raise TrainingError(f"{out} is there already and not empty; name another folder")
    return folder
