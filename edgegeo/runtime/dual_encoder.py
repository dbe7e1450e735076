"""A dual encoder at run time (CLIP, SigLIP): two towers, each of which gives a whole embedding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import EmbedRole
from edgegeo.errors import BundleError
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens
from edgegeo.runtime.tokens import Piece
from edgegeo.runtime.trunk import Ints


class DualEncoder:
    """Pooling "dual": nothing is left to pool, texts are only padded as the family was trained."""

    def __init__(self, model: Model, role: EmbedRole) -> None:
        self._model = model
        self._role = role

    def texts(self, prompts: Sequence[Sequence[Piece]]) -> NDArray[np.float32]:
        """(B, dim) float32 of filled text prompts."""
        role = self._role
        if role.pad_to and max(len(_ids(prompt)) for prompt in prompts) > role.pad_to:
            raise BundleError(f"{self._model.bundle.path}: its text prompt passes its own limit; export it again")
        session = self._model.session(role.trunk)
        output = self._model.bundle.manifest.components[role.trunk].output or "text_embeds"
        fed = {one.name for one in session.get_inputs()}  # edgegeo's own graphs need no mask, others may
        feeds = {name: value for name, value in text_feeds(role, prompts).items() if name in fed}
        return np.asarray(session.run([output], feeds)[0])

    def features(self, features: Sequence[ImageTokens]) -> NDArray[np.float32]:
        """(B, dim) float32: the one row of each picture."""
        return np.stack([one.rows[0] for one in features])


def text_feeds(role: EmbedRole, prompts: Sequence[Sequence[Piece]]) -> dict[str, Ints]:
    """What a text tower is fed: ids and mask (B, S) of filled prompts, padded as the family was trained."""
    rows = [_ids(prompt) for prompt in prompts]
    ids = np.full((len(rows), role.pad_to or max(len(row) for row in rows)), role.pad_id, np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        # Where texts are padded to a fixed length, the model was trained to read the padding too.
        mask[index, : role.pad_to or len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _ids(prompt: Sequence[Piece]) -> Ints:
    return np.concatenate([piece for piece in prompt if not isinstance(piece, int)])
