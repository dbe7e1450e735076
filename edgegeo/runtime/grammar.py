"""The grammar of answers: which tokens may come next, which must, and when an answer is complete.

`export/grammar.py` writes grammar.npz and describes its arrays; nothing here scans a vocabulary.
"""

import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.runtime.trunk import Floats, Ints

MODES = ("answer", "reason", "caption")
"""The position at once; free text and then the position; the geo-caption JSON of GeoLocSFT."""
_DEAD = np.iinfo(np.int16).min
_WIDE_KEPT = 16  # free-text states kept ready: each holds two arrays as long as the vocabulary


@dataclass(frozen=True)
class Choices:
    """What may come next in one state."""

    tokens: Ints
    """(n,) token ids, ascending."""
    nexts: Ints
    """(n,) the state behind each."""
    rows: Floats | None
    """(n, H) float32 rows of the head; None where nearly everything is allowed and the whole head has to run."""
    bias: Floats | None
    farthest: int = 0
    """Most tokens from any of `nexts` to a complete answer."""

    def scores(self, hidden: Floats) -> Floats:
        """Logits (B, n) of hidden states (B, H), from the rows."""
        assert self.rows is not None
        out: Floats = hidden @ self.rows.T
        return out if self.bias is None else out + self.bias


class Grammar:
    """States are numbers; `start` gives the first one of a mode."""

    def __init__(self, path: Path, vocab: int, hidden: int) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays: dict[str, NDArray[Any]] = {name: stored[name] for name in stored.files}
            _check(arrays, vocab, hidden)
        except (OSError, ValueError, KeyError, EOFError, IndexError, BadZipFile, zlib.error) as error:
            raise BundleError(f"{path} is no grammar of this bundle ({error}); export the bundle again") from None
        self._starts = dict(zip(arrays["modes"].tolist(), arrays["starts"].tolist(), strict=True))
        self._offsets, self._tokens, self._nexts = arrays["offsets"], arrays["tokens"], arrays["nexts"]
        self._base, self._home, self._dense = arrays["base"], arrays["home"], arrays["dense"]
        self._forced, self._forced_offsets = arrays["forced"], arrays["forced_offsets"]
        self._forced_end = arrays["forced_end"]
        self.distance: Ints = arrays["distance"]
        """(S,) fewest tokens from each state to a complete answer."""
        self._rows, self._bias = arrays["rows"], arrays["bias"]
        self._row_of = {token: row for row, token in enumerate(arrays["row_tokens"].tolist())}
        self._narrow: dict[int, Choices] = {}
        self._wide: dict[int, Choices] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, bundle: Bundle) -> "Grammar | None":
        """The grammar of a bundle; None where it has none."""
        role = bundle.manifest.roles.generate
        if role is None or role.grammar is None:
            return None
        return cls(bundle.file(role.grammar), bundle.decoder.vocab, bundle.decoder.hidden)

    def start(self, mode: str) -> int:
        """First state of a mode; InputError for an unknown one."""
        if mode not in self._starts:
            raise InputError(f"unknown answer mode '{mode}'; use one of {', '.join(self._starts)}")
        return int(self._starts[mode])

    def complete(self, state: int) -> bool:
        """Whether the answer is whole: nothing may follow."""
        return bool(self.distance[state] == 0)

    def forced(self, state: int) -> tuple[list[int], int]:
        """Tokens that must follow, and the state behind them; no tokens where there is a choice."""
        tokens: list[int] = []
        while (begin := self._forced_offsets[state]) < (end := self._forced_offsets[state + 1]):
            tokens += self._forced[begin:end].tolist()
            state = int(self._forced_end[state])
        return tokens, state

    def choices(self, state: int) -> Choices:
        """What may come next."""
        if (found := self._narrow.get(state)) is not None:
            return found
        begin, end = int(self._offsets[state]), int(self._offsets[state + 1])
        tokens, nexts = self._tokens[begin:end], self._nexts[begin:end]
        if self._base[state] >= 0:
            return self._free(state, tokens, nexts)
        found = self._narrow[state] = self._listed(tokens, nexts)
        return found

    def _listed(self, tokens: Ints, nexts: Ints) -> Choices:
        rows = [self._row_of.get(token, -1) for token in tokens.tolist()]
        if min(rows, default=-1) < 0:
            return self._made(tokens, nexts)
        return self._made(tokens, nexts, self._rows[rows], self._bias[rows] if len(self._bias) else None)

    def _made(self, tokens: Ints, nexts: Ints, rows: Floats | None = None, bias: Floats | None = None) -> Choices:
        return Choices(tokens, nexts, rows, bias, int(self.distance[nexts].max(initial=0)))

    def _free(self, state: int, tokens: Ints, nexts: Ints) -> Choices:
        """Nearly everything: a dense row, changed by the state's own list."""
        with self._lock:
            if (kept := self._wide.get(state)) is not None:
                return kept
        steps = self._dense[self._base[state]]
        targets = np.where(steps == _DEAD, -1, steps + self._home[state])
        targets[tokens] = nexts
        allowed = np.flatnonzero(targets >= 0)
        made = self._made(allowed, targets[allowed])
        with self._lock:
            self._wide[state] = made
            while len(self._wide) > _WIDE_KEPT:
                self._wide.pop(next(iter(self._wide)))
        return made


def _check(arrays: dict[str, NDArray[Any]], vocab: int, hidden: int) -> None:
    """ValueError unless the arrays fit each other and the model."""
    states, rows = len(arrays["distance"]), len(arrays["row_tokens"])
    lengths = {"nexts": len(arrays["tokens"]), "starts": len(arrays["modes"])}
    lengths |= dict.fromkeys(("base", "home", "forced_end"), states)
    lengths |= dict.fromkeys(("offsets", "forced_offsets"), states + 1)
    for name, length in lengths.items():
        if arrays[name].shape != (length,):
            raise ValueError(f"{name} has shape {arrays[name].shape} instead of ({length},)")
    if arrays["rows"].shape != (rows, hidden) or arrays["bias"].shape not in ((0,), (rows,)):
        raise ValueError(f"its head rows have shape {arrays['rows'].shape} instead of ({rows}, {hidden})")
    if arrays["dense"].shape[1:] != (vocab,):
        raise ValueError(f"it was made for a vocabulary of {arrays['dense'].shape[-1]}, the head has {vocab}")
    for name in ("tokens", "forced", "row_tokens"):
        if arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < vocab:
            raise ValueError(f"{name} holds token ids beyond the vocabulary")
    for name in ("nexts", "starts", "forced_end"):
        if arrays[name].size and not -1 <= arrays[name].min() <= arrays[name].max() < states:
            raise ValueError(f"{name} holds unknown states")
    runs = np.diff(arrays["forced_offsets"])
    onward = arrays["distance"][arrays["forced_end"]] < arrays["distance"]
    if np.any(runs < 0) or not np.all(onward[runs > 0]):
        raise ValueError("forced tokens lead nowhere")
