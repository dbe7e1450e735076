"""Which of two fits better, asked few times: one pass of comparisons over an order that is nearly right."""

from collections.abc import Callable, Sequence

Prefers = Callable[[int, int], float]
"""Log-odds that the first of two candidates fits better than the second."""


def one_pass(order: Sequence[int], values: Sequence[float], prefers: Prefers, weight: float) -> list[int]:
    """Candidates, best first, after the better of each two neighbours moved up, from the last to the first.

    n candidates take n - 1 comparisons, and the one that wins all of its own comes first; the rest keep their order
    (the sliding window of pairwise ranking prompting, arXiv 2306.17563, with one pass). values: log-likelihoods of the
    candidates by the stages before; `weight` times the log-odds of a comparison is added to their difference.
    """
    line = list(order)
    for at in range(len(line) - 2, -1, -1):
        ahead, behind = line[at], line[at + 1]
        if values[behind] - values[ahead] + weight * prefers(behind, ahead) > 0:
            line[at], line[at + 1] = behind, ahead
    return line
