"""What a sweep measures: the settings a person gives, and the cells they span."""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import edgegeo
from edgegeo.errors import InputError
from edgegeo.measure import machine

JOBS = {
    "embed_text": "one description -> vector",
    "embed_image": "one JPEG photo -> vector",
    "generate": "one JPEG photo -> <answer>lat, lon</answer>, greedy",
    "search": "one description -> its vector -> the 10 nearest tiles of the gallery, exact",
}
"""Every job the sweep knows, and what one item of it is."""


@dataclass(frozen=True)
class SweepSettings:
    """A sweep: every combination of its lists is a cell, measured in a process of its own."""

    batches: tuple[int, ...] = (1, 8, 32)
    threads: tuple[int, ...] = ()
    """Processor threads of every component; empty for the runtime's own choice ("auto"), as users get it."""
    jobs: tuple[str, ...] = tuple(JOBS)
    places: int = 1000
    """Unseen places: the gallery of `search`, and what accuracy is measured on."""
    seed: int = 0
    """Order of the cells."""
    warmup: int = 2
    """Runs before the counted ones."""
    seconds: float = 2.0
    """Counted runs go on for about this long, within the two limits below."""
    min_repeats: int = 5
    max_repeats: int = 200
    timeout_s: float = 900.0
    """A cell that takes longer is given up and noted as failed."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or max(self.batches) > 1024:
            raise InputError(f"batch sizes must be between 1 and 1024, got {list(self.batches)}")
        if self.threads and (min(self.threads) < 1 or max(self.threads) > 1024):
            raise InputError(f"threads must be between 1 and 1024, got {list(self.threads)}")
        unknown = [job for job in self.jobs if job not in JOBS]
        if unknown or not self.jobs:
            raise InputError(f"unknown job {', '.join(unknown) or '(none)'}; use some of {', '.join(JOBS)}")
        if not 1 <= self.places <= 1_000_000:
            raise InputError(f"places must be between 1 and 1,000,000, got {self.places}")
        if self.min_repeats < 1 or self.max_repeats < self.min_repeats or self.warmup < 0 or self.seconds <= 0:
            raise InputError("repeats must be 1 or more, warm-up 0 or more, seconds above 0")


@dataclass(frozen=True)
class Cell:
    """One measurement, complete: a worker process gets this and nothing else."""

    bundle: str
    fingerprint: str
    precision: str
    job: str
    batch: int
    threads: int
    places: int
    warmup: int
    seconds: float
    min_repeats: int
    max_repeats: int
    inputs: str
    """Folder of the photos and texts, see `edgegeo.bench.inputs`."""
    gallery: str

    def key(self) -> str:
        """Identifies the measurement: equal keys mean that measuring again would say nothing new.

        Folders are left out, since the bundle's fingerprint says what is in them; the machine and the versions
        that were measured with are in.
        """
        facts = asdict(self)
        for place in ("bundle", "inputs", "gallery"):
            del facts[place]
        text = json.dumps([facts, machine(), versions()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def versions() -> dict[str, str]:
    """Versions of what does the work, without importing it."""
    found = {"edgegeo": edgegeo.__version__}
    for package in ("onnxruntime", "onnxruntime-gpu", "numpy", "pillow", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
