"""A torch checkpoint under evaluation, asked one input at a time as exports are verified against it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import CheckpointError, InputError
from edgegeo.runtime.answer import parse_answer

if TYPE_CHECKING:
    from PIL import Image

    from edgegeo.evaluate.subject import Said
    from edgegeo.models.reference import Reference

BARE = "none"
"""As an adapter: the base alone, though the checkpoint names adapters of its own."""

_ROUNDING = 1e-5
"""Entries of a unit vector that differ by less differ only by how merging rounds."""


class CheckpointSubject:
    """A checkpoint (None: the packaged one) with one adapter (None: its own for the role, BARE: none at all)."""

    kind = "checkpoint"
    batch = 4

    def __init__(self, source: str | None, adapter: str | None = None, threads: int | None = None) -> None:
        import torch

        from edgegeo.models.checkpoint import load_checkpoint
        from edgegeo.models.hub import checkpoint_name, find_checkpoint

        if threads is not None:
            torch.set_num_threads(threads)
        if adapter not in (None, BARE) and not Path(str(adapter)).expanduser().is_dir():
            raise InputError(f"no adapter folder at {adapter}; name a PEFT or SLQ folder, or {BARE}")
        self._checkpoint = load_checkpoint(find_checkpoint(source) if source else None)
        self._adapter = adapter
        self._opened = cache(self._open)
        self.name = checkpoint_name(self._checkpoint.path)

    def about(self, role: str) -> dict[str, Any]:
        """The folder and the adapter."""
        folder = self._folder(role)
        return {"path": str(self._checkpoint.path), "adapter": None if folder is None else str(folder)}

    def check(self, role: str) -> None:
        """CheckpointError if the family lacks the role, or its adapter can't be used."""
        if role not in self._checkpoint.family.roles:
            raise CheckpointError(f"{self._checkpoint.path} is a dual encoder, which only embeds")
        self._opened(role)

    def fault(self, text: str) -> str | None:
        """Why a text can't be read whole: it is empty, or longer than the model's positions."""
        if not text.strip():
            return "the text is empty"
        tokens = len(self._checkpoint.tokenizer.encode(text, add_special_tokens=False).ids)
        room = self._room
        return f"the text has {tokens} tokens, this model reads up to {room}" if tokens > room else None

    def prepare(self, image: "Image.Image") -> Any:
        """The picture as it is; the reference resizes it."""
        return image

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, dim) unit vectors."""
        return self._opened("embed").embed_texts(texts)

    def images(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """(N, dim) unit vectors."""
        return self._opened("embed").embed_images(prepared)

    def answers(self, prepared: Sequence[Any]) -> "list[Said]":
        """Greedy answers of the model itself, without a grammar."""
        written = [self._opened("generate").generate(image)[0] for image in prepared]
        return [(text, parse_answer(text)) for text in written]

    def _open(self, role: str) -> "Reference":
        from edgegeo.models.reference import open_reference

        folder = self._folder(role)
        if folder is not None and self._checkpoint.family.text:
            raise CheckpointError(f"{self._checkpoint.path} is a dual encoder; merge {folder} into it first")
        found = open_reference(self._checkpoint, folder)
        if folder is not None and found.model is not self._checkpoint.model:
            self._check_moved(found, folder)
        return found

    def _check_moved(self, found: "Reference", folder: Path) -> None:
        """PEFT only warns where an adapter's names fit no layer: the base would be scored under the adapter's name."""
        from PIL import Image

        probe = [Image.linear_gradient("L").convert("RGB")]
        base = replace(found, model=self._checkpoint.model)
        if np.abs(base.embed_images(probe) - found.embed_images(probe)).max() < _ROUNDING:
            raise CheckpointError(
                f"the adapter {folder} changes nothing: it is untrained, or its layer names fit no layer of this model"
            )

    def _folder(self, role: str) -> Path | None:
        if self._adapter is None:
            return self._checkpoint.adapter(role)
        return None if self._adapter == BARE else Path(self._adapter).expanduser()

    @property
    def _room(self) -> int:
        """Most tokens of a text."""
        from edgegeo.models.prompts import segments

        checkpoint = self._checkpoint
        if checkpoint.family.text:
            return checkpoint.text_spec().longest
        around = segments(checkpoint.settings.prompts["embed_text"], checkpoint.tokenizer)
        queries = self._opened("embed").queries
        taken = sum(len(one.ids or ()) for one in around) + (0 if queries is None else len(queries))
        return int(checkpoint.config.get_text_config().max_position_embeddings) - taken
