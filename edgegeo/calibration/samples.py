"""Which pictures and texts a calibration used: a manifest that anyone can check, with hashes, licence and seed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from edgegeo.errors import InputError
from edgegeo.schema import SchemaFault, parse, to_plain


class Sample(Protocol):
    """One place: a description and two pictures as encoded bytes."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def photo(self) -> bytes: ...
    @property
    def tile(self) -> bytes: ...


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class SampleManifest:
    """A file under calibration/, and what a bundle records of its calibration."""

    source: str
    """Where the samples come from: "planet", or a folder's name."""
    split: str
    seed: int
    """Seed of the planet or of the draw."""
    licence: str
    count: int
    """Places; each gives one photo, one tile and one text."""
    samples: dict[str, str]
    """Sample id -> sha256 over its text, photo and tile."""
    sha256: str
    """Hash over all of `samples`: two calibrations with this hash saw the same bytes."""


def readable(samples: Sequence[S], reads: Callable[[str], bool]) -> tuple[S, ...]:
    """The samples whose text a model reads whole; InputError where those are too few to judge it by."""
    fitting = tuple(sample for sample in samples if reads(sample.text))
    if len(fitting) < min(2, len(samples)):
        raise InputError(
            "the model reads texts too short for any description of a place; check tokenizer.json and "
            "max_position_embeddings in config.json"
        )
    return fitting


def describe_samples(
    samples: Sequence[Sample], split: str, seed: int, source: str = "planet", licence: str = "Apache-2.0"
) -> SampleManifest:
    """The manifest of samples in hand; InputError for none."""
    if not samples:
        raise InputError("a calibration needs at least one sample; raise calibration_samples in the recipe")
    hashes = {s.id: _digest(s.text.encode(), s.photo, s.tile) for s in samples}
    whole = _digest(json.dumps(hashes, sort_keys=True).encode())
    return SampleManifest(source, split, seed, licence, len(samples), hashes, whole)


def check_samples(manifest: SampleManifest, samples: Sequence[Sample]) -> None:
    """InputError unless the samples are, to the byte, those of the manifest."""
    found = describe_samples(samples, manifest.split, manifest.seed, manifest.source, manifest.licence)
    if found.sha256 == manifest.sha256:
        return
    other = [i for i in manifest.samples if found.samples.get(i) != manifest.samples[i]]
    first = f", the first is {other[0]}" if other else ""
    raise InputError(
        f"{len(other)} of {manifest.count} calibration samples differ from the manifest{first}: they come from other "
        "library versions or another source; write a new manifest for them"
    )


def read_manifest(path: str | Path) -> SampleManifest:
    """Read a manifest; InputError names the file and every fault."""
    file = Path(path)
    try:
        return parse(SampleManifest, json.loads(file.read_text(encoding="utf-8")), file.name)
    except OSError as error:
        raise InputError(f"calibration manifest {file} can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as fault:
        if not isinstance(fault, SchemaFault):
            raise InputError(f"calibration manifest {file} is not JSON ({fault})") from None
        raise InputError(f"calibration manifest {file}: {fault}") from None


def write_manifest(manifest: SampleManifest, path: Path) -> None:
    """Write a manifest; OSError passes through."""
    path.write_text(json.dumps(to_plain(manifest), indent=1) + "\n", encoding="utf-8")


def _digest(*pieces: bytes) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        # Lengths keep the border between two pieces from moving unseen.
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()
