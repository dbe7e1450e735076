"""How an answer is decoded: the settings, and tokens drawn from their scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.runtime.grammar import MODES
from edgegeo.runtime.trunk import Floats

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Decoding:
    """Settings of one answer. InputError for values that mean nothing."""

    mode: str = "answer"
    """"answer": the position at once; "reason": free text, then the position; "caption": the geo-caption JSON."""
    grammar: bool | None = None
    """Whether only well-formed answers may be written; None: wherever the bundle has a grammar."""
    temperature: float = 0.0
    """0: the most likely token each time."""
    top_p: float = 1.0
    """Sampling takes the most likely tokens that together have this share of the probability."""
    beams: int = 1
    """Answers followed at once; the most likely complete ones are kept. Needs the grammar, and temperature 0."""
    seed: int = 0
    """Same seed, same tokens, on the same machine and with the same number of candidates."""
    max_new_tokens: int | None = None
    """Longest answer; None: the bundle's own, and in the other modes what they need."""
    free_logprob: bool = False
    """Also score the answer as the model would have without a grammar (one more pass for each answer)."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"unknown answer mode '{self.mode}'; use one of {', '.join(MODES)}")
        if not 0 <= self.temperature <= 10:
            raise InputError(f"the temperature must be between 0 and 10, not {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, not {self.top_p:g}")
        if not 1 <= self.beams <= 32:
            raise InputError(f"beams must be between 1 and 32, not {self.beams}")
        if self.beams > 1 and (self.temperature or self.grammar is False):
            raise InputError(
                "beams follow the most likely answers of the grammar: leave temperature and no-grammar out"
            )
        if self.grammar is False and self.mode != "answer":
            raise InputError(f"the mode '{self.mode}' is a grammar; leave no-grammar out")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.seed < 0:
            raise InputError(f"the seed must not be negative, got {self.seed}")


def log_totals(scores: Floats) -> Doubles:
    """log(sum(exp(row))) of logits (B, n) as (B,), without overflow."""
    top = scores.max(axis=1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(scores - top).sum(axis=1, dtype=np.float64)))


def draw(scores: Floats, temperature: float, top_p: float, chances: Doubles) -> NDArray[np.intp]:
    """Indexes (B,) into logits (B, n), drawn from each row's nucleus; temperature above 0, chances (B,) in [0, 1).

    Likely tokens come first, so a small chance means a likely token whatever the other settings.
    """
    with np.errstate(over="ignore"):  # next to 0 all but the likeliest are infinitely far
        scaled = (scores - scores.max(axis=1, keepdims=True)).astype(np.float64) / temperature
    order = np.argsort(-scaled, axis=1, kind="stable")
    rows = np.arange(len(scaled))
    ends = np.cumsum(np.exp(scaled[rows[:, None], order]), axis=1)
    # The nucleus: the fewest tokens that reach the share, so whatever begins before the share is reached.
    last = (ends < top_p * ends[:, -1:]).sum(axis=1).clip(max=scores.shape[1] - 1)
    total = ends[rows, last]
    place = np.minimum((ends <= (chances * total)[:, None]).sum(axis=1), last)
    return np.asarray(order[rows, place])
