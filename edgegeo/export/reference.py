"""The torch side of verification: what transformers computes for a role's frozen prompts, one row at a time.

Independent of the runtime on purpose: the Hugging Face image processor makes the pixels, the model's own forward
places the image tokens, `generate` decodes. Nothing is padded and nothing shared, so that no bug of a batch or a
cache can hide on both sides.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import Manifest, Segment
from edgegeo.errors import CheckpointError
from edgegeo.export.source import Source

Floats = NDArray[np.float32]


class Reference:
    """Reference outputs of a source for the prompts of a manifest."""

    def __init__(self, source: Source, manifest: Manifest) -> None:
        self.source = source
        self.manifest = manifest
        self._processor = image_processor(source.path)
        self._image_token = int(source.base.config.image_token_id)

    def pixels(self, pictures: Sequence[bytes]) -> Floats:
        """(B, 3, H, W) float32 by the Hugging Face processor, without tile splitting."""
        out = [self._processor(_open(p), do_image_splitting=False, return_tensors="np") for p in pictures]
        return np.concatenate([one["pixel_values"][:, 0] for one in out]).astype(np.float32)

    def features(self, role: str, pixels: Floats) -> Floats:
        """Image tokens (B, tokens, hidden)."""
        import torch

        with torch.no_grad():
            found = self._model(role).model.get_image_features(torch.from_numpy(pixels)[:, None]).pooler_output
        return np.stack([one.numpy() for one in found])

    def ids(self, prompt: Sequence[Segment], text: str = "") -> list[int]:
        """Token ids of a frozen prompt, every picture written as its placeholder tokens."""
        out: list[int] = []
        for segment in prompt:
            if segment.image is not None:
                out += [self._image_token] * self.manifest.image.tokens
            elif segment.text is not None:
                out += self.source.tokenizer.encode(text, add_special_tokens=False).ids
            else:
                out += segment.ids or ()
        return out

    def hidden(self, role: str, ids: list[int], pixels: Floats | None, queries: Floats | None = None) -> Floats:
        """Hidden states (S, hidden) of one row after the final norm; queries (Q, hidden) are appended to the prompt."""
        import torch

        model = self._model(role)
        rows = torch.tensor([ids])
        feed = {} if pixels is None else {"pixel_values": torch.from_numpy(pixels)[None]}
        with torch.no_grad():
            if queries is None:
                return model.model(input_ids=rows, **feed).last_hidden_state[0].numpy()
            embeds = model.get_input_embeddings()(rows)
            if pixels is not None:
                embeds[rows == self._image_token] = torch.from_numpy(self.features(role, pixels)).flatten(0, 1)
            embeds = torch.cat([embeds, torch.from_numpy(np.asarray(queries, np.float32))[None]], dim=1)
            return model.model.text_model(inputs_embeds=embeds).last_hidden_state[0].numpy()

    def embedding(self, text: str = "", pixels: Floats | None = None) -> Floats:
        """Unit vector (dim,) of a text, or of one picture's pixels (3, H, W)."""
        role = self.manifest.roles.embed
        assert role is not None
        queries = self.source.roles["embed"].queries
        prompt = role.text_prompt if pixels is None else role.image_prompt
        states = self.hidden("embed", self.ids(prompt, text), None if pixels is None else pixels[None], queries)
        pooled = states[-1] if queries is None else states[-len(queries) :].mean(axis=0)
        return np.asarray(pooled / np.linalg.norm(pooled), np.float32)

    def margin(self, text: str, pixels: Floats) -> float:
        """log p(yes) - log p(no) of a text and one candidate's pixels (3, H, W), from the whole head."""
        import torch

        role = self.manifest.roles.rerank
        assert role is not None
        states = self.hidden("rerank", self.ids(role.text_prompt, text), pixels[None])
        with torch.no_grad():
            logits = self._model("rerank").lm_head(torch.from_numpy(states[-1]))
        yes, no = torch.tensor(role.yes_ids), torch.tensor(role.no_ids)
        return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))

    def answer(self, pixels: Floats) -> list[int]:
        """Greedily generated token ids for one picture's pixels (3, H, W), without the stop token."""
        import torch

        role = self.manifest.roles.generate
        assert role is not None
        rows = torch.tensor([self.ids(role.prompt)])
        model = self._model("generate")
        with torch.no_grad():
            out = model.generate(
                input_ids=rows, attention_mask=torch.ones_like(rows), pixel_values=torch.from_numpy(pixels)[None, None],
                do_sample=False, num_beams=1, max_new_tokens=role.max_new_tokens, eos_token_id=list(role.stop_ids),
                pad_token_id=role.stop_ids[0],
            )  # fmt: skip
        written = out[0, rows.shape[1] :].tolist()
        return written[:-1] if written and written[-1] in role.stop_ids else written

    def logits(self, states: Floats) -> Floats:
        """Logits (..., vocabulary) of hidden states, by the generation role's head."""
        import torch

        with torch.no_grad():
            return self._model("generate").lm_head(torch.from_numpy(states)).numpy()

    def _model(self, role: str) -> Any:
        return self.source.roles[role].model


def image_processor(path: Path) -> Any:
    """The checkpoint's own image processor, the Pillow one: the torchvision one resizes differently."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(path, backend="pil")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} has no usable image processor ({' '.join(str(error).split())[:150]})") from None


def _open(picture: bytes) -> Image.Image:
    return Image.open(BytesIO(picture)).convert("RGB")
