"""transformers as a person would call it: eager in float32 or bfloat16, or compiled."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from worker import Refused


class Peer:
    """precision: "fp32", "bf16", or "compile" (float32 through torch.compile with its defaults)."""

    MISSING = ""

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """Reads the checkpoint as it is."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        from transformers import AutoModelForImageTextToText

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = AutoModelForImageTextToText.from_pretrained(folder / "vlm", dtype=self.dtype).eval()
        self.model, self.table, self.compiled = model, model.get_input_embeddings(), precision == "compile"
        self.decoder, self.head, self.tower = model.model.text_model, model.lm_head, self._tokens
        if self.compiled:
            self.decoder, self.tower = torch.compile(self.decoder), torch.compile(self.tower)

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S)."""
        return self._last(self.table(torch.from_numpy(ids)))

    def vision(self, pixels: Any) -> Any:
        """Image tokens (1, T, H) of pixels (1, 3, side, side)."""
        return self.tower(torch.from_numpy(pixels).to(self.dtype)).float().numpy()

    def picture(self, pixels: Any, before: Any, after: Any) -> Any:
        """Last hidden state (1, H) of words, a picture and words."""
        tokens = self.tower(torch.from_numpy(pixels).to(self.dtype))
        around = [self.table(torch.from_numpy(ids)) for ids in (before, after)]
        return self._last(torch.cat([around[0], tokens, around[1]], dim=1))

    def answer(self, prompt: Any, tokens: Any) -> Any:
        """Logits (V,) behind a prompt (1, S) and given tokens (N,): the head and its largest at every step."""
        if self.compiled:
            raise Refused("compiled again for every length of the cache: 96 steps would compile for over an hour")
        out = self.decoder(inputs_embeds=self.table(torch.from_numpy(prompt)), use_cache=True)
        for token in tokens:
            int(self.head(out.last_hidden_state[:, -1]).argmax())
            row = self.table(torch.tensor([[int(token)]]))
            out = self.decoder(inputs_embeds=row, past_key_values=out.past_key_values, use_cache=True)
        return self.head(out.last_hidden_state[:, -1])[0].float().numpy()

    def pairs(self, prefix: Any, suffixes: Any) -> Any:
        """Last hidden states (N, H), every pair read in full, all in one batch."""
        return self.text(np.concatenate([np.repeat(prefix, len(suffixes), axis=0), suffixes], axis=1))

    def pairs_shared(self, prefix: Any, suffixes: Any) -> Any:
        """The same; the prefix is read once and its cache repeated."""
        if self.compiled:
            raise Refused("not compiled with a cache, as for answers")
        out = self.decoder(inputs_embeds=self.table(torch.from_numpy(prefix)), use_cache=True)
        past = out.past_key_values
        past.batch_repeat_interleave(len(suffixes))
        rows = self.table(torch.from_numpy(suffixes))
        out = self.decoder(inputs_embeds=rows, past_key_values=past, use_cache=True)
        return out.last_hidden_state[:, -1].float().numpy()

    def _tokens(self, pixels: Any) -> Any:
        patches = self.model.model.vision_model(pixel_values=pixels).last_hidden_state
        return self.model.model.connector(patches)

    def _last(self, embeds: Any) -> Any:
        return self.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, -1].float().numpy()
