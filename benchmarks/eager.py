"""What a person would write with transformers alone: batches through the model in eager mode, with its own generate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegeo.export.source import Source
from edgegeo.models.families.smolvlm import image_features
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.runtime.pictures import whole_layout

Floats = NDArray[np.float32]


class Eager:
    """Embeds and generates with the same checkpoint, adapters merged, as edgegeo's bundle of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.checkpoint = source.checkpoint

    @torch.inference_mode()
    def text(self, text: str) -> Floats:
        """Unit vector (1, dim)."""
        words = list(self.checkpoint.tokenizer.encode(text, add_special_tokens=False).ids)
        return self._pooled(self._ids("embed_text", [words]), None)

    @torch.inference_mode()
    def images(self, pixels: Floats) -> Floats:
        """Unit vectors (B, dim) of pixels (B, 3, H, W)."""
        return self._pooled(self._ids("embed_image").repeat(len(pixels), 1), torch.from_numpy(pixels))

    @torch.inference_mode()
    def answer(self, pixels: Floats) -> list[int]:
        """Greedily generated ids for one picture's pixels (3, H, W), without the stop token."""
        ids, stops = self._ids("generate"), list(self.checkpoint.stop_ids)
        out = self.source.roles["generate"].model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.from_numpy(pixels)[None, None],
            do_sample=False,
            max_new_tokens=self.checkpoint.settings.max_new_tokens,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
        written = out[0, ids.shape[1] :].tolist()
        return written[:-1] if written and written[-1] in stops else written

    def _ids(self, prompt: str, texts: Sequence[Sequence[int]] = ()) -> Any:
        tokenizer, config = self.checkpoint.tokenizer, self.checkpoint.config
        pieces = segments(self.checkpoint.settings.prompts[prompt], tokenizer)
        return torch.tensor([fill_ids(pieces, config.image_token_id, [whole_layout(self.checkpoint.image)], texts)])

    def _pooled(self, ids: Any, pixels: Any) -> Floats:
        reference = self.source.roles["embed"].reference
        model = reference.model
        embeds = model.get_input_embeddings()(ids)
        if pixels is not None:
            features = image_features(model, pixels)
            embeds[ids == self.checkpoint.config.image_token_id] = features.reshape(-1, features.shape[-1])
        count = 1
        if reference.queries is not None:
            count = len(reference.queries)
            queries = torch.from_numpy(reference.queries).expand(len(ids), -1, -1)
            embeds = torch.cat([embeds, queries], dim=1)
        states = model.model.text_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, -count:]
        return torch.nn.functional.normalize(states.mean(dim=1), dim=-1).numpy()
