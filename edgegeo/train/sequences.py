"""Training examples as token rows: prompts filled with pictures and words, answers with the weight of each token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegeo.errors import TrainingError
from edgegeo.models.checkpoint import Checkpoint
from edgegeo.models.prompts import fill_ids, literal_ids, segments
from edgegeo.runtime.pictures import Picture

LONGEST_TEXT = 300
"""Tokens of a text to embed; longer ones are cut (NGCG-MLLM's maximum)."""
WIDTH = 8
"""Rows are padded to multiples of this: on a CPU every new matrix shape costs a compilation."""
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FIELD = re.compile(r'"(?:latitude|longitude)"\s*:\s*"?([-+]?[0-9.]+)')

Side = str | Picture
"""What is embedded: a text or a prepared picture."""


@dataclass(frozen=True)
class Row:
    """One sequence to compute."""

    ids: tuple[int, ...]
    pictures: tuple[Picture, ...] = ()
    weights: tuple[float, ...] = ()
    """How much predicting each token counts; () where nothing is predicted."""


@dataclass(frozen=True)
class Batch:
    """Rows, right-padded."""

    ids: Tensor
    """(B, S)."""
    lengths: Tensor
    """(B,)."""
    pictures: tuple[Picture, ...]
    """Of all rows, in reading order."""
    weights: Tensor
    """(B, S) float32."""


def collate(rows: Sequence[Row], pad: int, device: torch.device | None = None) -> Batch:
    """Rows in one tensor; what pads is never looked at, so any token will do."""
    lengths = [len(row.ids) for row in rows]
    width = -(-max(lengths) // WIDTH) * WIDTH
    ids, weights = np.full((len(rows), width), pad, np.int64), np.zeros((len(rows), width), np.float32)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        weights[i, : len(row.weights)] = row.weights
    pictures = tuple(picture for row in rows for picture in row.pictures)
    return Batch(
        torch.from_numpy(ids).to(device), torch.tensor(lengths, device=device), pictures,
        torch.from_numpy(weights).to(device),
    )  # fmt: skip


class Writer:
    """Fills a checkpoint's own prompts."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Any = checkpoint.tokenizer
        self.placeholder = checkpoint.family.image_token_id(checkpoint.config)
        self.pad = 0 if self.placeholder != 0 else 1
        end = self.tokenizer.token_to_id(checkpoint.family.answer_end)
        self.end = end if end in checkpoint.stop_ids else checkpoint.stop_ids[0]

    def side(self, side: Side) -> Row:
        """A text or a picture in its embedding prompt."""
        if isinstance(side, str):
            words = self.tokens(side)[:LONGEST_TEXT]
            return Row(tuple(fill_ids(self._prompt("embed_text"), self.placeholder, (), [words])))
        return Row(tuple(fill_ids(self._prompt("embed_image"), self.placeholder, [side.layout])), (side,))

    def answer(self, picture: Picture, answer: str, weight: float) -> Row:
        """The generation prompt, then an answer to be learned; tokens of coordinates count `weight`, others 1."""
        asked = self.question(picture).ids
        encoded = self.tokenizer.encode(answer, add_special_tokens=False)
        where = spans(answer)
        told = [weight if any(a < end and start < b for start, end in where) else 1.0 for a, b in encoded.offsets]
        ids = (*asked, *encoded.ids, self.end)
        room = self.checkpoint.config.get_text_config().max_position_embeddings
        if len(ids) > room:
            raise TrainingError(
                f"an answer of {len(encoded.ids)} tokens and its prompt don't fit the model's {room} positions; "
                "shorten the answers, or take a model with more"
            )
        return Row(ids, (picture,), (*(0.0 for _ in asked), *told, 1.0))

    def question(self, picture: Picture) -> Row:
        """The generation prompt alone, for answers to be written."""
        return Row(tuple(fill_ids(self._prompt("generate"), self.placeholder, [picture.layout])), (picture,))

    def pair(self, query: Side, candidate: Side) -> Row:
        """A query and a candidate picture in the re-ranking prompt, whose answer is yes or no."""
        if isinstance(candidate, str):
            raise TrainingError("re-ranking is learned on pictures as candidates; this data set retrieves texts")
        if isinstance(query, str):
            words = self.tokens(query)[:LONGEST_TEXT]
            prompt = self._prompt("rerank", "text")
            return Row(tuple(fill_ids(prompt, self.placeholder, [candidate.layout], [words])), (candidate,))
        layouts = [query.layout, candidate.layout]
        return Row(tuple(fill_ids(self._prompt("rerank"), self.placeholder, layouts)), (query, candidate))

    def tokens(self, text: str) -> list[int]:
        """Token ids of a literal text; TrainingError for one that has none."""
        ids = literal_ids(text, self.tokenizer)
        if not ids:
            raise TrainingError("a text to embed is empty; `edgegeo data check` names such rows")
        return ids

    def _prompt(self, role: str, query: str = "image") -> Any:
        template = self.checkpoint.settings.prompts[role]
        return segments(template, self.tokenizer, query, self.checkpoint.family.around_image)


def spans(answer: str) -> list[tuple[int, int]]:
    """Where the coordinates stand in an answer: inside its tag, or the fields of a geo-caption (GeoLocSFT)."""
    found = [match.span(1) for match in _TAG.finditer(answer)]
    return found + [match.span(1) for match in _FIELD.finditer(answer)]


def distinct(order: NDArray[np.int64], groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The first `count` entries of an order of rows of which no two are of one group.

    Two views of one place in a batch would be each other's false negatives (NGCG-MLLM).
    """
    _, first = np.unique(groups[order], return_index=True)
    return order[np.sort(first)[:count]]
