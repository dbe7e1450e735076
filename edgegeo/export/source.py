"""What an export starts from: one model per role, with its adapter merged in, and everything the manifest needs."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import ImageSpec

ROLES = ("embed", "rerank", "generate")


@dataclass(frozen=True)
class RoleSource:
    """The model behind one role."""

    model: Any
    """SmolVLMForConditionalGeneration, float32, in evaluation mode; the base itself where nothing is adapted."""
    adapter: str | None = None
    """Name of the merged adapter or of the latent queries; None for the base as it is."""
    queries: NDArray[np.float32] | None = None
    """Shared latent queries (Q, hidden), for the embed role with SLQ."""
    merge_difference: float | None = None
    """Largest difference of the merged model's hidden states from the attached adapter's: the proof of the merge."""


@dataclass(frozen=True)
class Source:
    """A checkpoint, opened for export."""

    name: str
    path: Path
    family: str
    base: Any
    tokenizer: Any
    """tokenizers.Tokenizer."""
    image: ImageSpec
    prompts: dict[str, str]
    yes: tuple[str, ...]
    no: tuple[str, ...]
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    roles: dict[str, RoleSource]
    facts: dict[str, Any] = field(default_factory=dict)
    """Hashes of checkpoint and adapters, for the manifest."""


def weights_hash(module: Any) -> str:
    """Identifies a torch module by its parameters and buffers; equal weights give equal hashes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
