"""What the model answers in plain torch and transformers: the oracle that exports are verified against.

No batching tricks and no cache: every function is the shortest way from the definition to the number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import Segment
from edgegeo.models.checkpoint import Checkpoint
from edgegeo.models.family import Family, Seen
from edgegeo.models.prompts import fill_ids, literal_ids, segments, word_ids
from edgegeo.runtime.pictures import Picture, prepare_picture

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """A checkpoint asked through one model (the base, or a merged adapter) and optional latent queries."""

    checkpoint: Checkpoint
    model: Any
    queries: Floats | None = None
    """(queries, hidden); None pools positions of the prompt."""
    pooling: str = "eos"
    """"eos", "mean" of all positions, or of the "last_k"."""
    last: int = 1
    """last_k: how many."""
    matryoshka: tuple[int, ...] = ()
    """Leading dimensions that were trained to serve alone."""

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(N, hidden) float32, L2-normalised."""
        prompt = self._prompt("embed_text")
        rows = [self._pooled(prompt, (), [self._ids(text)]) for text in texts]
        return np.stack(rows)

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Floats:
        """(N, hidden) float32, L2-normalised; images are upright RGB."""
        prompt = self._prompt("embed_image")
        return np.stack([self._pooled(prompt, [image], ()) for image in images])

    @torch.no_grad()
    def yes_no_margin(self, query: str | Image.Image, candidate: Image.Image) -> float:
        """log p(yes) - log p(no) at the first answer position, each summed over its casings."""
        texts = [self._ids(query)] if isinstance(query, str) else []
        images = [candidate] if isinstance(query, str) else [query, candidate]
        prompt = self._prompt("rerank", "text" if isinstance(query, str) else "image")
        logits = self._head(self._hidden(prompt, images, texts)[:, -1])[0].float()
        settings, tokenizer = self.checkpoint.settings, self.checkpoint.tokenizer
        yes = list(word_ids(settings.yes, tokenizer))
        no = list(word_ids(settings.no, tokenizer))
        return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))

    @torch.no_grad()
    def generate(self, image: Image.Image, max_new_tokens: int | None = None) -> tuple[str, list[int]]:
        """The greedy answer and its token ids, without the stop token."""
        prompt = self._prompt("generate")
        picture = self._picture(image)
        rows = self.family.image_features(self.model, picture)
        picture = Seen(picture.inputs, picture.layout, picture.grid, rows)
        start, written = self._fill(prompt, [picture], ()), list[int]()
        for _ in range(max_new_tokens or self.checkpoint.settings.max_new_tokens):
            ids = torch.tensor([[*start, *written]])
            hidden = self.family.hidden(self.model, ids, [picture])
            token = int(self._head(hidden[:, -1]).argmax(-1))
            if token in self.checkpoint.stop_ids:
                break
            written.append(token)
        return self.checkpoint.tokenizer.decode(written, skip_special_tokens=False), written

    def token_ids(self, text: str) -> NDArray[np.int64]:
        """Token ids (1, S) of a text alone, without its prompt."""
        return np.array([self._ids(text)], np.int64)

    @property
    def family(self) -> Family:
        """The checkpoint's family."""
        return self.checkpoint.family

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.family.parts(self.model).head(states)
        return logits

    def _prompt(self, role: str, query: str = "text") -> tuple[Segment, ...]:
        template = self.checkpoint.settings.prompts[role]
        return segments(template, self.checkpoint.tokenizer, query, self.family.around_image)

    def _ids(self, text: str) -> list[int]:
        return literal_ids(text, self.checkpoint.tokenizer)

    def _picture(self, image: Image.Image) -> Picture:
        return prepare_picture(image, self.checkpoint.image)

    def _fill(
        self, prompt: Sequence[Segment], pictures: Sequence[Picture], texts: Sequence[Sequence[int]]
    ) -> list[int]:
        token = self.family.image_token_id(self.checkpoint.config)
        return fill_ids(prompt, token, [picture.layout for picture in pictures], texts)

    def _hidden(
        self, prompt: Sequence[Segment], images: Sequence[Image.Image], texts: Sequence[Sequence[int]],
        tail: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        pictures = [self._picture(image) for image in images]
        return self.family.hidden(self.model, torch.tensor([self._fill(prompt, pictures, texts)]), pictures, tail)

    def _pooled(
        self, prompt: Sequence[Segment], images: Sequence[Image.Image], texts: Sequence[Sequence[int]]
    ) -> Floats:
        tail = None if self.queries is None else torch.from_numpy(self.queries)
        hidden = self._hidden(prompt, images, texts, tail)[0]
        if tail is not None:
            pooled = hidden[-len(tail) :].mean(0)
        else:
            pooled = hidden.mean(0) if self.pooling == "mean" else hidden[-self.last :].mean(0)
        row: Floats = torch.nn.functional.normalize(pooled.float(), dim=-1).numpy()
        return row


@dataclass(frozen=True)
class DualReference(Reference):
    """A dual encoder: it embeds, and does nothing else."""

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(N, dim) float32, L2-normalised; control tokens are the tokenizer's own."""
        ids = [torch.from_numpy(self.token_ids(text)) for text in texts]
        return np.concatenate([_unit(self.family.text_features(self.model, one)) for one in ids])

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Floats:
        """(N, dim) float32, L2-normalised; images are upright RGB."""
        rows = [self.family.image_features(self.model, self._picture(image)) for image in images]
        return np.concatenate([_unit(row) for row in rows])

    def token_ids(self, text: str) -> NDArray[np.int64]:
        """(1, S), control tokens and padding as the tokenizer and the family have them."""
        spec = self.checkpoint.text_spec()
        words = text.lower() if spec.lower_case else text
        ids = list(self.checkpoint.tokenizer.encode(words, add_special_tokens=True).ids)
        return np.array([ids + [spec.pad_id] * max(0, spec.pad_to - len(ids))], np.int64)


def _unit(rows: torch.Tensor) -> Floats:
    return np.asarray(torch.nn.functional.normalize(rows.float(), dim=-1).numpy())


def reference(checkpoint: Checkpoint) -> Reference:
    """A checkpoint as it is, as its family answers."""
    return (DualReference if checkpoint.family.text else Reference)(checkpoint, checkpoint.model)


def open_reference(checkpoint: Checkpoint, adapter: str | Path | None = None) -> Reference:
    """A checkpoint with an adapter folder (LoRA: merged, SLQ: read, or both) or without one."""
    from edgegeo.models.adapters import (
        is_lora,
        is_queries,
        load_matryoshka,
        load_pooling,
        load_queries,
        merge_adapter,
    )
    from edgegeo.models.lineage import require_base

    if adapter is None:
        return reference(checkpoint)
    folder = Path(adapter)
    hidden = checkpoint.config.get_text_config().hidden_size
    queries = load_queries(folder, hidden) if is_queries(folder) else None
    if queries is not None and not is_lora(folder):
        require_base(checkpoint, folder)
        return Reference(checkpoint, checkpoint.model, queries, matryoshka=load_matryoshka(folder))
    model, dims = merge_adapter(checkpoint, folder).model, load_matryoshka(folder)
    return Reference(checkpoint, model, queries, *load_pooling(folder), dims)
