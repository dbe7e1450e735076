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
from edgegeo.models.prompts import fill_ids, image_wrap, segments, word_ids
from edgegeo.models.smolvlm import image_features
from edgegeo.runtime.image import pixels

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """A checkpoint asked through one model (the base, or a merged adapter) and optional latent queries."""

    checkpoint: Checkpoint
    model: Any
    queries: Floats | None = None
    """(queries, hidden); None pools the last position."""

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
        logits = self.model.lm_head(self._hidden(prompt, images, texts)[:, -1])[0].float()
        settings, tokenizer = self.checkpoint.settings, self.checkpoint.tokenizer
        yes = list(word_ids(settings.yes, tokenizer))
        no = list(word_ids(settings.no, tokenizer))
        return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))

    @torch.no_grad()
    def generate(self, image: Image.Image, max_new_tokens: int | None = None) -> tuple[str, list[int]]:
        """The greedy answer and its token ids, without the stop token."""
        prompt = self._prompt("generate")
        written: list[int] = []
        inputs = self._inputs(prompt, [image], ())
        for _ in range(max_new_tokens or self.checkpoint.settings.max_new_tokens):
            hidden = self.model.model.text_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
            token = int(self.model.lm_head(hidden[:, -1]).argmax(-1))
            if token in self.checkpoint.stop_ids:
                break
            written.append(token)
            word = self.model.get_input_embeddings()(torch.tensor([[token]]))
            inputs = torch.cat([inputs, word], dim=1)
        return self.checkpoint.tokenizer.decode(written, skip_special_tokens=False), written

    def _prompt(self, role: str, query: str = "text") -> tuple[Segment, ...]:
        tokenizer = self.checkpoint.tokenizer
        return segments(self.checkpoint.settings.prompts[role], tokenizer, image_wrap(tokenizer), query)

    def _ids(self, text: str) -> list[int]:
        return list(self.checkpoint.tokenizer.encode(text, add_special_tokens=False).ids)

    def _inputs(
        self, prompt: Sequence[Segment], images: Sequence[Image.Image], texts: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        spec, image_token = self.checkpoint.image, self.checkpoint.config.image_token_id
        ids = torch.tensor([fill_ids(prompt, image_token, spec.tokens, texts)])
        inputs: torch.Tensor = self.model.get_input_embeddings()(ids)
        if images:
            stack = torch.from_numpy(np.stack([pixels(image, spec) for image in images]))
            features = image_features(self.model, stack)
            inputs[ids == image_token] = features.reshape(-1, features.shape[-1])
        return inputs

    def _hidden(
        self, prompt: Sequence[Segment], images: Sequence[Image.Image], texts: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        inputs = self._inputs(prompt, images, texts)
        hidden: torch.Tensor = self.model.model.text_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return hidden

    def _pooled(
        self, prompt: Sequence[Segment], images: Sequence[Image.Image], texts: Sequence[Sequence[int]]
    ) -> Floats:
        if self.queries is None:
            pooled = self._hidden(prompt, images, texts)[0, -1]
        else:
            inputs = torch.cat([self._inputs(prompt, images, texts), torch.from_numpy(self.queries)[None]], dim=1)
            hidden = self.model.model.text_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
            pooled = hidden[0, -len(self.queries) :].mean(0)
        row: Floats = torch.nn.functional.normalize(pooled.float(), dim=-1).numpy()
        return row


def open_reference(checkpoint: Checkpoint, adapter: str | Path | None = None) -> Reference:
    """A checkpoint with an adapter folder (LoRA: merged, SLQ: read) or without one."""
    from edgegeo.models.adapters import is_queries, load_queries, merge_adapter

    if adapter is None:
        return Reference(checkpoint, checkpoint.model)
    folder = Path(adapter)
    if is_queries(folder):
        return Reference(checkpoint, checkpoint.model, load_queries(folder, checkpoint.config.text_config.hidden_size))
    return Reference(checkpoint, merge_adapter(checkpoint.model, folder).model)
