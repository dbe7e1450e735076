"""What an export starts from: a checkpoint, and for each role the model with its adapter merged in."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegeo.bundle import sha256_of
from edgegeo.errors import CheckpointError, InputError, VerificationError
from edgegeo.models.adapters import (
    Folded,
    is_lora,
    is_queries,
    load_matryoshka,
    load_pooling,
    load_queries,
    merge_adapter,
)
from edgegeo.models.checkpoint import ADAPTERS, Checkpoint, load_checkpoint
from edgegeo.models.hub import checkpoint_name
from edgegeo.models.lineage import require_base
from edgegeo.models.reference import Reference, reference
from edgegeo.models.weights import is_lean
from edgegeo.recipe import TokenBudget

ROLES = ("embed", "rerank", "generate")
RETRIEVERS = {"lora": "retriever-lora", "slq": "retriever-slq"}
"""`--method` -> folder under the checkpoint's adapters/."""
MERGE_TOLERANCE = 1e-4
"""Largest difference of merged from attached hidden states, relative to the largest of them."""


@dataclass(frozen=True)
class RoleSource:
    """What plays one role."""

    reference: Reference
    """The torch model and its latent queries if it has some; export verifies against it. An adapter is merged into
    it, or attached as PEFT runs it where the model is too large for float32 copies of its matrices."""
    adapter: str | None = None
    """Name of the adapter; None for the base as it is."""
    merge_difference: float | None = None
    """Largest difference of the merged model's hidden states from the attached adapter's: the proof of the merge."""

    folded: Any = None
    """The model whose merged matrices are written, where `reference` has the adapter attached."""

    @property
    def model(self) -> Any:
        """The model whose weights are written; the checkpoint's own where nothing is merged."""
        return self.reference.model if self.folded is None else self.folded


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
        return checkpoint_name(self.checkpoint.path)


def open_source(
    path: Path | None = None, adapters: Mapping[str, Path] | None = None, method: str | None = None,
    budget: TokenBudget | None = None,
) -> Source:  # fmt: skip
    """Load a checkpoint (None: the packaged model) with one adapter a role.

    adapters: role -> PEFT or SLQ folder, instead of the checkpoint's own choice; method "lora" or "slq" names the
    checkpoint's own retriever; budget: how much of a picture the model sees. Raises CheckpointError for a checkpoint,
    adapter or budget that can't be used, or an adapter that does nothing; VerificationError where merging changes what
    an adapter computes.
    """
    checkpoint = load_checkpoint(path, budget)
    roles, facts = {}, {}
    if unknown := sorted(set(adapters or {}) - set(checkpoint.family.roles)):
        raise InputError(f"{checkpoint.path} is a dual encoder, which only embeds: it can't take the role {unknown[0]}")
    for role in checkpoint.family.roles:
        folder = _adapter_folder(checkpoint, role, adapters or {}, method)
        roles[role] = _role(checkpoint, folder, role)
        facts[role] = None if folder is None else {"name": folder.name, "files": _hashes(folder)}
    named = {"checkpoint": checkpoint_name(checkpoint.path), "files": _hashes(checkpoint.path), "adapters": facts}
    return Source(checkpoint, roles, named | {"planet_seed": checkpoint.settings.planet_seed})


def weights_hash(module: Any, base: Mapping[int, str]) -> str:
    """Identifies a torch module by its parameters and buffers; equal weights give equal hashes.

    base: id of a tensor -> its name in the checkpoint's model, which needs no second look at its bytes.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(module):
        digest.update(f"{name} {tuple(tensor.shape)} {base.get(id(tensor))}".encode())
        if id(tensor) not in base:
            digest.update(tensor.detach().float().contiguous().numpy())
    return digest.hexdigest()


def base_tensors(model: Any) -> dict[int, str]:
    """The parameters and buffers of a model by their identity, for `weights_hash`."""
    return {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def _tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """As `state_dict` names them, with merged matrices where an adapter is folded in."""
    if isinstance(module, Folded):
        named = [("weight", module.weight), ("bias", module.bias)]
        yield from ((prefix + name, tensor) for name, tensor in named if tensor is not None)
        return
    lasting = [(n, b) for n, b in module.named_buffers(recurse=False) if n not in module._non_persistent_buffers_set]
    for name, tensor in [*module.named_parameters(recurse=False), *lasting]:
        yield prefix + name, tensor
    for name, child in module.named_children():
        yield from _tensors(child, f"{prefix}{name}.")


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
        return RoleSource(reference(checkpoint))
    if checkpoint.family.text:
        raise CheckpointError(
            f"{checkpoint.path} is a dual encoder, which this version exports without adapters; merge {folder} into "
            "it first (peft: merge_and_unload, save_pretrained)"
        )
    queries = None
    if is_queries(folder):
        if role != "embed":
            raise CheckpointError(f"{folder} holds latent queries, which only embed; {role} needs a LoRA folder")
        queries = load_queries(folder, checkpoint.config.get_text_config().hidden_size)
        if not is_lora(folder):
            require_base(checkpoint, folder)
            alone = Reference(checkpoint, checkpoint.model, queries, matryoshka=load_matryoshka(folder))
            return RoleSource(alone, folder.name)
    how = (queries, *load_pooling(folder), load_matryoshka(folder)) if role == "embed" else ()
    merged = merge_adapter(checkpoint, folder)
    if merged.moved == 0.0:
        # peft only warns when the weights' names fit no layer; the base would go out under the adapter's name.
        raise CheckpointError(f"the adapter {folder} changes nothing: its layer names fit no layer of this model")
    if not merged.difference <= MERGE_TOLERANCE * merged.scale:
        raise VerificationError(
            f"merging {folder} changes hidden states by {merged.difference:.2e} of {merged.scale:.2e}; "
            "its weights may be damaged: train or download the adapter again"
        )
    if is_lean(checkpoint.model):
        return RoleSource(Reference(checkpoint, merged.attached, *how), folder.name, merged.difference, merged.model)
    return RoleSource(Reference(checkpoint, merged.model, *how), folder.name, merged.difference)


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in sorted(folder.glob("*.safetensors"))}
