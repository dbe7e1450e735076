"""Both stages of a search as one order: how far the second look is believed, and when it may stop.

The first stage gives a cosine, the second log-odds that a pair belongs together. Divided by a temperature, cosines are
log-likelihoods up to a constant (that is what InfoNCE trains); so are the log-odds, as far as a weight says. Their sum
orders the candidates. Temperature and weight are fitted for each bundle on places whose tile is known
(edgegeo/evaluate/weighing.py): pointwise yes/no of some models orders no better than chance, and then weighs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.sphere import Doubles

QUERIES = ("text", "photo")
"""What a query can be; each is weighed by itself."""
TEXT_SHARE = 0.5
"""Share of the words in a search by words and photos together, in a bundle that was not fitted for it."""
Look = Callable[[Sequence[int]], Doubles]
"""Looks at candidates, by their places in the list: their log-odds (n,)."""


@dataclass(frozen=True)
class Weighing:
    """How one kind of query is ordered."""

    temperature: float = 0.03
    """Cosines are divided by it. Unfitted: that of the retriever's InfoNCE (NGCG-MLLM)."""
    weight: float = 0.3
    """Log-odds are multiplied by it; 0: a second look tells nothing."""
    low: float = -8.0
    high: float = 8.0
    """Log-odds are cut to this range, so that no single one decides alone. Fitted: the range seen on known places."""
    pair_weight: float = 0.3
    """Log-odds that the first of two candidates fits better are multiplied by it."""
    sure: Linear | None = None
    """Above 0 the first tile shows the place itself; of the features that `doubts` names. None: by p(yes) alone."""

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.weight, self.low, self.high, self.pair_weight)
        if not np.isfinite(numbers).all() or self.temperature <= 0 or min(self.weight, self.pair_weight) < 0:
            raise ValueError("a weighing needs a temperature above 0 and weights of at least 0")
        if self.low > self.high:
            raise ValueError("the range of log-odds must not be empty")

    def fused(self, scores: Doubles, margins: Doubles) -> Doubles:
        """(N,) or (B, N) float64, larger is better: cosines and log-odds of yes as one log-likelihood."""
        cut = np.clip(np.asarray(margins, np.float64), self.low, self.high)
        return np.asarray(np.asarray(scores, np.float64) / self.temperature + self.weight * cut)


@dataclass(frozen=True)
class Ranked:
    """An order of N candidates."""

    order: NDArray[np.int64]
    """(N,) places in the list, best first; equal ones keep the order they came in."""
    margins: Doubles
    """(N,) log-odds as they came; NaN for candidates that were not looked at."""
    values: Doubles
    """(N,) what they were ordered by; of a candidate not looked at, the middle of what was possible."""


def rank(
    scores: Doubles, weighing: Weighing, look: Look, top: int | None = None, step: int = 4, whole: bool = False
) -> Ranked:
    """Order candidates (N,) by cosines and log-odds, looking only at those whose log-odds can still matter.

    Log-odds are cut to [low, high], so that what a candidate can come to is known before it is looked at. Those that
    could reach highest are looked at first, `step` at a time, until no unknown one can change the first `top` places
    (None: any place). The first `top` are then exactly those of a full run, which needs no assumption beyond the cut;
    behind them stands what was left out, by what is known of it. whole: all are looked at, whatever they can change.
    """
    scores = np.asarray(scores, np.float64)
    count = len(scores)
    top = count if top is None else min(top, count)
    least, most = weighing.fused(scores, np.full(count, -np.inf)), weighing.fused(scores, np.full(count, np.inf))
    margins, unknown = np.full(count, np.nan), np.ones(count, bool)
    while len(wanted := np.flatnonzero(unknown) if whole else _unsettled(least, most, unknown, top)):
        chosen = wanted[np.argsort(-most[wanted], kind="stable")][: max(1, step)]
        margins[chosen] = look([int(i) for i in chosen])
        unknown[chosen] = False
        least[chosen] = most[chosen] = weighing.fused(scores[chosen], margins[chosen])
    values = 0.5 * (least + most)
    return Ranked(np.argsort(-values, kind="stable"), margins, values)


def _unsettled(least: Doubles, most: Doubles, unknown: NDArray[np.bool_], top: int) -> NDArray[np.int64]:
    """Unknown candidates whose range touches another one's, and reaches up to the first `top`."""
    if top < 1 or not unknown.any():
        return np.empty(0, np.int64)
    floor = np.partition(least, len(least) - top)[len(least) - top]  # `top` candidates come to this for sure
    touches = (least[:, None] <= most[None]) & (least[None] <= most[:, None])
    np.fill_diagonal(touches, False)
    # Two that are below the first `top` whatever happens may stay in doubt.
    reaches = most >= floor
    return np.flatnonzero(unknown & reaches & (touches & reaches[None]).any(axis=1) & (least < most))


def doubts(scores: Doubles, margins: Doubles, values: Doubles) -> dict[str, Doubles]:
    """What says whether the first of B orders (B, N) is the place itself: (B,) each, for `Weighing.sure`.

    N candidates by rank; a margin that is unknown (NaN) counts as 0.
    """
    seen = np.nan_to_num(np.asarray(margins, np.float64))
    gap = values[:, 0] - values[:, 1] if values.shape[1] > 1 else np.full(len(values), 10.0)
    return {"cosine": np.asarray(scores, np.float64)[:, 0], "margin": seen[:, 0], "gap": np.minimum(gap, 10.0)}
