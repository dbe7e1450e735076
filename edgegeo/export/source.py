"""What an export starts from: a checkpoint, and for each role the model with its adapter merged in."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegeo.bundle import sha256_of
from edgegeo.errors import CheckpointError, InputError, VerificationError
from edgegeo.models.adapters import is_queries, load_queries, merge_adapter
from edgegeo.models.checkpoint import ADAPTERS, Checkpoint, load_checkpoint
from edgegeo.models.reference import Reference

ROLES = ("embed", "rerank", "generate")
RETRIEVERS = {"lora": "retriever-lora", "slq": "retriever-slq"}
"""`--method` -> folder under the checkpoint's adapters/."""
MERGE_TOLERANCE = 1e-4
"""Largest difference of merged from attached hidden states, relative to the largest of them."""


@dataclass(frozen=True)
class RoleSource:
    """What plays one role."""

    reference: Reference
    """The torch model, merged, and its latent queries if it has some; export verifies against it."""
    adapter: str | None = None
    """Name of the adapter; None for the base as it is."""
    merge_difference: float | None = None
    """Largest difference of the merged model's hidden states from the attached adapter's: the proof of the merge."""

    @property
    def model(self) -> Any:
        """SmolVLMForConditionalGeneration; the checkpoint's own where nothing is merged."""
        return self.reference.model


@dataclass(frozen=True)
class Source:
    """A checkpoint, opened for export."""

    checkpoint: Checkpoint
    roles: dict[str, RoleSource]
    facts: dict[str, Any] = field(default_factory=dict)
    """Names and hashes of checkpoint and adapters, for the manifest."""

    @property
    def name(self) -> str:
        """The checkpoint folder's name."""
        return self.checkpoint.path.resolve().name


def open_source(
    path: Path | None = None, adapters: Mapping[str, Path] | None = None, method: str | None = None
) -> Source:
    """Load a checkpoint (None: the packaged model) with one adapter a role.

    adapters: role -> PEFT or SLQ folder, instead of the checkpoint's own choice; method "lora" or "slq" names the
    checkpoint's own retriever. Raises CheckpointError for a checkpoint or adapter that can't be used or does nothing,
    VerificationError where merging changes what an adapter computes.
    """
    checkpoint = load_checkpoint(path)
    roles, facts = {}, {}
    for role in ROLES:
        folder = _adapter_folder(checkpoint, role, adapters or {}, method)
        roles[role] = _role(checkpoint, folder, role)
        facts[role] = None if folder is None else {"name": folder.name, "files": _hashes(folder)}
    named = {"checkpoint": checkpoint.path.resolve().name, "files": _hashes(checkpoint.path), "adapters": facts}
    return Source(checkpoint, roles, named | {"planet_seed": checkpoint.settings.planet_seed})


def weights_hash(module: Any) -> str:
    """Identifies a torch module by its parameters and buffers; equal weights give equal hashes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _adapter_folder(checkpoint: Checkpoint, role: str, adapters: Mapping[str, Path], method: str | None) -> Path | None:
    """The adapter of a role: the caller's, the one `method` names, or the checkpoint's choice."""
    if role in adapters:
        return Path(adapters[role])
    folder = checkpoint.adapter(role)
    if role == "embed" and method is not None:
        if method not in RETRIEVERS:
            raise InputError(f"unknown retrieval method '{method}'; use {' or '.join(RETRIEVERS)}")
        folder = checkpoint.path / ADAPTERS / RETRIEVERS[method]
    if folder is not None and not folder.is_dir():
        raise CheckpointError(
            f"{checkpoint.path} has no adapter '{folder.name}' for {role}; train it, or name one with --adapter"
        )
    return folder


def _role(checkpoint: Checkpoint, folder: Path | None, role: str) -> RoleSource:
    if folder is None:
        return RoleSource(Reference(checkpoint, checkpoint.model))
    if is_queries(folder):
        if role != "embed":
            raise CheckpointError(f"{folder} holds latent queries, which only embed; {role} needs a LoRA folder")
        queries = load_queries(folder, checkpoint.config.text_config.hidden_size)
        return RoleSource(Reference(checkpoint, checkpoint.model, queries), folder.name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # judged below
        merged = merge_adapter(checkpoint.model, folder)
    if merged.moved == 0.0:
        # peft only warns when the weights' names fit no layer; the base would go out under the adapter's name.
        raise CheckpointError(f"the adapter {folder} changes nothing: its layer names fit no layer of this model")
    if not merged.difference <= MERGE_TOLERANCE * merged.scale:
        raise VerificationError(
            f"merging {folder} changes hidden states by {merged.difference:.2e} of {merged.scale:.2e}; "
            "its weights may be damaged: train or download the adapter again"
        )
    return RoleSource(Reference(checkpoint, merged.model), folder.name, merged.difference)


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in sorted(folder.glob("*.safetensors"))}
