"""The file of a calibration: what every matrix of a model was fed, and the ranges that follow from it.

NAME.json holds what a person reads (samples, layers, ranges by method), NAME.npz beside it the arrays that GPTQ,
equalisation and the KV cache need: COMPONENT/LAYER/absmax (channels), square (channels), gram0, gram1, ...
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import sha256_of
from edgegeo.calibration.samples import SampleManifest
from edgegeo.errors import InputError
from edgegeo.schema import SchemaFault, parse, to_plain

SCHEMA_VERSION = 1
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerRecord:
    """One tensor that a matrix multiplies, or one half of a layer's KV cache."""

    tensor: str
    """Its name in the graph."""
    rows: int
    """Times it was used: positions or patches over all samples."""
    low: float
    high: float
    ranges: dict[str, tuple[float, ...]]
    """(low, high) by method, see `edgegeo.calibration.ranges`."""


@dataclass(frozen=True)
class CalibrationRecord:
    """NAME.json, whole."""

    schema: int
    model: str
    """Name of the checkpoint."""
    weights: str
    """Identifies checkpoint and adapters; an export with others refuses the file."""
    image: dict[str, Any]
    """What the model saw of a picture (`ImageSpec`)."""
    samples: SampleManifest
    random: bool
    """Whether the samples were noise: fit for trying tools, never for a model that is used."""
    components: dict[str, dict[str, LayerRecord]]
    """Component -> layer -> record; KV caches as layers.I.key and layers.I.value."""
    arrays: str
    """File of the arrays, beside this one."""
    arrays_sha256: str
    tools: dict[str, str]


class LayerStatistics:
    """What is known of one layer's input; arrays are read when they are asked for."""

    def __init__(self, record: LayerRecord, arrays: Any, prefix: str) -> None:
        self.record = record
        self._arrays, self._prefix = arrays, prefix

    @cached_property
    def absmax(self) -> Floats:
        """Largest magnitude of every channel (K,)."""
        return np.asarray(self._arrays[f"{self._prefix}/absmax"], np.float32)

    @cached_property
    def square(self) -> Floats:
        """Mean square of every channel (K,)."""
        return np.asarray(self._arrays[f"{self._prefix}/square"] / max(self.record.rows, 1), np.float32)

    def grams(self) -> list[Floats]:
        """Mean x x^T along the diagonal, by `edgegeo.calibration.observer.squares`; [] where none were recorded."""
        found: list[Floats] = []
        while (name := f"{self._prefix}/gram{len(found)}") in self._arrays:
            found.append(np.asarray(self._arrays[name], np.float32) / np.float32(max(self.record.rows, 1)))
        return found


class Statistics(Mapping[str, LayerStatistics]):
    """The layers of one component by their name."""

    def __init__(self, records: Mapping[str, LayerRecord], arrays: Any, component: str) -> None:
        self._records, self._arrays, self._component = records, arrays, component

    def __getitem__(self, layer: str) -> LayerStatistics:
        return LayerStatistics(self._records[layer], self._arrays, f"{self._component}/{layer}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def ranges(self, method: str) -> dict[str, tuple[float, float]]:
        """Layer -> (low, high) by a method."""
        return {name: (one.ranges[method][0], one.ranges[method][1]) for name, one in self._records.items()}


class Calibration:
    """An opened calibration file."""

    def __init__(self, path: Path, record: CalibrationRecord, sha256: str) -> None:
        self.path, self.record, self.sha256 = path, record, sha256

    @cached_property
    def _arrays(self) -> Any:
        return np.load(self.path.with_name(self.record.arrays), allow_pickle=False)

    def __getitem__(self, component: str) -> Statistics:
        """The statistics of a component; InputError for one that was not calibrated."""
        if component not in self.record.components:
            raise InputError(
                f"{self.path} says nothing about '{component}'; run edgegeo calibrate again for this model"
            )
        return Statistics(self.record.components[component], self._arrays, component)

    def require(self, weights: str, image: Mapping[str, Any]) -> None:
        """InputError unless the file belongs to these weights and this way to see pictures."""
        if self.record.weights != weights:
            raise InputError(
                f"{self.path} was made from other weights ({self.record.model}): ranges of one model are wrong for "
                "another; run edgegeo calibrate for this checkpoint and its adapters"
            )
        if self.record.image != image:
            raise InputError(
                f"{self.path} was made with other picture settings; calibrate with the same --image-size, --tiles and "
                "--max-pixels as the export"
            )

    def said(self) -> dict[str, Any]:
        """What a bundle's manifest says of it."""
        return {**to_plain(self.record.samples), "random": self.record.random, "statistics_sha256": self.sha256}


def open_calibration(path: str | Path) -> Calibration:
    """Read a calibration file and check that its arrays are its own; InputError says what is wrong."""
    file = Path(path)
    try:
        raw = file.read_bytes()
        data = json.loads(raw)
        version = data.get("schema") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise SchemaFault(f"it has version {version!r:.20}, this edgegeo reads {SCHEMA_VERSION}; calibrate again")
        record = parse(CalibrationRecord, data, file.name)
    except OSError as error:
        raise InputError(
            f"calibration {file} can't be read ({error.strerror}); make one with edgegeo calibrate"
        ) from None
    except (ValueError, RecursionError) as fault:
        raise InputError(f"calibration {file}: {fault}") from None
    arrays = file.parent / record.arrays
    if Path(record.arrays).name != record.arrays or not arrays.is_file():
        raise InputError(f"calibration {file} lacks {record.arrays!r:.80}, which stood beside it; copy both files")
    if sha256_of(arrays) != record.arrays_sha256:
        raise InputError(f"{arrays} differs from what {file.name} records: it was cut off or altered; calibrate again")
    return Calibration(file, record, hashlib.sha256(raw).hexdigest())


def write_calibration(record: CalibrationRecord, parts: Mapping[str, Path], path: Path) -> Calibration:
    """Write both files, arrays first, each under a temporary name until it is whole.

    parts: prefix -> .npz whose members go under `prefix/`; copied one by one, so that memory holds one array.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = path.with_suffix(".npz")
    draft = arrays.with_suffix(".npz.part")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, allowZip64=True) as out:
        for prefix, part in parts.items():
            with np.load(part, allow_pickle=False) as found:
                for name in found.files:
                    if name in ("counts", "bounds", "rows"):
                        continue
                    # A fixed date: equal statistics give equal files.
                    with out.open(zipfile.ZipInfo(f"{prefix}/{name}.npy"), "w", force_zip64=True) as stream:
                        np.lib.format.write_array(stream, np.asarray(found[name]))
    draft.replace(arrays)
    whole = {**to_plain(record), "arrays": arrays.name, "arrays_sha256": sha256_of(arrays)}
    text = path.with_suffix(".json.part")
    text.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    text.replace(path)
    return open_calibration(path)
