"""Adapters at export time: LoRA/DoRA merged with proof, shared latent queries read."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegeo.errors import CheckpointError
from edgegeo.models.smolvlm import image_features

SLQ_FILE, SLQ_CONFIG = "slq.safetensors", "slq_config.json"


@dataclass(frozen=True)
class Merged:
    """A model with an adapter folded into its weights, and the proof that nothing else changed."""

    model: Any
    """A copy; the model it was made from is untouched."""
    difference: float
    """Largest absolute difference of the last hidden states, merged against attached, on a seeded picture and text."""
    scale: float
    """Largest absolute hidden state of the probe, to judge `difference` by."""
    moved: float
    """Largest absolute change that the adapter makes to the same hidden states: 0 is an adapter without effect."""


@contextmanager
def hushed_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5 for a renamed property; nobody who uses edgegeo can answer that warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def is_queries(folder: Path) -> bool:
    """Whether an adapter folder holds shared latent queries (SLQ) rather than LoRA."""
    return (folder / SLQ_FILE).is_file()


def merge_adapter(model: Any, folder: str | Path) -> Merged:
    """Fold a PEFT adapter into a copy of the model and compare it with the attached adapter.

    CheckpointError when the folder is no PEFT adapter or doesn't fit the model.
    """
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} is not an adapter: it has no adapter_config.json; name a PEFT folder")
    before = probe(model)
    try:
        with hushed_peft():
            attached = PeftModel.from_pretrained(copy.deepcopy(model), str(folder), is_trainable=False)
        attached = attached.float().eval()
    except Exception as error:  # PEFT raises many kinds for an adapter of another model
        text = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the adapter {folder} doesn't fit this checkpoint ({text})") from None
    wanted = probe(attached.base_model.model)
    merged = attached.merge_and_unload().eval()
    got = probe(merged)
    return Merged(
        model=merged,
        difference=float((got - wanted).abs().max()),
        scale=float(wanted.abs().max()),
        moved=float((wanted - before).abs().max()),
    )


@torch.no_grad()
def probe(model: Any, seed: int = 0) -> torch.Tensor:
    """Last hidden states (1, tokens, hidden) of a seeded picture followed by seeded token ids."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    size = config.vision_config.image_size
    pixels = torch.rand(1, 3, size, size, generator=generator) * 2 - 1
    ids = torch.randint(0, config.text_config.vocab_size, (1, 24), generator=generator)
    words = model.get_input_embeddings()(ids)
    inputs = torch.cat([image_features(model, pixels), words], dim=1)
    hidden: torch.Tensor = model.model.text_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    return hidden


def load_queries(folder: str | Path, hidden: int | None = None) -> NDArray[np.float32]:
    """Shared latent queries (queries, hidden) float32; CheckpointError if missing, or not as wide as `hidden`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = Path(folder) / SLQ_FILE
    if not file.is_file():
        raise CheckpointError(f"no shared latent queries at {file}; train them: edgegeo train retriever --method slq")
    try:
        queries = np.asarray(load_file(str(file))["queries"], np.float32)
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} holds no queries ({error}); train them again") from None
    if queries.ndim != 2 or (hidden is not None and queries.shape[1] != hidden):
        raise CheckpointError(f"{file} holds queries of shape {queries.shape}, this model needs (any, {hidden})")
    return queries


def slq_config(folder: str | Path) -> dict[str, Any]:
    """slq_config.json of an adapter folder."""
    data: dict[str, Any] = json.loads((Path(folder) / SLQ_CONFIG).read_text(encoding="utf-8"))
    return data
