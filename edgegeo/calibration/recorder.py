"""Runs float graphs over samples and sums up what their matrices are fed; goes on where a killed run stopped."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.calibration.observer import Observer
from edgegeo.errors import InputError
from edgegeo.progress import Progress, silent

SAVE_SECONDS = 30.0
"""At most so much work is lost when a run is killed."""
Feed = Callable[[], Sequence[Mapping[str, Any]]]
"""Makes the session's inputs of one sample: of one run, or of several whose outputs are joined along the first axis."""


class Recorder:
    """Keeps its state in a folder: one finished or half-finished file a pass."""

    def __init__(self, folder: Path, key: Mapping[str, Any], progress: Progress = silent) -> None:
        """key: everything that the statistics depend on; what a run with another key left is removed.

        InputError for a folder that no run left.
        """
        self.folder, self.progress = folder, progress
        told = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        mark = folder / "key"
        if folder.exists() and not mark.is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is where a calibration keeps its state, and is something else; move it away")
        if not mark.is_file() or mark.read_text() != told:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            mark.write_text(told)
        self.observers: dict[str, Path] = {}
        """COMPONENT/LAYER -> the file of its finished observer."""
        self.resumed = 0
        """Samples that a killed run had done and this one did not repeat."""

    def record(
        self, name: str, session: Any, watched: Mapping[str, str], feeds: Sequence[Feed], outputs: Sequence[str] = (),
        moments: bool = False,
    ) -> list[list[NDArray[Any]]]:  # fmt: skip
        """Run a session over all feeds; returns, for every feed, the `outputs`.

        name: of the pass, unique. watched: COMPONENT/LAYER -> output of the session that is observed; several layers
        may share an output. moments: keep the second moments between channels too. InputError without feeds.
        """
        if not feeds:
            raise InputError(f"a calibration needs at least one sample that '{name}' can read: a text, or a picture")
        tensors = sorted(set(watched.values()))
        place = self.folder / name
        state = _State.load(place, tensors, moments, outputs)
        self.resumed += state.done
        saved = time.monotonic()
        for index in range(state.done, len(feeds)):
            self.progress(f"calibrate {name}", index, len(feeds))
            kept: list[list[NDArray[Any]]] = []
            for inputs in feeds[index]():
                asked = [tensor for tensor in (*tensors, *outputs) if tensor not in inputs]
                found = dict(zip(asked, session.run(asked, dict(inputs)) if asked else (), strict=True))
                found.update(inputs)
                for tensor in tensors:
                    state.observers[tensor].see(_channels_last(tensor, found[tensor]))
                kept.append([found[name] for name in outputs])
            state.kept.append([np.concatenate(values) for values in zip(*kept, strict=True)])
            state.done = index + 1
            if time.monotonic() - saved > SAVE_SECONDS or state.done == len(feeds):
                state.save(place)
                saved = time.monotonic()
        self.progress(f"calibrate {name}", len(feeds), len(feeds))
        for layer, tensor in watched.items():
            self.observers[layer] = place / f"{tensors.index(tensor)}.npz"
        return state.kept

    def remove(self) -> None:
        """Forget everything; the statistics are elsewhere by then."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def observer(self, layer: str) -> Observer:
        """The finished observer of COMPONENT/LAYER, without moments."""
        with np.load(self.observers[layer], allow_pickle=False) as found:
            return Observer.restored({k: found[k] for k in found.files if not k.startswith("gram")}, False)


class _State:
    """A pass on disk: observers N.npz, kept outputs kept.npz, and last the number of feeds done."""

    def __init__(self, tensors: Sequence[str], moments: bool) -> None:
        self.tensors = tensors
        self.observers = {tensor: Observer(moments and not _is_cache(tensor)) for tensor in tensors}
        self.kept: list[list[NDArray[Any]]] = []
        self.done = 0

    @classmethod
    def load(cls, place: Path, tensors: Sequence[str], moments: bool, outputs: Sequence[str]) -> "_State":
        state = cls(tensors, moments)
        retired = place.with_name(f"{place.name}.old")
        if retired.exists() and not place.exists():  # killed between the two moves of `save`
            retired.rename(place)
        if not (place / "done").is_file():
            return state
        done = int((place / "done").read_text())
        for index, tensor in enumerate(tensors):
            with np.load(place / f"{index}.npz", allow_pickle=False) as found:
                state.observers[tensor] = Observer.restored(dict(found), moments and not _is_cache(tensor))
        if outputs:
            with np.load(place / "kept.npz", allow_pickle=False) as found:
                state.kept = [[found[f"{i}.{j}"] for j in range(len(outputs))] for i in range(done)]
        else:
            state.kept = [[] for _ in range(done)]
        state.done = done
        return state

    def save(self, place: Path) -> None:
        """Written beside and moved over, so that a kill leaves the older state whole."""
        draft = place.with_name(f"{place.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for index, tensor in enumerate(self.tensors):
            _write(draft / f"{index}.npz", self.observers[tensor].arrays())
        if any(self.kept):
            _write(draft / "kept.npz", {f"{i}.{j}": v for i, row in enumerate(self.kept) for j, v in enumerate(row)})
        (draft / "done").write_text(str(self.done))
        retired = place.with_name(f"{place.name}.old")
        shutil.rmtree(retired, ignore_errors=True)
        if place.exists():
            place.rename(retired)
        draft.rename(place)
        shutil.rmtree(retired, ignore_errors=True)


def _write(file: Path, arrays: Mapping[str, Any]) -> None:
    with file.open("wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())


def _is_cache(tensor: str) -> bool:
    return tensor.startswith("present.")


def _channels_last(tensor: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
    """KV caches (B, kv, S, hd) as (B, S, kv * hd); everything else as it is."""
    if not _is_cache(tensor):
        return value
    batch, heads, length, width = value.shape
    return value.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)
