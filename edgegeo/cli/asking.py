"""Flags of a question: several photos of one place, what the place is not, and how hits are looked at again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import flag
from edgegeo.cli.output import note
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime import Reranking
    from edgegeo.runtime.doubt import Fit

AvoidFlag = Annotated[
    list[str] | None, flag("--not", verb="locate", help='What the place is not, as "the sea"; may be given again.')
]
RerankFlag = Annotated[int, flag("--rerank", help="Best tiles to look at again as pairs; 0: none.", min=0, max=1000)]
BothOrdersFlag = Annotated[
    bool, flag("--both-orders", help="Re-rank each pair twice, query first and tile first; three times as long.")
]
PairwiseFlag = Annotated[
    int, flag("--pairwise", help="Best so many re-ranked tiles to compare two by two as well; 0: none.", min=0)
]


def reranking_of(count: int, both_orders: bool, pairwise: int) -> "Reranking":
    """How hits are looked at again; InputError for flags that belong to --rerank without it."""
    from edgegeo.runtime import Reranking

    if (both_orders or pairwise) and not count:
        raise InputError("--both-orders and --pairwise belong to --rerank; add for instance --rerank 20")
    return Reranking(count, both_orders, pairwise)


def apart(photos: Sequence[Path], together: bool, watch: Path | None) -> tuple[list[Path], list[Path]]:
    """(photos to be located one by one, more photos of the first one's place); InputError where that makes no sense."""
    if not together:
        return list(photos), []
    if len(photos) < 2 or watch is not None:
        raise InputError("--together takes two photos or more of one place; leave it out for a single one or a folder")
    return list(photos[:1]), list(photos[1:])


def note_weights(fit: "Fit | None", count: int, queries: Sequence[str] = ("text", "photo")) -> None:
    """Says where re-ranking was asked for and will not take place."""
    if not count or fit is None:
        return
    idle = [query for query in queries if query in fit.rerank and fit.rerank[query].weight == 0]
    if idle:
        note(f"re-ranking by {' and '.join(idle)} tells nothing more than the search of this bundle (edgegeo fit): off")
